"""The monitor: asks the vendor's `/metrics` now and then, and tells what happens there now."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

from vendor_service.console.operators import scrapes
from vendor_service.console.operators.scrapes import SELLING, Scrape, Span, known
from vendor_service.console.rendering import duration

_EVERY_SECONDS = 15.0  # while nobody looks
_FRESH_SECONDS = 1.5  # what was asked so recently is not asked again
_WINDOW_SECONDS = 30.0  # over which rates and quantiles are told
_KEPT_SECONDS = 16 * 60.0
_PATIENCE_SECONDS = 5.0
_LARGEST = 4 * 2**20
_POINTS = 90
_UNKNOWN = "\u2013"

_log = logging.getLogger(__name__)


class VendorAway(Exception):
    """The vendor does not answer; the message says why."""


class MetricsClient:
    """Asks a vendor by its URL; `token` is that of its metrics, if they take one."""

    def __init__(self, url: str, token: str | None) -> None:
        self._parts = urlsplit(url)
        self._headers = {} if token is None else {"authorization": f"Bearer {token}"}

    def ask(self, path: str) -> tuple[int, str]:
        """The status and the body of an answer.

        Raises:
            VendorAway: there is none.
        """
        connection = HTTPConnection(
            self._parts.hostname or "", self._parts.port or 80, timeout=_PATIENCE_SECONDS
        )
        try:
            connection.request("GET", path, headers=self._headers)
            answer = connection.getresponse()
            return answer.status, answer.read(_LARGEST).decode(errors="replace")
        except (OSError, HTTPException) as error:
            raise VendorAway(f"the vendor does not answer: {error}") from error
        finally:
            connection.close()


@dataclass(frozen=True)
class Now:
    """The present: rates a second, seconds, shares; `None` where there is nothing to tell from."""

    queries_per_second: float | None
    requests_per_second: float | None
    p50_seconds: float | None
    p99_seconds: float | None
    refused_share: float | None
    in_flight: float
    queue: float
    batch: Mapping[str, float | None]
    busy: float | None
    devices: float
    memory_bytes: float
    revenue_micros_per_hour: float | None
    refusals: list[tuple[str, float]]


class Monitor:
    """Keeps the scrapes of the last quarter of an hour. Thread-safe."""

    def __init__(self, line: MetricsClient | None, steady: Callable[[], float] = time.monotonic) -> None:
        self._line = line
        self._steady = steady
        self._asking = threading.Lock()
        self._kept: deque[Scrape] = deque()
        self._points: deque[Now] = deque(maxlen=_POINTS)
        self.away: str | None = "nothing was asked yet"

    def refresh(self) -> None:
        """Ask the vendor, unless it was asked a moment ago; whether it answered is in `away`."""
        with self._asking:
            now = self._steady()
            if self.away is None and self._kept and now - self._kept[-1].at < _FRESH_SECONDS:
                return
            if self._line is None:
                self.away = "this process was not told where the vendor is"
                return
            try:
                status, text = self._line.ask("/metrics")
                if status != 200:
                    raise VendorAway(
                        f"the vendor's /metrics answers {status}; is VENDOR_METRICS_TOKEN right?"
                    )
                self.take(scrapes.read(text, now))
            except (VendorAway, ValueError) as error:
                if self.away is None:
                    _log.warning("the console does not see the vendor: %s", error)
                self.away = str(error)

    def take(self, scrape: Scrape) -> None:
        """Keep what the vendor said."""
        self.away = None
        self._kept.append(scrape)
        self._thin(scrape.at)
        self._points.append(now_of(self.span(_WINDOW_SECONDS), scrape))

    def span(self, seconds: float) -> Span | None:
        """The newest scrape and one from about so long before; `None` while there are not two."""
        kept = list(self._kept)
        if len(kept) < 2:
            return None
        newest = kept[-1]
        older = [each for each in kept[:-1] if newest.at - each.at <= seconds + _FRESH_SECONDS]
        return Span(older[0] if older else kept[-2], newest)

    def newest(self) -> Scrape | None:
        """The newest scrape."""
        return self._kept[-1] if self._kept else None

    def points(self) -> list[Now]:
        """The last moments, the newest last."""
        return list(self._points)

    def is_ready(self) -> tuple[bool, str]:
        """The present answer of the vendor's `/readyz`."""
        if self._line is None:
            return False, "this process was not told where the vendor is"
        try:
            status, _ = self._line.ask("/readyz")
        except VendorAway as error:
            return False, str(error)
        return (
            status == 200,
            "ready" if status == 200 else f"/readyz answers {status}; the vendor's log says why",
        )

    async def repeat(self) -> None:
        """Ask again and again, until cancelled."""
        while True:
            await asyncio.to_thread(self.refresh)
            await asyncio.sleep(_EVERY_SECONDS)

    def _thin(self, now: float) -> None:
        """Forget what is old, and of what is a while ago all but one in so many seconds."""
        kept: list[Scrape] = []
        for each in self._kept:
            if now - each.at > _KEPT_SECONDS:
                continue
            recent = now - each.at <= 3 * _WINDOW_SECONDS
            if recent or not kept or each.at - kept[-1].at >= _EVERY_SECONDS - _FRESH_SECONDS:
                kept.append(each)
        self._kept = deque(kept)


def now_of(span: Span | None, newest: Scrape) -> Now:
    """The present by a span."""
    rates = _Rates(span)
    devices = newest.total("tuition_devices_alive")
    busy = rates.of("tuition_model_seconds_sum")
    requests = rates.of("tuition_requests_total", is_selling)
    refused = rates.of("tuition_requests_total", lambda each: is_selling(each) and each["status"] != "200")
    billed = rates.of("tuition_billed_micros_total")
    return Now(
        queries_per_second=rates.of("tuition_queries_total"),
        requests_per_second=requests,
        p50_seconds=rates.quantile(0.5),
        p99_seconds=rates.quantile(0.99),
        refused_share=None if not requests or refused is None else refused / requests,
        in_flight=newest.total("tuition_requests_in_flight"),
        queue=newest.total("tuition_queue_inputs"),
        batch={kind: rates.batch(kind) for kind in ("image", "text")},
        busy=None if busy is None or not devices else busy / devices,
        devices=devices,
        memory_bytes=newest.total("process_resident_memory_bytes"),
        revenue_micros_per_hour=None if billed is None else 3600 * billed,
        refusals=rates.refusals(),
    )


def is_selling(labels: Mapping[str, str]) -> bool:
    """Whether a series is of the routes that sell."""
    return labels.get("route") in SELLING


class _Rates:
    def __init__(self, span: Span | None) -> None:
        self._span = span

    def of(self, name: str, where: scrapes.Where = scrapes.everything) -> float | None:
        return None if self._span is None else known(self._span.rate(name, where))

    def quantile(self, share: float) -> float | None:
        if self._span is None:
            return None
        return known(self._span.quantile(share, "tuition_request_seconds", is_selling))

    def batch(self, kind: str) -> float | None:
        if self._span is None:
            return None

        def of_kind(labels: Mapping[str, str]) -> bool:
            return labels["kind"] == kind

        batches = self._span.increase("tuition_batch_size_count", of_kind)
        return self._span.increase("tuition_batch_size_sum", of_kind) / batches if batches else None

    def refusals(self) -> list[tuple[str, float]]:
        if self._span is None:
            return []
        name, found = "tuition_refusals_total", []
        for code in self._span.after.labels(name, "code"):
            rate = self._span.rate(name, lambda each, code=code: each["code"] == code)  # type: ignore[misc]
            if rate > 0:
                found.append((code, rate))
        return sorted(found, key=lambda each: -each[1])


def live(monitor: Monitor) -> dict[str, Any] | None:
    """The content of the page Now and of its stream: figures, lines and refusals a minute.

    `None` while nothing is known.
    """
    points = monitor.points()
    if monitor.away is not None or not points:
        return None
    now = points[-1]
    return {
        "figures": _figures_of(now),
        "lines": {
            "queries": [round(each.queries_per_second or 0.0, 3) for each in points],
            "p99": [round(each.p99_seconds or 0.0, 5) for each in points],
            "queue": [each.queue for each in points],
        },
        "refusals": [(code, f"{60 * rate:.1f}") for code, rate in now.refusals],
    }


def _figures_of(now: Now) -> dict[str, str]:
    """The numbers as the page shows them."""
    return {
        "queries": _number(now.queries_per_second),
        "requests": _number(now.requests_per_second),
        "p50": _time(now.p50_seconds),
        "p99": _time(now.p99_seconds),
        "refused": _share(now.refused_share),
        "in_flight": f"{now.in_flight:.0f}",
        "queue": f"{now.queue:.0f}",
        "batch_images": _number(now.batch["image"]),
        "batch_texts": _number(now.batch["text"]),
        "busy": _share(now.busy),
        "devices": f"{now.devices:.0f}",
        "memory": f"{now.memory_bytes / 2**20:,.0f} MiB",
        "revenue": _UNKNOWN
        if now.revenue_micros_per_hour is None
        else f"{now.revenue_micros_per_hour / 1e6:,.4f}",
    }


def _number(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:,.1f}"


def _share(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{100 * value:.1f}%"


def _time(value: float | None) -> str:
    return _UNKNOWN if value is None else duration(value)
