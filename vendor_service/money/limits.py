"""Limits: whether an account and a key may ask, and pay, for what an order asks, as they stand."""

from datetime import datetime

from shared.errors import ErrorCode
from vendor_service.clock import to_datetime
from vendor_service.database.tables import Account, ApiKey, Limited, Project, limited_by
from vendor_service.errors import APIError
from vendor_service.money import periods
from vendor_service.money.orders import Order


def check_status(account: Account, key: ApiKey, order: Order, now: int) -> None:
    """Make sure that this account may ask anything at all, by this key and its secret.

    Raises:
        APIError: `account_suspended`, `invalid_api_key`, or what `check_key` raises.
    """
    if account.status != "active":
        raise APIError(ErrorCode.ACCOUNT_SUSPENDED, "this account is suspended; ask the vendor why")
    check_key(key, now)
    if order.secret_hash is not None and not key.is_secret(order.secret_hash, now):
        raise APIError(ErrorCode.INVALID_API_KEY, "this API key was replaced by a new one; use that")


def check_key(key: ApiKey, now: int) -> None:
    """Make sure that a key has not ended, nor its project.

    Raises:
        APIError: `key_revoked`, `key_expired` or `project_archived`.
    """
    if key.revoked_at is not None:
        raise APIError(ErrorCode.KEY_REVOKED, "this API key was revoked; ask the vendor for a new one")
    if key.expires_at is not None and key.expires_at <= now:
        ended = f"{to_datetime(key.expires_at):%Y-%m-%d %H:%M} UTC"
        raise APIError(ErrorCode.KEY_EXPIRED, f"this API key expired at {ended}; ask for a new one")
    if key.project is not None and key.project.archived_at is not None:
        message = f"the project {key.project.name} of this API key was archived; use a key of another one"
        raise APIError(ErrorCode.PROJECT_ARCHIVED, message)


def check(account: Account, key: ApiKey, order: Order, cost_micros: int, now: int) -> None:
    """Make sure that an order fits what is left of every limit; all counters are those of this period.

    Raises:
        APIError: `max_cost_exceeded`, `quota_exhausted`, `spend_limit_reached`, `insufficient_credit` or
            `coverage_limit_reached`; `rate_limited` where the key has as many requests in flight as it may,
            or where those in flight may leave enough coverage.
    """
    max_cost = order.max_cost_micros
    if max_cost is not None and cost_micros > max_cost:
        message = f"this request costs {cost_micros} micro-units; x-max-cost-micros is {max_cost}"
        raise APIError(ErrorCode.MAX_COST_EXCEEDED, message)
    resets_at = periods.resets_at(account, now)
    for limited in limited_by(account, key):
        _check(limited, order.queries, cost_micros, resets_at)
    if account.credit_micros is not None and account.held_micros + cost_micros > account.credit_micros:
        left = max(0, account.credit_micros - account.held_micros)
        message = f"this request costs {cost_micros} micro-units; {left} of credit are left: pay in more"
        raise APIError(ErrorCode.INSUFFICIENT_CREDIT, message)
    _check_coverage(account, order.queries)
    if order.held_until is None:  # a bulk job waits for no answer
        _check_concurrency(key)


def hold(account: Account, key: ApiKey, order: Order, cost_micros: int) -> None:
    """Count an order, which was checked before, against every limit until it is settled or released."""
    for limited in limited_by(account, key):
        limited.queries_held += order.queries
        limited.held_micros += cost_micros
    if order.held_until is None:  # a bulk job is no request in flight
        key.requests_held += 1


def named(limited: Limited) -> str:
    """What limits, as refusals name it."""
    if isinstance(limited, Project):
        return f"the project {limited.name}"
    return "this key" if isinstance(limited, ApiKey) else "this account"


def _check_concurrency(key: ApiKey) -> None:
    if key.concurrency is not None and key.requests_held >= key.concurrency:
        message = f"this key may have {key.concurrency} requests in flight; ask again when one is answered"
        raise APIError(ErrorCode.RATE_LIMITED, message, retry_after=1)


def _check_coverage(account: Account, queries: int) -> None:
    """Which bucket an answer lies in is known only once it is there: each query may open one."""
    limit = account.coverage_limit
    if limit is None or queries <= (account.coverage_left or 0):
        return
    asked = f"this request asks {queries} queries, each of which may open a bucket of the embedding space"
    left = max(0, limit - account.buckets_covered)
    if queries <= left:
        message = f"{asked}, and so may those in flight; ask again when they are answered"
        raise APIError(ErrorCode.RATE_LIMITED, message, retry_after=1)
    advice = "ask fewer at once" if left else "ask the vendor for a higher limit"
    message = f"{asked}; this account has {left} left of its coverage limit of {limit}: {advice}"
    raise APIError(ErrorCode.COVERAGE_LIMIT_REACHED, message)


def _check(limited: Limited, queries: int, cost: int, resets_at: datetime | None) -> None:
    left = limited.quota_left
    if left is not None and queries > left:
        message = f"this request asks {queries} queries; {named(limited)} has {left} left of its quota"
        raise APIError(ErrorCode.QUOTA_EXHAUSTED, f"{message} of {limited.quota}", resets_at=resets_at)
    left = limited.spend_limit_left
    if left is not None and cost > left:
        message = (
            f"this request costs {cost} micro-units; {named(limited)} has {left} left of its spend limit"
        )
        limit = limited.spend_limit_micros
        raise APIError(ErrorCode.SPEND_LIMIT_REACHED, f"{message} of {limit}", resets_at=resets_at)
