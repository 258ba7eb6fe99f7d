"""The queries of one request, from whichever route and in whichever form they came."""

from collections.abc import Sequence
from dataclasses import dataclass

from vendor_service.encoder.queries import Query


@dataclass(frozen=True)
class Queries:
    """The queries of one request, in order.

    `model` is the one that was asked for, if any was, and `dimensions` how long its vectors are believed to
    be. With `skip_bad` those that cannot be served are passed over instead of failing the rest. `body_hash`
    (SHA-256, hex) tells a retry from another request, and `param` where in the request the queries are, for
    error messages.
    """

    items: Sequence[Query]
    body_hash: str
    model: str | None = None
    skip_bad: bool = False
    param: str = "inputs"
    dimensions: int | None = None
