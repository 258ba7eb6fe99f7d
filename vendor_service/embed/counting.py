"""How much of each kind some queries are: what they are priced by."""

from collections import Counter
from collections.abc import Iterable

from shared.kinds import Counts
from vendor_service.encoder.queries import Query


def counts_of(queries: Iterable[Query]) -> Counts:
    """One of its kind for each query."""
    return Counter(each.kind for each in queries)
