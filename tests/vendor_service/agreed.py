"""Something else agreed with an account, whose row a test has in its hands."""

from sqlalchemy.orm import Session

from vendor_service.accounts.accounts import change_terms
from vendor_service.database.tables import Account


def set_plan(session: Session, account: Account, plan: str, now: int) -> None:
    """Have another plan; raises what `change_terms` does."""
    change_terms(session, account, {"plan": plan}, now)


def set_quota(account: Account, quota: int | None) -> None:
    """Have another quota."""
    account.quota = quota


def set_coverage_limit(account: Account, buckets: int | None) -> None:
    """Have another coverage limit."""
    account.coverage_limit = buckets


def suspend(account: Account) -> None:
    """Sell it nothing from now on."""
    account.status = "suspended"


def resume(account: Account) -> None:
    """Serve it again."""
    account.status = "active"
