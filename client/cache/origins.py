"""The origins of embeddings: vendors and files, and whether what two of them say of a model agrees."""

from collections.abc import Mapping
from urllib.parse import urlsplit

import numpy as np

from client.vendors.query import Query
from shared.encoding import Vector

# Where nobody said.
UNKNOWN = ""
# However tolerant a vendor says that its model is, answers of one model differ by no more than this.
_MOST_TOLERANCE = 0.05
_LEAST_COSINE = 0.99
# One of float16 is rounded to 11 bits.
_ROUNDING = {2: 2.0**-11, 4: 1e-6}


def origin_of(url: str) -> str:
    """The name of a vendor: scheme, host and port of its address; of one in this process, all of it."""
    parts = urlsplit(url)
    if not parts.hostname:
        return url
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{parts.hostname}:{port}"


def difference(
    known: Mapping[Query, Vector], answered: Mapping[Query, Vector], *, tolerance: float, itemsize: int
) -> str | None:
    """How answers differ from what is known of the same queries; `None` where they agree.

    Args:
        known: embeddings as they are stored, of shape (dimensions,).
        answered: those to compare with them; other queries than the known ones are passed over.
        tolerance: the largest difference of one component, as the model's card gives it.
        itemsize: bytes of a stored number, 4 or 2.
    """
    allowed = min(tolerance, _MOST_TOLERANCE) + _ROUNDING[itemsize]
    for query, before in known.items():
        now = answered.get(query)
        if now is None:
            continue
        if now.shape != before.shape:
            return f"{len(now)} dimensions, not {len(before)}"
        largest = float(np.abs(now.astype(np.float64) - before).max())
        lengths = float(np.linalg.norm(now.astype(np.float64)) * np.linalg.norm(before.astype(np.float64)))
        cosine = float(now.astype(np.float64) @ before) / lengths if lengths else 0.0
        if not (largest <= allowed and cosine >= _LEAST_COSINE):
            return f"by {largest:.2g} in a component, where {allowed:.2g} is allowed, for {query.name!r}"
    return None
