"""Scrapes: what a vendor's `/metrics` said, and when; rates and quantiles as Prometheus has them."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import inf, isnan, nan

from prometheus_client.parser import text_string_to_metric_families

# The only series that are kept; of requests' seconds those of what is sold.
_KEPT = re.compile(
    r"tuition_(queries_total|requests_total|request_seconds_bucket|refusals_total|requests_in_flight"
    r"|queue_inputs|queue_wait_seconds_bucket|batch_size_(sum|count)|model_seconds_(sum|count)"
    r"|devices_alive|device_deaths_total|billed_micros_total|billing_total|text_cache_total"
    r"|ledger_faulty_accounts|audit_log_faulty|ledger_verified_timestamp_seconds|gpu_memory_bytes"
    r"|in_hand_bytes|model_info|account_(spent_micros|queries_used|quota))"
    r"|process_(resident_memory_bytes|start_time_seconds)"
)
SELLING = frozenset({"/embed", "/v1/embeddings"})

Labels = tuple[tuple[str, str], ...]
Where = Callable[[Mapping[str, str]], bool]


def everything(_: Mapping[str, str]) -> bool:
    """Any series of a name."""
    return True


@dataclass(frozen=True)
class Scrape:
    """The series at one moment, in seconds of a clock that never steps."""

    at: float
    series: Mapping[str, Mapping[Labels, float]]

    @cached_property
    def workers(self) -> frozenset[str | None]:
        """The workers that told something; `None` is one that has no siblings."""
        return frozenset(dict(labels).get("worker") for found in self.series.values() for labels in found)

    def total(self, name: str, where: Where = everything) -> float:
        """The sum of the series of a name whose labels are wanted."""
        found = self.series.get(name, {})
        return sum(value for labels, value in found.items() if where(dict(labels)))

    def highest(self, name: str, where: Where = everything) -> float:
        """The largest value of the series of a name whose labels are wanted, or 0 where there is none."""
        found = self.series.get(name, {})
        return max((value for labels, value in found.items() if where(dict(labels))), default=0.0)

    def labels(self, name: str, label: str) -> list[str]:
        """The values of a label among the series of a name."""
        return sorted({dict(labels).get(label, "") for labels in self.series.get(name, {})})


@dataclass(frozen=True)
class Span:
    """Two scrapes, and what happened between them."""

    before: Scrape
    after: Scrape

    @property
    def seconds(self) -> float:
        """How far they are apart."""
        return self.after.at - self.before.at

    def increase(self, name: str, where: Where = everything) -> float:
        """By how much counters rose; one that is lower than before began anew.

        Those of a worker that told nothing before do not count: nobody knows what they were then.
        """
        former, risen = self.before.series.get(name, {}), 0.0
        for labels, value in self.after.series.get(name, {}).items():
            named = dict(labels)
            if where(named) and named.get("worker") in self.before.workers:
                earlier = former.get(labels, 0.0)
                risen += value - earlier if value >= earlier else value
        return risen

    def rate(self, name: str, where: Where = everything) -> float:
        """By how much counters rose a second."""
        return self.increase(name, where) / self.seconds if self.seconds > 0 else nan

    def quantile(self, share: float, histogram: str, where: Where = everything) -> float:
        """The quantile of what a histogram observed, as `histogram_quantile` has it; NaN for nothing."""
        name = f"{histogram}_bucket"
        counts: dict[float, float] = {}
        for bound in self.after.labels(name, "le"):

            def in_bucket(labels: Mapping[str, str], bound: str = bound) -> bool:
                return labels["le"] == bound and where(labels)

            counts[float(bound)] = self.increase(name, in_bucket)
        return _quantile(share, sorted(counts.items()))


def read(text: str, at: float) -> Scrape:
    """The samples of Prometheus's text format that are kept."""
    series: dict[str, dict[Labels, float]] = {}
    lines = (line for line in text.splitlines(keepends=True) if _is_kept(line))
    for family in text_string_to_metric_families("".join(lines)):
        for sample in family.samples:
            if sample.name.startswith("tuition_request_seconds") and sample.labels["route"] not in SELLING:
                continue
            series.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return Scrape(at, series)


def _is_kept(line: str) -> bool:
    return _KEPT.match(line) is not None


def _quantile(share: float, buckets: Iterable[tuple[float, float]]) -> float:
    cumulative = list(buckets)
    if not cumulative or not cumulative[-1][1]:
        return nan
    rank = share * cumulative[-1][1]
    below, counted = 0.0, 0.0
    for bound, count in cumulative:
        if count >= rank:
            if bound == inf:
                return below
            inside = count - counted
            return below + (bound - below) * (rank - counted) / inside if inside else bound
        below, counted = bound, count
    return nan


def known(value: float) -> float | None:
    """A number, or `None` for one that is not there."""
    return None if isnan(value) else value
