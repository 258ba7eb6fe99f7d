"""API keys as the pages of both sites show them, and the terms that a form gives a new one."""

from datetime import UTC, datetime, time, timedelta

from vendor_service.accounts.keys import KeyTerms, Scope
from vendor_service.clock import from_datetime, to_datetime
from vendor_service.console.forms import Fields
from vendor_service.console.rendering import money
from vendor_service.database.tables import ApiKey
from vendor_service.errors import APIError, UsageError
from vendor_service.money.limits import check_key

_LONGEST_LABEL = 255


def is_good(key: ApiKey, now: int) -> bool:
    """Whether a key has not ended, nor its project."""
    try:
        check_key(key, now)
    except APIError:
        return False
    return True


def why_ended(key: ApiKey, now: int) -> str:
    """Why a key is good no longer, in a word or two; nothing where it is good."""
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is not None and key.expires_at <= now:
        return "expired"
    return "" if is_good(key, now) else "project archived"


def terms_of(form: Fields) -> KeyTerms:
    """What a form wants of a new key; all but its project, which another field names.

    Raises:
        UsageError: something makes no sense, or nothing is ticked that the key may do.
    """
    label, last_day = form.get("label"), form.day("last_day")
    if len(label) > _LONGEST_LABEL:
        raise UsageError(f"what the key is for has up to {_LONGEST_LABEL} characters")
    scopes = frozenset(each for each in Scope if each in form.all("scope"))
    if not scopes:
        raise UsageError("tick at least one thing that the key may do")
    try:
        end = None if last_day is None else datetime.combine(last_day + timedelta(days=1), time(), UTC)
    except OverflowError as error:
        raise UsageError("last day: that is too far away; leave it empty for a key without an end") from error
    return KeyTerms(
        label,
        scopes,
        quota=form.number("quota"),
        spend_limit_micros=form.money("spend_limit"),
        queries_per_second=form.number("rate"),
        concurrency=form.number("concurrency"),
        expires_at=None if end is None else from_datetime(end),
    )


def told(terms: KeyTerms, per_period: str) -> list[str]:
    """The limits of a new key, fact by fact; `per_period` is for how long its quota is."""
    own = []
    if terms.quota is not None:
        own.append(f"{terms.quota:,} queries {per_period}")
    if terms.spend_limit_micros is not None:
        own.append(f"{money(terms.spend_limit_micros)} {per_period}")
    if terms.queries_per_second is not None:
        own.append(f"{terms.queries_per_second:,} queries a second")
    if terms.concurrency is not None:
        own.append(f"{terms.concurrency:,} requests in flight")
    facts = [f"Of its own it has at most {', '.join(own)}." if own else "It has only the account's limits."]
    if terms.expires_at is not None:
        facts.append(f"It is refused from {to_datetime(terms.expires_at):%Y-%m-%d %H:%M} UTC on.")
    return facts
