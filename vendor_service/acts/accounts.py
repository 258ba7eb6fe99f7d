"""Accounts: opening one, changing what is agreed, and putting right what a wrong clock dated."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import BaseModel
from sqlalchemy import select

from shared.billing import AccountStatus
from vendor_service.accounts import accounts, keys
from vendor_service.accounts.accounts import CHANGEABLE, Terms, find_account
from vendor_service.acts.act import Act, OperatorScope
from vendor_service.acts.declaration import Changes, Own, act, changes_of, preview, query
from vendor_service.acts.names import Named
from vendor_service.acts.sessions import shut_out
from vendor_service.batches import book
from vendor_service.clock import to_datetime
from vendor_service.database.tables import Account, ApiKey
from vendor_service.database.view import View
from vendor_service.errors import OperatorError, UsageError
from vendor_service.extraction.report import Extraction, extraction, forget, meaning
from vendor_service.money.repair import Repair, repair
from vendor_service.money.usage import account_status
from vendor_service.terms import Term, money

NO_LIMIT = "no limit"
_STATUS = Literal["active", "suspended"]


class ExtractionReport(BaseModel):
    """A row for each model."""

    data: list[Extraction]


def by_name(act: Act, name: str, *, lock: bool = False) -> Account:
    """The account that an act is about; raises what `find_account` does."""
    return find_account(act.session, name, lock=lock)


def by_account(act: Act, account: str, *, lock: bool = False) -> Account:
    """The account of what an act is about; raises what `find_account` does."""
    return find_account(act.session, account, lock=lock)


def _hint(status: AccountStatus) -> str | None:
    if (status.quota, status.spend_limit_micros, status.credit_micros) != (None, None, None):
        return None
    rate = ", nor a rate limit" if status.rate_limit is None else ""
    return (
        f"{status.account} may buy without a limit: it has no quota, no spend limit and no prepaid credit"
        f"{rate}. Set one with: `vendor accounts set {status.account} --quota QUERIES`"
    )


@act(
    "account.create",
    command="accounts create",
    route="POST /accounts",
    status=201,
    scope=OperatorScope.ACCOUNTS,
    title="Open an account",
    done="The account {name} is open. Next, make a key for it or invite someone.",
    none=NO_LIMIT,
    hint=_hint,
    begins_books=True,
)
def open_account(act: Act, name: Named, terms: Terms) -> AccountStatus:
    """Open an account. Credit that it starts with is money, which takes a token with the scope `money`.

    Example: vendor accounts create acme --quota 50000 --period month
    """
    if terms.credit_micros:
        act.require(OperatorScope.MONEY)
    act.believe_clock()
    account = accounts.open_account(act.session, name, terms, act.clock)
    agreed = _agreed(account)
    act.record(name, None, agreed | {"credit_micros": account.credit_micros})
    return account_status(act.session, View.whole(account.id), act.now)


@act(
    "account.set",
    command="accounts set",
    route="PATCH /accounts/{account}",
    scope=OperatorScope.ACCOUNTS,
    title="Change the limits",
    done="The limits of {name} were changed.",
    none=NO_LIMIT,
    of=by_name,
    state=lambda account: _agreed(account),
)
def change(
    act: Act,
    name: Named,
    changes: Annotated[Mapping[str, int | str | None], Changes(Terms, omit=("credit_micros",))],
    status: Annotated[_STATUS | None, Term()] = None,
) -> AccountStatus:
    """Agree on other limits or another plan, from now on: those that are named, all of them or none.

    What was used counts, in another period as well. `none` takes a limit away.

    Example: vendor accounts set acme --quota 80000 --spend-limit none --plan research
    """
    if not changes and status is None:
        raise UsageError("name at least one field that is to change")
    account = find_account(act.session, name, lock=True)
    if changes:
        with act.changing(account, account, CHANGEABLE):
            accounts.change_terms(act.session, account, changes, act.now)
    if status is not None:
        (suspend if status == "suspended" else resume)(act, name)
    return account_status(act.session, View.whole(account.id), act.now)


@preview(change)
def _of_change(
    act: Act, name: str, changes: Mapping[str, int | str | None], status: str | None = None
) -> Iterator[str]:
    account = find_account(act.session, name)
    facts = changes_of(Terms, account, changes, NO_LIMIT)
    if not facts:
        raise UsageError("nothing would change; write another number first")
    yield from facts
    now = account_status(act.session, View.whole(account.id), act.now)
    yield f"What was used of this period ({now.queries_used:,} queries, {money(now.spent_micros)}) counts."
    yield "The new limits apply at once."


@act(
    "account.suspend",
    command="accounts suspend",
    scope=OperatorScope.ACCOUNTS,
    title="Suspend the account",
    done="{name} is suspended.",
    of=by_name,
    applies=lambda account: account.status == "active",
)
def suspend(act: Act, name: Named) -> AccountStatus:
    """Sell an account nothing from now on; it may still read. What is in flight is answered and charged.

    Its bulk jobs end, who is signed in to its console is signed out, and open invitations are withdrawn.

    Example: vendor accounts suspend acme
    """
    account = find_account(act.session, name, lock=True)
    _set_status(act, account, "suspended")
    return account_status(act.session, View.whole(account.id), act.now)


@preview(suspend)
def _of_suspend(act: Act, name: str) -> Iterator[str]:
    account = find_account(act.session, name)
    yield f"Nothing is sold to {name} from now on: requests get account_suspended."
    yield f"What is in flight is answered and charged; bulk jobs end ({account.queries_held:,} queries held)."
    yield "Everybody in its console is signed out for good, and open invitations are withdrawn."
    yield "It may still read what it was charged, here and by its keys."


@act(
    "account.resume",
    command="accounts resume",
    scope=OperatorScope.ACCOUNTS,
    title="Resume the account",
    done="{name} is active again.",
    of=by_name,
    applies=lambda account: account.status == "suspended",
)
def resume(act: Act, name: Named) -> AccountStatus:
    """Serve a suspended account again. Sessions, invitations and bulk jobs that ended stay so.

    Example: vendor accounts resume acme
    """
    account = find_account(act.session, name, lock=True)
    _set_status(act, account, "active")
    return account_status(act.session, View.whole(account.id), act.now)


@preview(resume)
def _of_resume(act: Act, name: str) -> Iterator[str]:
    yield f"{name} may buy again from now on, within its limits."
    yield "Sessions, invitations and bulk jobs that ended with its suspension do not come back."


@act(
    "account.rename",
    command="accounts rename",
    route="POST /accounts/{account}/rename",
    scope=OperatorScope.ACCOUNTS,
    title="Rename the account",
    done="{name} is called {new_name} from now on.",
    of=by_name,
)
def rename(
    act: Act, name: Named, new_name: Annotated[str, Term("Its new name.", label="New name", typed="NEW_NAME")]
) -> AccountStatus:
    """Give an account another name, from now on; its keys and receipts know it by its id, and stay good.

    Issued invoices keep the former name, and so do earlier entries of the audit log.

    Example: vendor accounts rename acme acme-labs
    """
    account = find_account(act.session, name, lock=True)
    accounts.rename(act.session, account, new_name)
    act.record(new_name, {"name": name}, {"name": new_name})
    act.session.flush()
    return account_status(act.session, View.whole(account.id), act.now)


@preview(rename)
def _of_rename(act: Act, name: str, new_name: str) -> Iterator[str]:
    find_account(act.session, name)
    yield f"{name} is called {new_name} from now on, also in commands, routes and metrics."
    yield "Its keys, its receipts and what it bought stay as they are; issued invoices keep the former name."


@act(
    "account.close",
    command="accounts close",
    route="POST /accounts/{account}/close",
    scope=OperatorScope.ACCOUNTS,
    title="Close the account",
    done="{name} is closed.",
    of=by_name,
    applies=lambda account: account.status != "closed",
    dangerous=True,
)
def close(act: Act, name: Named) -> AccountStatus:
    """End an account for good: its keys are revoked, and everything else ends as with a suspension.

    Its books stay, its last invoice is issued with the others, and its name is not free again.

    Example: vendor accounts close acme
    """
    account = find_account(act.session, name, lock=True)
    if account.status != "closed":
        good = select(ApiKey.id).where(ApiKey.account_id == account.id, ApiKey.revoked_at.is_(None))
        for key_id in act.session.scalars(good).all():
            keys.revoke_key(act.session, key_id, act.clock)
        _set_status(act, account, "closed")
    return account_status(act.session, View.whole(account.id), act.now)


@preview(close)
def _of_close(act: Act, name: str) -> Iterator[str]:
    account = find_account(act.session, name)
    if account.status == "closed":
        return
    yield f"Nothing is sold to {name} any more, and its keys are revoked: for good, nobody can open it again."
    yield f"What is in flight is answered and charged; bulk jobs end ({account.queries_held:,} queries held)."
    if account.credit_micros:
        yield f"Credit of {money(account.credit_micros)} stays in its books; give it back first if it is due."
    yield "Its books stay, and its last invoice is issued with the others."


@act(
    "account.repair",
    command="accounts repair",
    route="POST /accounts/{account}/repair",
    scope=OperatorScope.ACCOUNTS,
    title="Continue after a wrong clock",
    done="The books of {name} go on from now.",
    hint=lambda done: (
        None if done.by_seq is not None else "nothing was dated ahead of now; nothing was changed"
    ),
    of=by_name,
    dangerous=True,
)
def repair_dates(act: Act, name: Named) -> Repair:
    """Let the books of an account go on from now, which a wrong clock dated ahead of it.

    An adjustment of nothing says so in the ledger. Entries that were dated ahead keep their dates, and are on
    the invoice of their month. Set this machine's clock right first.

    Example: vendor accounts repair acme
    """
    account = find_account(act.session, name, lock=True)
    act.believe_clock()
    done = repair(act.session, account, act.now)
    if done.by_seq is not None:
        act.record(name, None, asdict(done))
    return done


@preview(repair_dates)
def _of_repair(act: Act, name: str) -> Iterator[str]:
    find_account(act.session, name)
    yield f"The books of {name} go on from {to_datetime(act.now):%Y-%m-%d %H:%M:%S} UTC."
    yield "This machine's clock must be right."


@act(
    "account.forget_sketches",
    command="extraction forget",
    route="DELETE /accounts/{account}/sketches",
    scope=OperatorScope.ACCOUNTS,
    title="Delete the sketches",
    done="The sketches of {name} are deleted.",
    of=by_name,
    dangerous=True,
)
def forget_sketches(act: Act, name: Named) -> AccountStatus:
    """Delete the sketches of an account. Under a coverage limit its buckets stay, by which that is counted.

    Example: vendor extraction forget acme
    """
    account = find_account(act.session, name, lock=True)
    forget(act.session, account)
    act.record(name, None, None)
    return account_status(act.session, View.whole(account.id), act.now)


@preview(forget_sketches)
def _of_forget(act: Act, name: str) -> Iterator[str]:
    find_account(act.session, name)
    yield f"What is known of all that {name} asked about is lost."


def _all_of(found: list[AccountStatus]) -> Iterator[dict[str, Any]]:
    for status in found:
        yield status.model_dump(mode="json", exclude={"project"})  # operators see whole accounts


@query(command="accounts list", route="GET /accounts", rows=_all_of)
def list_accounts(
    act: Act,
    after: str = "",
    limit: Annotated[int | None, Term(least=1, most=1000)] = 100,
) -> list[AccountStatus]:
    """List all accounts with what they have used, by name.

    Example: vendor accounts list --json
    """
    found = accounts.list_accounts(act.session, after, limit)
    return [account_status(act.session, View.whole(each.id), act.now) for each in found]


@query(command="accounts show", route="GET /accounts/{account}", own=Own(route="GET /v1/account", scope=None))
def show_account(act: Act, account: Named) -> AccountStatus:
    """Show an account: its limits, and how much of them is used.

    A customer's key that sees one project is shown that one's.

    Example: vendor accounts show acme
    """
    return account_status(act.session, act.view(find_account(act.session, account)), act.now)


def _rows(report: ExtractionReport) -> Iterator[dict[str, Any]]:
    for row in report.data:
        yield {
            "account": row.account,
            "model": row.model,
            "queries": row.queries,
            "inputs": row.distinct_inputs,
            "buckets": row.buckets,
            "coverage": f"{row.coverage:.1%}",
            "rank": row.effective_rank,
            "copy_cosine": row.cosine,
            "copy_agrees": _percent(row.agreement),
            "most_like": row.alike,
            "same_inputs": _percent(row.shared_inputs),
            "same_buckets": _percent(row.shared_buckets),
        }


def _meaning(report: ExtractionReport) -> str:
    if not report.data:
        return "Nothing was sold since sketches are kept; VENDOR_SKETCHES=false keeps none."
    return meaning(report.data[0])


@query(
    command="extraction report",
    route="GET /accounts/{account}/extraction",
    rows=_rows,
    note=_meaning,
    pages=False,
)
def extraction_report(
    act: Act,
    account: Annotated[
        str | None,
        Term("One account.", typed="[ACCOUNT]", none="the 200 that cover most, and these together"),
    ] = None,
) -> ExtractionReport:
    """Report what accounts asked about, how much of the model that covers, and how good a copy it would make.

    Vendors write what they know every five seconds. docs/trust.md says what the figures mean.

    Example: vendor extraction report acme
    """
    one = None if account is None else find_account(act.session, account)
    return ExtractionReport(data=extraction(act.session, one))


def _set_status(act: Act, account: Account, status: Literal["active", "suspended", "closed"]) -> None:
    if account.status == "closed":
        raise OperatorError(f"{account.name} is closed, for good; open another account")
    with act.changing(account, account, ("status",)):
        account.status = status
        if status != "active":
            shut_out(act.session, account.id, act.now)
            book.stop_all(act.session, account.id, act.keep_micros, act.now)


def _agreed(account: Account) -> dict[str, int | str | None]:
    return {field: getattr(account, field) for field in ("status", *CHANGEABLE)}


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.0%}"
