"""Acts on accounts: opening one, changing what is agreed, putting right what a wrong clock dated."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from shared.billing import AccountStatus
from vendor_service.accounts import accounts
from vendor_service.accounts.accounts import Terms
from vendor_service.acts.act import Act
from vendor_service.database.tables import Account
from vendor_service.extraction.report import forget
from vendor_service.money import periods, thresholds
from vendor_service.money.repair import Repair, repair
from vendor_service.money.usage import account_status

_AGREED = (
    "status",
    "plan",
    "quota",
    "quota_period",
    "spend_limit_micros",
    "queries_per_second",
    "coverage_limit",
)


def open_account(act: Act, name: str, terms: Terms) -> AccountStatus:
    """Open an account; raises what `accounts.open_account` and `Act.believe_clock` do."""
    act.believe_clock()
    account = accounts.open_account(act.session, name, terms, act.clock)
    act.record("account.create", name, None, _agreed(account) | {"credit_micros": account.credit_micros})
    return _status(act, account)


def set_quota(act: Act, name: str, quota: int | None) -> AccountStatus:
    """Agree on another quota, from now on; raises what `accounts.set_quota` does."""
    with _changing(act, name, "account.set_quota") as account:
        accounts.set_quota(account, quota)
    return _status(act, account)


def set_spend_limit(act: Act, name: str, micros: int | None) -> AccountStatus:
    """Agree on another spend limit, from now on; raises what `accounts.set_spend_limit` does."""
    with _changing(act, name, "account.set_spend_limit") as account:
        accounts.set_spend_limit(account, micros)
    return _status(act, account)


def set_rate_limit(act: Act, name: str, queries_per_second: int | None) -> AccountStatus:
    """Agree on another rate, from now on; raises what `accounts.set_rate_limit` does."""
    with _changing(act, name, "account.set_rate_limit") as account:
        accounts.set_rate_limit(account, queries_per_second)
    return _status(act, account)


def set_coverage_limit(act: Act, name: str, buckets: int | None) -> AccountStatus:
    """Agree on another coverage limit, from now on; raises what `accounts.set_coverage_limit` does."""
    with _changing(act, name, "account.set_coverage_limit") as account:
        accounts.set_coverage_limit(account, buckets)
    return _status(act, account)


def set_plan(act: Act, name: str, plan: str) -> AccountStatus:
    """Let another plan's prices hold from now on; raises what `accounts.set_plan` does."""
    with _changing(act, name, "account.set_plan") as account:
        accounts.set_plan(act.session, account, plan, act.now)
    return _status(act, account)


def suspend(act: Act, name: str) -> AccountStatus:
    """Sell an account nothing from now on."""
    with _changing(act, name, "account.suspend") as account:
        accounts.suspend(account)
    return _status(act, account)


def resume(act: Act, name: str) -> AccountStatus:
    """Serve a suspended account again."""
    with _changing(act, name, "account.resume") as account:
        accounts.resume(account)
    return _status(act, account)


def set_terms(act: Act, name: str, changes: Mapping[str, int | str | None]) -> AccountStatus:
    """Agree on something else, from now on: each field of `changes` that differs is an act of its own.

    The fields are those of `Terms` without `quota_period` and `credit_micros`, and `status`. Raises what
    these acts do.
    """
    account = accounts.find_account(act.session, name, lock=True)
    for field, change in _CHANGES.items():
        if field in changes and changes[field] != getattr(account, field):
            change(act, name, changes[field])
    return _status(act, account)


def repair_dates(act: Act, name: str) -> Repair:
    """Let an account's books go on from now, which a wrong clock dated ahead.

    Raises what `money.repair` and `Act.believe_clock` do.
    """
    account = accounts.find_account(act.session, name, lock=True)
    act.believe_clock()
    done = repair(act.session, account, act.now)
    if done.by_seq is not None:
        act.record("account.repair", name, None, asdict(done))
    return done


def forget_sketches(act: Act, name: str) -> AccountStatus:
    """Delete what is known of all that an account asked about; see `extraction.report.forget`."""
    account = accounts.find_account(act.session, name, lock=True)
    forget(act.session, account)
    act.record("account.forget_sketches", name, None, None)
    return _status(act, account)


def _set_status(act: Act, name: str, status: str) -> AccountStatus:
    return (suspend if status == "suspended" else resume)(act, name)


_CHANGES: Mapping[str, Callable[[Act, str, Any], AccountStatus]] = {
    "quota": set_quota,
    "spend_limit_micros": set_spend_limit,
    "queries_per_second": set_rate_limit,
    "coverage_limit": set_coverage_limit,
    "plan": set_plan,
    "status": _set_status,
}


@contextmanager
def _changing(act: Act, name: str, action: str) -> Iterator[Account]:
    """The account, locked, to be changed; what the change was, if there was one, is recorded."""
    account = accounts.find_account(act.session, name, lock=True)
    before, stood = _agreed(account), thresholds.levels(account)
    yield account
    after = _agreed(account)
    if not periods.is_over(account, account, act.now):  # what was used of a former period is no news
        thresholds.tell(act.session, account, stood, act.percents, act.now)
    changed = [field for field in _AGREED if before[field] != after[field]]
    if changed:
        sides = [{field: side[field] for field in changed} for side in (before, after)]
        act.record(action, name, *sides)


def _agreed(account: Account) -> dict[str, str | int | None]:
    return {field: getattr(account, field) for field in _AGREED}


def _status(act: Act, account: Account) -> AccountStatus:
    return account_status(act.session, account.id, act.now)
