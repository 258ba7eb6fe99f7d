"""Money that is moved by hand, and all that was moved: the ledger, usage and holds."""

from collections.abc import Callable, Iterator
from typing import Annotated, Any

from sqlalchemy.orm import Session

from shared.billing import Entry, EntryPage, GroupBy, UsageReport
from shared.errors import ErrorCode
from shared.kinds import KINDS
from vendor_service.accounts.accounts import find_account
from vendor_service.accounts.keys import Scope
from vendor_service.acts.accounts import by_account
from vendor_service.acts.act import Act, OperatorScope
from vendor_service.acts.declaration import Own, Recorded, act, preview, query
from vendor_service.acts.names import AccountName, OneAccount
from vendor_service.database.tables import Account, LedgerEntry
from vendor_service.errors import APIError, OperatorError, UsageError
from vendor_service.money import credit_notes, currency, ledger, limits, payments
from vendor_service.money.holds import OpenHold, open_holds
from vendor_service.money.usage import usage_report
from vendor_service.terms import MAX_NUMBER, Micros, Term, Unit, money

_TOLD = ("seq", "kind", "amount_micros", "corrects_seq", "reason", "reference")

ChargeNumber = Annotated[
    int,
    Term(
        "The `seq` of the charge: see `vendor ledger export ACCOUNT`.",
        label="Number of the charge",
        typed="--entry",
        wire="corrects_seq",
        least=1,
        most=MAX_NUMBER,
    ),
]
Reference = Annotated[
    str,
    Term(
        "Its name at the bank or in your files; it counts once an account.",
        label="Reference of the payment",
        typed="--reference",
        longest=255,
    ),
]


@act(
    "money.top_up",
    command="top-up",
    route="POST /accounts/{account}/top-ups",
    scope=OperatorScope.MONEY,
    title="Top up",
    done="{micros} were added to the credit of {account}.",
    of=by_account,
    applies=lambda account: account.credit_micros is not None,
    moves_money=True,
)
def top_up(act: Act, account: AccountName, micros: Micros, reference: Reference) -> Recorded:
    """Add to the credit of a prepaid account. Repeated with the same reference, it changes nothing.

    Example: vendor top-up acme 5EUR --reference "bank 2026-11-27/17"
    """
    return _pay(act, "top_up", payments.top_up, account, micros, reference)


@preview(top_up)
def _of_top_up(act: Act, account: str, micros: int, reference: str) -> Iterator[str]:
    owner = find_account(act.session, account)
    if owner.credit_micros is None:
        raise OperatorError(f"{account} is invoiced, not prepaid; record a payment instead")
    if known := _known(act, owner, "top_up", micros, reference):
        yield from known
        return
    yield _where_it_goes(owner, micros)
    yield f"The ledger gets a top-up of {money(micros)} with the reference {reference!r}, which counts once."


@act(
    "money.payment",
    command="payment",
    route="POST /accounts/{account}/payments",
    scope=OperatorScope.MONEY,
    title="Record a payment",
    done="A payment of {micros} by {account} was recorded.",
    of=by_account,
    applies=lambda account: account.credit_micros is None,
    moves_money=True,
)
def pay(act: Act, account: AccountName, micros: Micros, reference: Reference) -> Recorded:
    """Record what an invoiced account paid: a negative amount, after `--`, is a payment that was returned.

    Invoices show it apart, and it is deducted from no month's total. Repeated with the same reference, it
    changes nothing.

    Example: vendor payment acme 5EUR --reference "bank 2026-11-27/17"
    """
    return _pay(act, "payment", payments.payment, account, micros, reference)


@preview(pay)
def _of_pay(act: Act, account: str, micros: int, reference: str) -> Iterator[str]:
    owner = find_account(act.session, account)
    if owner.credit_micros is not None:
        raise OperatorError(f"{account} is prepaid, not invoiced; top it up instead")
    if known := _known(act, owner, "payment", micros, reference):
        yield from known
        return
    what = "a payment" if micros > 0 else "a payment that was returned, of"
    yield (
        f"The ledger of {account} gets {what} {money(abs(micros))} with the reference {reference!r}, "
        "which counts once."
    )
    yield "What it owes at the end of the month is as much " + ("less." if micros > 0 else "more.")


def _check_part(micros: int | None, reference: str | None) -> None:
    if micros is not None and reference is None:
        raise UsageError("a part of a charge needs a reference, so that it is given back once")


@act(
    "money.refund",
    command="refund",
    route="POST /accounts/{account}/refunds",
    scope=OperatorScope.MONEY,
    title="Refund the charge",
    done="A refund of charge {seq} of {account} was recorded.",
    check=_check_part,
    moves_money=True,
    dangerous=True,
)
def refund(
    act: Act,
    account: AccountName,
    seq: ChargeNumber,
    micros: Annotated[
        int | None,
        Term(
            "As in 2.50 or 2500micros.",
            label="Amount",
            typed="--amount",
            wire="amount_micros",
            unit=Unit.MONEY,
            none="all that is left of it",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        Term(
            "Its name in your files; it counts once an account.",
            label="Reference, for a part",
            typed="--reference",
            longest=255,
        ),
    ] = None,
) -> Recorded:
    """Give a charge back, or a part of it. Its queries stay used: this returns money, not quota.

    A charge may be given back in several parts, which need a reference each: repeated with the same one, it
    changes nothing. In total no more is given back than was charged. If an invoice has the charge, a numbered
    credit note is issued at once. What it took of the present period's
    spend limit is free again. Once nothing is left of the charge, it is not answered again for free.

    Example: vendor refund acme --entry 17 --amount 0.0025 --reference "ticket 812"
    """
    owner = find_account(act.session, account, lock=True)
    if reference is not None:
        entry = payments.recorded(act.session, owner, "refund", micros, reference, seq)
        if entry is not None:
            return Recorded(ledger.public(entry), before=True)
    act.believe_clock()
    before = owner.credit_micros
    appended = payments.refund(act.session, owner, seq, act.now, micros, reference)
    return Recorded(_record(act, owner, before, appended), before=False)


@preview(refund)
def _of_refund(
    act: Act, account: str, seq: int, micros: int | None = None, reference: str | None = None
) -> Iterator[str]:
    owner = find_account(act.session, account)
    row = act.session.get(LedgerEntry, (owner.id, seq))
    if row is None or row.kind != "charge":
        raise OperatorError(f"{account} has no charge {seq}; look it up in its ledger below")
    if reference and (known := _known(act, owner, "refund", micros, reference, seq)):
        yield from known
        return
    refunds, given_back = payments.given_back_of(act.session, owner.id, seq)
    charge = ledger.public(row)
    left = -charge.amount_micros - given_back
    if refunds and not left:
        raise OperatorError(f"charge {seq} of {account} was given back already")
    if micros is not None and not 0 < micros <= left:
        raise OperatorError(f"{money(left)} are left of charge {seq} of {account}; write no more")
    part = left if micros is None else micros
    when = f"{charge.created_at:%Y-%m-%d %H:%M} UTC"
    yield f"Charge {seq} of {account}: {describe(charge)} for {money(-charge.amount_micros)}, {when}."
    yield _how_much(part, left, given_back)
    yield from _of_note(act, owner, row.created_at, part)
    yield "Its queries stay used. It cannot be undone."
    if part == left:
        yield "The answer is not sent again for free."
    if reference is not None:
        yield f"The ledger has it with the reference {reference!r}, which counts once."


@act(
    "money.adjustment",
    command="adjust",
    route="POST /accounts/{account}/adjustments",
    scope=OperatorScope.MONEY,
    title="Adjust",
    done="The books of {account} were adjusted by {micros}.",
    of=by_account,
    moves_money=True,
    dangerous=True,
)
def adjust(
    act: Act,
    account: AccountName,
    micros: Micros,
    reason: Annotated[
        str,
        Term(
            "The reason; it is kept in the ledger.",
            label="Reason, which the customer reads",
            typed="--reason",
            longest=255,
        ),
    ],
    reference: Annotated[
        str,
        Term(
            "Its name in your files; it counts once an account.",
            label="Reference",
            typed="--reference",
            longest=255,
        ),
    ],
) -> Recorded:
    """Correct what an account owes: a positive amount is in its favour, a negative one after `--`.

    Repeated with the same reference, it changes nothing.

    Example: vendor adjust acme 0.25 --reason "outage of 14 November" --reference "ticket 812"
    """
    owner = find_account(act.session, account, lock=True)
    known = payments.recorded(act.session, owner, "adjustment", micros, reference)
    if known is not None:
        return Recorded(ledger.public(known), before=True)
    act.believe_clock()
    before, stood = owner.credit_micros, limits.levels(owner)
    entry = payments.adjust(act.session, owner, micros, reason, act.now, reference)
    limits.tell_reached(act.session, owner, stood, act.percents, act.now)
    return Recorded(_record(act, owner, before, entry), before=False)


@preview(adjust)
def _of_adjust(act: Act, account: str, micros: int, reason: str, reference: str) -> Iterator[str]:
    owner = find_account(act.session, account)
    if known := _known(act, owner, "adjustment", micros, reference):
        yield from known
        return
    whom = "in the customer's favour" if micros > 0 else "against the customer"
    yield f"The ledger of {account} gets an adjustment of {money(micros)}, {whom}."
    yield _where_it_goes(owner, micros)
    yield f"The customer reads the reason: {reason!r}; the reference {reference!r} counts once."


@query(
    route="GET /accounts/{account}/ledger",
    own=Own(route="GET /v1/ledger", scope=Scope.READ_USAGE),
)
def ledger_page(
    act: Act,
    account: AccountName,
    after: Annotated[int, Term("the last `seq` seen", least=0, most=MAX_NUMBER)] = 0,
    limit: Annotated[int, Term(least=1, most=1000)] = 100,
) -> EntryPage:
    """An account's ledger entries behind `after`, oldest first; an empty page ends it.

    Those out of the view of a customer's key are `sealed`: only their place in the chain is shown.
    """
    found = ledger.page(act.session, act.view(find_account(act.session, account)), after, limit + 1)
    data, unit = found[:limit], currency.current(act.session)
    next_after = data[-1].seq if data else after
    return EntryPage(data=data, next_after=next_after, has_more=len(found) > limit, currency=unit)


def _usage_rows(report: UsageReport) -> Iterator[dict[str, Any]]:
    for row in (*report.rows, report.total):
        yield row.model_dump() | {"currency": report.currency}


@query(
    command="usage",
    route="GET /accounts/{account}/usage",
    own=Own(route="GET /v1/usage", scope=Scope.READ_USAGE),
    rows=_usage_rows,
)
def usage(
    act: Act,
    account: AccountName,
    since: Annotated[
        int | None, Term("First moment, UTC.", typed="--from", wire="from", unit=Unit.MOMENT)
    ] = None,
    until: Annotated[
        int | None, Term("End, not included, UTC.", typed="--to", wire="to", unit=Unit.MOMENT)
    ] = None,
    group_by: Annotated[GroupBy, Term("One row for each of these.", typed="--group-by")] = "day",
) -> UsageReport:
    """Print what was answered and charged, in groups and in total.

    Example: vendor usage acme --from 2026-11-01 --group-by key
    """
    begin, end = since or 0, act.now + 1 if until is None else until
    if begin > end:
        raise APIError(ErrorCode.INVALID_REQUEST, "`from` is later than `to`", param="from")
    return usage_report(act.session, act.view(find_account(act.session, account)), group_by, begin, end)


@query(command="holds", route="GET /holds")
def holds(
    act: Act,
    account: OneAccount = None,
    after: str = "",
    limit: Annotated[int | None, Term(least=1, most=1000)] = 100,
) -> list[OpenHold]:
    """List the requests in flight, and what is held for them, oldest first.

    Example: vendor holds acme
    """
    return open_holds(act.session, account, limit, after=after)


def describe(entry: Entry) -> str:
    """The purpose of an entry, in words."""
    parts = [
        f"{number:,} {kind if number == 1 else KINDS[kind]}"
        for kind, number in entry.counts.items()
        if number
    ]
    return f"{' and '.join(parts)} to {entry.model}" if parts else entry.kind.replace("_", "-")


def _pay(
    act: Act,
    kind: str,
    append: Callable[[Session, Account, int, int, str], LedgerEntry],
    account: str,
    micros: int,
    reference: str,
) -> Recorded:
    owner = find_account(act.session, account, lock=True)
    entry = payments.recorded(act.session, owner, kind, micros, reference)
    if entry is not None:
        return Recorded(ledger.public(entry), before=True)
    act.believe_clock()
    before = owner.credit_micros
    appended = append(act.session, owner, micros, act.now, reference)
    return Recorded(_record(act, owner, before, appended), before=False)


def _record(act: Act, owner: Account, credit_before: int | None, entry: LedgerEntry) -> Entry:
    told = {name: value for name in _TOLD if (value := getattr(entry, name)) is not None}
    if credit_before is None:
        act.record(owner.name, None, told)
    else:
        after = told | {"credit_micros": owner.credit_micros}
        act.record(owner.name, {"credit_micros": credit_before}, after)
    return ledger.public(entry)


def _known(
    act: Act, owner: Account, kind: str, micros: int | None, reference: str, seq: int | None = None
) -> list[str]:
    """The facts where the ledger has the reference already."""
    found = payments.recorded(act.session, owner, kind, micros, reference, seq)
    if found is None:
        return []
    return [
        f"{money(found.amount_micros)} with the reference {reference!r} were recorded before as entry "
        f"{found.seq}; nothing will be changed.",
        "Another one takes a reference of its own.",
    ]


def _how_much(micros: int, left: int, given_back: int) -> str:
    before = f" {money(given_back)} were given back before." if given_back else ""
    if micros < left:
        return f"{money(micros)} are given back, and {money(left - micros)} stay charged.{before}"
    return f"All {'that is left' if given_back else 'of it'} is given back: {money(micros)}.{before}"


def _of_note(act: Act, owner: Account, charged_at: int, micros: int) -> Iterator[str]:
    """Where a refund goes: to the credit or this month's invoice, or to a credit note of another month's."""
    note = credit_notes.announced(act.session, owner, charged_at, act.now)
    if note is None or owner.credit_micros is not None:
        yield _where_it_goes(owner, micros)
    if note is not None:
        yield f"A credit note of {money(micros)} is issued {note}."


def _where_it_goes(account: Account, micros: int) -> str:
    if account.credit_micros is None:
        return f"The invoice of this month is {money(abs(micros))} {'less' if micros > 0 else 'more'}."
    return f"The credit goes from {money(account.credit_micros)} to {money(account.credit_micros + micros)}."
