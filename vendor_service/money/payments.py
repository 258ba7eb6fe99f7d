"""Payments and corrections: the entries of a ledger that sell nothing.

Whoever appends one must have locked the account in this transaction.
"""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from vendor_service.database.tables import Account, ApiKey, Hold, LedgerEntry, limited_by
from vendor_service.errors import OperatorError, UsageError
from vendor_service.money import credit_notes
from vendor_service.money.ledger import append
from vendor_service.terms import MAX_NUMBER, money


def top_up(
    session: Session, account: Account, amount_micros: int, now: int, reference: str | None = None
) -> LedgerEntry:
    """Append money that a prepaid account paid in; a `reference` counts once, see `recorded`.

    Raises:
        OperatorError: the account is not prepaid, or its books go on to a date ahead of the clock's.
        UsageError: the amount is not positive, or too large; or the reference cannot be.
    """
    if account.credit_micros is None:
        raise OperatorError(
            f"{account.name} is invoiced, not prepaid; record a payment with: "
            f"`vendor payment {account.name} AMOUNT --reference REFERENCE`"
        )
    if not 0 < amount_micros <= MAX_NUMBER - max(0, account.credit_micros):
        raise UsageError("a top-up is a positive amount, and credit has fewer than 16 digits in micro-units")
    _check_reference(reference)
    return append(session, account, "top_up", amount_micros, now, reference=reference)


def payment(
    session: Session, account: Account, amount_micros: int, now: int, reference: str | None
) -> LedgerEntry:
    """Append what an invoiced account paid; negative is a payment that was returned. See `recorded`.

    Raises:
        OperatorError: the account is prepaid, or its books go on to a date ahead of the clock's.
        UsageError: the amount is zero or too large, or the reference cannot be.
    """
    if account.credit_micros is not None:
        raise OperatorError(
            f"{account.name} is prepaid, not invoiced; add to its credit with: "
            f"`vendor top-up {account.name} AMOUNT --reference REFERENCE`"
        )
    if amount_micros == 0 or abs(amount_micros) > MAX_NUMBER:
        raise UsageError("a payment is an amount that is not zero, and below 16 digits in micro-units")
    _check_reference(reference)
    return append(session, account, "payment", amount_micros, now, reference=reference)


def recorded(
    session: Session,
    account: Account,
    kind: str,
    amount_micros: int | None,
    reference: str,
    corrects_seq: int | None = None,
) -> LedgerEntry | None:
    """The entry that this top-up, payment, refund or adjustment has already, if it was recorded before.

    A refund of all that is left has no amount; it was recorded only if nothing of the charge is left.

    Raises:
        OperatorError: the reference stands for something else.
    """
    same = (LedgerEntry.account_id == account.id, LedgerEntry.reference == reference)
    found = session.scalar(select(LedgerEntry).where(*same))
    if found is None:
        return None
    if amount_micros is None and _nothing_is_left(session, found):
        amount_micros = found.amount_micros
    asked = (kind, amount_micros, corrects_seq)
    if (found.kind, found.amount_micros, found.corrects_seq) != asked:
        of = "" if found.corrects_seq is None else f" of charge {found.corrects_seq}"
        raise OperatorError(
            f"the reference {reference!r} of {account.name} is that of entry {found.seq}, a {found.kind}{of} "
            f"of {money(found.amount_micros)}; each entry has a reference of its own"
        )
    return found


def refund(
    session: Session,
    account: Account,
    seq: int,
    now: int,
    amount_micros: int | None = None,
    reference: str | None = None,
) -> LedgerEntry:
    """Append what gives back a part of a charge, or without an amount all that is left of it.

    In all no more is given back than was charged. The queries stay used; once nothing is left of the charge,
    it is replayed no more. What was spent of the present period's spend limits is given back with it, if the
    charge is of that period. A `reference` counts once, see `recorded`. If an invoice has the charge, a
    credit note is issued.

    Raises:
        UsageError: the amount is not positive, or the reference cannot be.
        OperatorError: there is no such charge, so much is not left of it, or the account's books go on to
            a date ahead of the clock's.
    """
    _check_reference(reference)
    charged = session.get(LedgerEntry, (account.id, seq))
    if charged is None or charged.kind != "charge":
        raise OperatorError(f"{account.name} has no charge {seq}; see: `vendor ledger export {account.name}`")
    refunds, given_back = given_back_of(session, account.id, seq)
    left = -charged.amount_micros - given_back
    if refunds and not left:
        raise OperatorError(f"charge {seq} of {account.name} was refunded already, and nothing of it is left")
    amount = left if amount_micros is None else amount_micros
    if amount < 0 or (amount == 0 and charged.amount_micros):
        raise UsageError("a refund is a positive amount")
    if amount > left:
        raise OperatorError(
            f"{money(left)} is left of charge {seq} of {account.name}; a refund gives back no more"
        )
    said = {"corrects_seq": seq, "reference": reference, "project_id": charged.project_id}
    appended = append(session, account, "refund", amount, now, **said)
    for each in limited_by(account, session.get_one(ApiKey, charged.key_id)):
        if seq > each.period_seq:
            each.spent_micros -= amount
    if amount == left:
        session.get_one(Hold, charged.hold_id).refunded_at = appended.created_at
    credit_notes.issue_due(session, account, charged.created_at, now, appended.seq)
    return appended


def given_back_of(session: Session, account_id: str, seq: int, before: int | None = None) -> tuple[int, int]:
    """How many refunds of a charge there are, and of how much in all; those `before` an entry, if named."""
    same = select(func.count(), func.coalesce(func.sum(LedgerEntry.amount_micros), 0)).where(
        LedgerEntry.account_id == account_id, LedgerEntry.corrects_seq == seq
    )
    if before is not None:
        same = same.where(LedgerEntry.seq < before)
    refunds, micros = session.execute(same).one()
    return int(refunds), int(micros)


def adjust(
    session: Session,
    account: Account,
    amount_micros: int,
    reason: str,
    now: int,
    reference: str | None = None,
) -> LedgerEntry:
    """Append a correction for a reason; a positive amount is in the customer's favour. See `recorded`.

    Raises:
        UsageError: the amount is zero or too large, the reason or reference is empty or too long,
            or a prepaid account's free credit would not cover it.
        OperatorError: the account's books go on to a date ahead of the clock's.
    """
    if amount_micros == 0 or abs(amount_micros) > MAX_NUMBER:
        raise UsageError("an adjustment is an amount that is not zero, and below 16 digits in micro-units")
    if not reason.strip() or len(reason) > 255:
        raise UsageError("give the reason of an adjustment, in up to 255 characters")
    credit = account.credit_micros
    if credit is not None and not account.held_micros <= credit + amount_micros <= MAX_NUMBER:
        raise UsageError(f"{account.name} has {money(credit - account.held_micros)} of free credit")
    _check_reference(reference)
    return append(session, account, "adjustment", amount_micros, now, reason=reason, reference=reference)


def note(session: Session, account: Account, reason: str, now: int) -> LedgerEntry:
    """Append an adjustment of nothing, which says why the entries go on as they do."""
    return append(session, account, "adjustment", 0, now, reason=reason)


def _check_reference(reference: str | None) -> None:
    if reference is not None and (not reference.strip() or len(reference) > 255):
        raise UsageError("give a reference in up to 255 characters")


def _nothing_is_left(session: Session, refunded: LedgerEntry) -> bool:
    """Whether the charge that an entry gave back, if it gave one back, is wholly given back by now."""
    if refunded.corrects_seq is None:
        return False
    charged = session.get_one(LedgerEntry, (refunded.account_id, refunded.corrects_seq))
    return given_back_of(session, charged.account_id, charged.seq)[1] == -charged.amount_micros
