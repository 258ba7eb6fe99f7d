"""The origins of embeddings: vendors and files, and which of them were found to agree on a model."""

import sqlite3
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

import numpy as np

from client.cache.file import CacheFile
from client.vendors.query import Query
from shared.encoding import Vector

# What was stored before origins were noted.
UNKNOWN = ""
# However tolerant a vendor says that its model is, answers of one model differ by no more than this.
_MOST_TOLERANCE = 0.05
_LEAST_COSINE = 0.99
# One of float16 is rounded to 11 bits.
_ROUNDING = {2: 2.0**-11, 4: 1e-6}


def origin_of(url: str) -> str:
    """The name of a vendor: scheme, host and port of its address."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{parts.hostname}:{port}"


class Origins:
    """The origins of one cache's embeddings. Those that agree form a pool; each begins in one of its own."""

    def __init__(self, file: CacheFile) -> None:
        self._file = file

    def pools(self, fingerprint: str) -> dict[str, int]:
        """The pool of each origin of a model, by the origin's name."""
        rows = self._file.read(
            "SELECT name, pool FROM origins WHERE model = (SELECT id FROM models WHERE fingerprint = ?)",
            (fingerprint,),
        )
        return dict(rows)

    def by_id(self, fingerprint: str) -> dict[int | None, tuple[str, int]]:
        """The name and the pool of each origin of a model, by what embeddings refer to it as."""
        rows = self._file.read(
            "SELECT id, name, pool FROM origins WHERE model = (SELECT id FROM models WHERE fingerprint = ?)",
            (fingerprint,),
        )
        found: dict[int | None, tuple[str, int]] = {id_: (name, pool) for id_, name, pool in rows}
        unknown = next((each for each in found.values() if each[0] == UNKNOWN), (UNKNOWN, 0))
        return found | {None: unknown}


def origin_id(connection: sqlite3.Connection, model: int, name: str) -> int:
    """The number of an origin of a model, which is noted if it is new."""
    found = connection.execute(
        "SELECT id FROM origins WHERE model = ? AND name = ?", (model, name)
    ).fetchone()
    if found is None:
        connection.execute("INSERT INTO origins (model, name, pool) VALUES (?, ?, 0)", (model, name))
        found = connection.execute("SELECT last_insert_rowid()").fetchone()
        connection.execute("UPDATE origins SET pool = id WHERE id = ?", found)
    return int(found[0])


def join_pools(connection: sqlite3.Connection, model: int, origins: Iterable[int]) -> None:
    """Note that these origins agree, and so do all that agree with one of them."""
    numbers = sorted(set(origins))
    marks = ",".join("?" * len(numbers))
    pools = [
        pool
        for (pool,) in connection.execute(
            f"SELECT DISTINCT pool FROM origins WHERE id IN ({marks})",  # noqa: S608 (marks)
            numbers,
        )
    ]
    for pool in pools[1:]:
        connection.execute(
            "UPDATE origins SET pool = ? WHERE model = ? AND pool = ?", (pools[0], model, pool)
        )


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
