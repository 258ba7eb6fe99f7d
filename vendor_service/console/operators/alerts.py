"""Alerts: the rules of `docker/observability/alerts.yml`, asked of what the monitor has seen.

They are for who has no Prometheus, and look back no further than a quarter of an hour.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Literal

from vendor_service.console.operators.monitor import Monitor, is_selling
from vendor_service.console.operators.scrapes import Where, known
from vendor_service.console.rendering import duration

Severity = Literal["page", "warn"]

_MINUTE = 60.0
_STALE_SECONDS = 3 * 86_400
_LATE_SECONDS = 18 * 3600


@dataclass(frozen=True)
class Alert:
    """A rule: `says` gives what is wrong, or `None`; `next` is what to do then."""

    name: str
    severity: Severity
    watches: str
    next: str
    says: Callable[[Monitor, float], str | None]


@dataclass(frozen=True)
class State:
    """An alert, and what it says now; `None` is nothing."""

    alert: Alert
    message: str | None


def states(monitor: Monitor, now: float) -> list[State]:
    """The state of every alert; `now` is in seconds since 1970."""
    return [State(each, each.says(monitor, now)) for each in ALERTS]


def _down(monitor: Monitor, _: float) -> str | None:
    return monitor.away


def _not_ready(monitor: Monitor, _: float) -> str | None:
    times = _increase(monitor, _MINUTE, "tuition_refusals_total", code="not_ready")
    return f"{times:.0f} checks in the last minute found it not ready" if times else None


def _queue_wait(monitor: Monitor, _: float) -> str | None:
    span = monitor.span(5 * _MINUTE)
    if span is None:
        return None
    models = span.after.labels("tuition_queue_wait_seconds_bucket", "model")
    for model, kind in product(models, ("image", "text")):
        waited = known(span.quantile(0.95, "tuition_queue_wait_seconds", _with(model=model, kind=kind)))
        if waited and waited > 1:
            return f"5% of the {kind} queries wait more than {duration(waited)} for {model}"
    return None


def _overloaded(monitor: Monitor, _: float) -> str | None:
    span = monitor.span(5 * _MINUTE)
    if span is None:
        return None
    asked = span.increase("tuition_requests_total", is_selling)
    away = span.increase("tuition_refusals_total", lambda each: each["code"] == "overloaded")
    return (
        f"{100 * away / asked:.0f}% of the requests are turned away"
        if asked and away / asked > 0.05
        else None
    )


def _internal_errors(monitor: Monitor, _: float) -> str | None:
    times = _increase(monitor, 5 * _MINUTE, "tuition_refusals_total", code="internal_error")
    return f"{times:.0f} requests failed in a way that nobody foresaw" if times else None


def _ledger_faulty(monitor: Monitor, _: float) -> str | None:
    accounts = _highest(monitor, "tuition_ledger_faulty_accounts")
    return f"the books of {accounts:.0f} accounts are not in order" if accounts else None


def _audit_log_faulty(monitor: Monitor, _: float) -> str | None:
    return "the audit log is not in order" if _highest(monitor, "tuition_audit_log_faulty") else None


def _ledger_not_verified(monitor: Monitor, now: float) -> str | None:
    verified = _highest(monitor, "tuition_ledger_verified_timestamp_seconds")
    # 0 is never since the start: the first audit, which takes hours of a large ledger, has as long as others.
    since = verified or _highest(monitor, "process_start_time_seconds")
    if not since or now - since <= _STALE_SECONDS:
        return None
    if not verified:
        return f"the ledger was not verified since the vendor's start {duration(now - since)} ago"
    return f"the ledger was last verified {duration(now - since)} ago"


def _holds_expire(monitor: Monitor, _: float) -> str | None:
    times = _increase(monitor, 15 * _MINUTE, "tuition_billing_total", outcome="expired")
    return f"{times:.0f} requests were never settled: a process died under them" if times else None


def _gpu_memory(monitor: Monitor, _: float) -> str | None:
    newest = monitor.newest()
    if newest is None:
        return None
    for device in newest.labels("tuition_gpu_memory_bytes", "device"):
        held = newest.total("tuition_gpu_memory_bytes", _with(device=device, state="reserved"))
        # Each worker tells of the whole device.
        whole = newest.highest("tuition_gpu_memory_bytes", _with(device=device, state="total"))
        if whole and held / whole > 0.95:
            return f"the vendor has taken {100 * held / whole:.0f}% of {device}"
    return None


def _models_file_faulty(monitor: Monitor, _: float) -> str | None:
    faulty = _highest(monitor, "tuition_models_file_faulty")
    return "the file of models was refused when it was last read" if faulty else None


def _bulk_jobs_late(monitor: Monitor, _: float) -> str | None:
    age = _highest(monitor, "tuition_bulk_oldest_seconds")
    return (
        f"the oldest bulk job is {duration(age)} old, and expires after a day"
        if age > _LATE_SECONDS
        else None
    )


def _receivers_fail(monitor: Monitor, _: float) -> str | None:
    receivers = _highest(monitor, "tuition_receivers_failing")
    return f"{receivers:.0f} receivers do not take what is sent to them" if receivers else None


def _increase(monitor: Monitor, seconds: float, name: str, **labels: str) -> float:
    span = monitor.span(seconds)
    return 0.0 if span is None else span.increase(name, _with(**labels))


def _with(**labels: str) -> Where:
    """Those series that have these labels, among others."""
    return lambda found: labels.items() <= found.items()


def _highest(monitor: Monitor, name: str) -> float:
    newest = monitor.newest()
    return 0.0 if newest is None else newest.highest(name)


ALERTS = (
    Alert("VendorDown", "page", "the vendor answers", "See whether its process runs, and its log.", _down),
    Alert("VendorNotReady", "page", "model and database answer",
          "The vendor's log says which of them does not.", _not_ready),
    Alert("QueueWait", "warn", "95% of queries wait less than a second",
          "Add a worker or a device, or lower max_queued_inputs so that callers go elsewhere.", _queue_wait),
    Alert("Overloaded", "warn", "fewer than 5% of requests are turned away",
          "Add a worker or a device; see under accounts who asks most.", _overloaded),
    Alert("InternalErrors", "warn", "nothing fails unforeseen",
          "Find the request in the vendor's log by its id, and report it.", _internal_errors),
    Alert("LedgerFaulty", "page", "the books are in order",
          "Verify the ledger under Money, stop selling to that account, and compare with a backup.",
          _ledger_faulty),
    Alert("AuditLogFaulty", "page", "the audit log is in order",
          "Verify it under Audit log, and compare with a backup.", _audit_log_faulty),
    Alert("LedgerNotVerified", "warn", "the ledger was verified in the last three days",
          "Look in the vendor's log for why the audit fails.", _ledger_not_verified),
    Alert("HoldsExpire", "warn", "every request is settled or voided",
          "A process was killed, perhaps for memory; nothing was charged for these.", _holds_expire),
    Alert("ModelsFileFaulty", "warn", "the file of models can be read",
          "The vendor's log says what is wrong with it; the former models are served.", _models_file_faulty),
    Alert("BulkJobsLate", "warn", "bulk jobs end within 18 hours",
          "Add a worker or a device: a job expires after a day, and what is done of it is charged.",
          _bulk_jobs_late),
    Alert("ReceiversFail", "warn", "receivers take their events",
          "See under Set up which one fails; its owner mends it, and events are sent for three days.",
          _receivers_fail),
    Alert("GpuMemory", "warn", "the devices have memory left",
          "Name the device less often in --device, or serve with fewer --workers or fewer models.",
          _gpu_memory),
)  # fmt: skip
