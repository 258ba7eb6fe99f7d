"""Estimates: what a purchase would cost this account now, and whether it could be made."""

from sqlalchemy.orm import Session

from shared.billing import EstimateRequest, Quote
from shared.kinds import cost_micros, queries
from vendor_service.clock import SECOND
from vendor_service.database.tables import Account, ApiKey, Rated, limited_by, roll_periods
from vendor_service.money import currency, prices, rate


def estimate(
    session: Session, account_id: str, key_id: str, model: str, asked: EstimateRequest, now: int
) -> Quote:
    """Price some queries by the plan of the account; holds and charges nothing."""
    account, key = session.get_one(Account, account_id), session.get_one(ApiKey, key_id)
    find_price = prices.batch if asked.batch else prices.current
    cost = cost_micros(asked.counts, find_price(session, account.plan, model, now))
    unit = currency.current(session)
    # They are rolled into the present period here, which is for the next admission to write down.
    session.expunge_all()
    roll_periods(account, key, now)
    asked_queries = queries(asked.counts)
    limited = limited_by(account, key)
    lefts = [left for each in limited if (left := each.quota_left) is not None]
    money = [left for each in limited if (left := each.spend_limit_left) is not None]
    if account.credit_micros is not None:
        money.append(account.credit_micros - account.held_micros)
    return Quote(
        cost_micros=cost,
        quota_left=min(lefts, default=None),
        fits_quota=asked_queries <= min(lefts, default=asked_queries),
        fits_money=cost <= min(money, default=cost),
        seconds_at_rate_limit=(
            0 if asked.batch else max(_seconds_at_rate(each, asked_queries, now) for each in limited)
        ),
        currency=unit,
    )


def _seconds_at_rate(rated: Rated, queries: int, now: int) -> int:
    limit = rate.limit_of(rated)
    if limit is None:
        return 0
    missing = queries * SECOND - rate.tokens_left(rated, now)
    return max(0, -(-missing // (limit.queries_per_second * SECOND)))
