"""The rate of recent purchases of a model, measured from their receipts."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from statistics import median

from client.cache.receipts import PaidRequest

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


def recent_rate(sales: Iterable[PaidRequest], *, images: int = 0, texts: int = 0) -> float | None:
    """Queries a second in the latest purchase that compares with one of so many images and texts.

    A purchase is what one run bought without a pause. It compares if it is a tenth as large at least, and
    most of it is of the same kind. With no number given, any does.

    Returns:
        `None` where none compares, or the latest that does was too short to be measured.
    """
    for purchase in _latest_first(sales):
        counted = purchase[1:]  # the time that the first took is not known
        seconds = purchase[-1].at - purchase[0].at
        bought = sum(sale.images for sale in counted), sum(sale.texts for sale in counted)
        like = not (images or texts) or (images >= texts) == (bought[0] >= bought[1])
        if like and sum(bought) >= _COMPARABLE_SHARE * (images + texts):
            return sum(bought) / seconds if seconds >= _MEASURED_SECONDS else None
    return None


def _latest_first(sales: Iterable[PaidRequest]) -> list[Sequence[PaidRequest]]:
    """What each run bought without a pause, in the order of time; what ended last comes first."""
    by_run: dict[str, list[PaidRequest]] = defaultdict(list)
    for sale in sorted(sales, key=lambda sale: sale.at):
        by_run[sale.run_id].append(sale)
    purchases = [purchase for run in by_run.values() for purchase in _unbroken(run)]
    return sorted(purchases, key=lambda purchase: -purchase[-1].at)


def _unbroken(sales: Sequence[PaidRequest]) -> Iterator[Sequence[PaidRequest]]:
    gaps = [later.at - sale.at for sale, later in pairwise(sales)]
    short = max(_SHORT_PAUSE_SECONDS, _FAR_CLOSER * median(gaps)) if gaps else 0
    pauses = [place for place, gap in enumerate(gaps, start=1) if gap > min(short, _PAUSE_SECONDS)]
    for start, end in pairwise([0, *pauses, len(sales)]):
        yield sales[start:end]
