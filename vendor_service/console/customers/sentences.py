"""What happened, as sentences: events, and where an account is heading."""

from collections.abc import Mapping, Sequence
from typing import Any

from vendor_service.clock import next_month_start, to_datetime
from vendor_service.console.meters import expected_by_end, to_the_cent
from vendor_service.console.spent import Share
from vendor_service.money.spending import Spent
from vendor_service.terms import money
from vendor_service.webhooks.events import EventKind

_LIMITS = {EventKind.QUOTA: "quota", EventKind.SPEND_LIMIT: "spend limit", EventKind.CREDIT: "credit"}


def of_event(kind: EventKind, data: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """An event as a sentence; keys are named by their labels."""
    key = data.get("key_id")
    who = f"Key {labels.get(key) or key}" if key else None
    if "project" in data:
        who = f"Project {data['project']}"
    if limit := _LIMITS.get(kind):
        counted = "used_queries" in data
        used, most = (
            f"{data[f'{part}_queries']:,}" if counted else money(data[f"{part}_micros"])
            for part in ("used", "limit")
        )
        unit = " queries" if counted else ""
        return f"{who or 'The account'} reached {data['percent']}% of its {limit}: {used} of {most}{unit}."
    if kind == EventKind.INVOICE_FINALIZED:
        number = f"Invoice {data['number']}" if data.get("number") else "The invoice"
        total = f"{money(data['total_micros'])} {data.get('currency') or ''}".strip()
        return f"{number} of {data['month']} is final: {total}."
    if kind == EventKind.CREDIT_NOTE_ISSUED:
        total = f"{money(data['total_micros'])} {data.get('currency') or ''}".strip()
        return f"Credit note {data['name']} of invoice {data['invoice_number']} was issued: {total}."
    if kind == EventKind.KEY_ROTATED:
        until = data.get("former_until")
        former = f" The old one works until {to_datetime(until):%Y-%m-%d %H:%M} UTC." if until else ""
        return f"Key {data.get('label') or data.get('key_id')} has a new secret.{former}"
    if kind == EventKind.BATCH_COMPLETED:
        refused = f", {data['failed']:,} refused" if data.get("failed") else ""
        cost = money(data["cost_micros"])
        return f"Bulk job {data['id']} is done: {data['completed']:,} lines answered{refused}, for {cost}."
    if kind == EventKind.MODEL_DEPRECATED:
        ends = f" It ends on {data['sunset_at'][:10]}." if data.get("sunset_at") else ""
        return f"Model {data['model']} is deprecated.{ends}"
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in data.items() if value is not None)


def course(
    days: Sequence[Spent], keys: Sequence[Share], labels: Mapping[str, str], begin: int, now: int, unit: str
) -> str | None:
    """What the month will cost at the pace of its `days`, and which key has most of it.

    `begin` is when the month began, or the account. `None` where nothing was charged, or too early to tell.
    """
    charged = sum(each.charged_micros for each in days)
    expected = to_the_cent(expected_by_end(charged, begin, to_datetime(next_month_start(now)), now))
    if not charged or expected is None:
        return None
    said = f"On course for {money(expected)} {unit} this month"
    most = keys[0].spent.group if keys else None
    return f"{said}; {labels.get(most) or most} is {keys[0].percent}% of it so far." if most else f"{said}."
