"""The rate of recent purchases of a model, measured from their receipts."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import median
from types import MappingProxyType

from client.cache.tables import Receipt
from shared.embeddings import Kind

# A longer time between two receipts is a pause, and not what the vendor takes.
_PAUSE_SECONDS = 30
# So is a shorter one, of a person between two commands say, if most of the run's receipts came far closer.
_SHORT_PAUSE_SECONDS = 5
_FAR_CLOSER = 10
# What took less than this was too short to measure.
_MEASURED_SECONDS = 1
# A purchase of fewer queries than this share of what is wanted says little of it: requests are not full, and
# most of the time may be the client's own.
_COMPARABLE_SHARE = 0.1


def recent_rate(sales: Iterable[Receipt], wanted: Mapping[Kind, int] = MappingProxyType({})) -> float | None:
    """Queries a second in the latest purchase that is comparable with the wanted queries of each kind.

    A purchase is what one run bought without a pause. It compares if it is a tenth as large at least, and
    most of it is of the same kind. With nothing wanted, any does.

    Returns:
        `None` where none compares, or the latest that does was too short to be measured.
    """
    total = sum(wanted.values())
    for purchase in _latest_first(sales):
        seconds = purchase[-1].received_at - purchase[0].received_at
        bought: Counter[Kind] = Counter()
        for sale in purchase[1:]:  # the time that the first took is not known
            bought.update(sale.counts)
        like = not total or _mostly(bought) == _mostly(wanted)
        if like and bought.total() >= _COMPARABLE_SHARE * total:
            return bought.total() / seconds if seconds >= _MEASURED_SECONDS else None
    return None


def _mostly(counts: Mapping[Kind, int]) -> Kind | None:
    """The kind of most of some queries."""
    return max(sorted(counts), key=lambda kind: counts[kind], default=None)


def _latest_first(sales: Iterable[Receipt]) -> list[Sequence[Receipt]]:
    """Purchases: receipts of one run without a pause, in order of time; the latest purchase first."""
    by_run: dict[str, list[Receipt]] = defaultdict(list)
    for sale in sorted(sales, key=lambda sale: sale.received_at):
        by_run[sale.run_id].append(sale)
    purchases = [purchase for run in by_run.values() for purchase in _unbroken(run)]
    return sorted(purchases, key=lambda purchase: -purchase[-1].received_at)


def _unbroken(sales: Sequence[Receipt]) -> Iterator[Sequence[Receipt]]:
    gaps = [later.received_at - sale.received_at for sale, later in pairwise(sales)]
    short = max(_SHORT_PAUSE_SECONDS, _FAR_CLOSER * median(gaps)) if gaps else 0
    pauses = [place for place, gap in enumerate(gaps, start=1) if gap > min(short, _PAUSE_SECONDS)]
    for start, end in pairwise([0, *pauses, len(sales)]):
        yield sales[start:end]
