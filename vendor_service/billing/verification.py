"""Verification: whether an account's ledger, holds and counters agree, recomputed from scratch."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from vendor_service.billing import ledger
from vendor_service.database.tables import Account, ApiKey, Hold, LedgerEntry, Limited


@dataclass(frozen=True)
class Verification:
    """What was found: `balance_micros` is the sum of the entries; `problem` is the first fault, if any."""

    account: str
    entries: int
    balance_micros: int
    problem: str | None


def verify(session: Session, account: Account) -> Verification:
    """Recompute the chain, the sums and the counters of one account, in one transaction that reads."""
    keys = session.scalars(select(ApiKey).where(ApiKey.account_id == account.id)).all()
    sums = _Sums({None: account.period_started_at} | {key.id: key.period_started_at for key in keys})
    problem = _fault_of_chain(session, account, sums) or _fault_of_counters(session, account, keys, sums)
    return Verification(account.name, sums.entries, sums.balance_micros, problem)


class _Sums:
    """Sums over the entries read so far; by key, and by `None` for the account, those of its period."""

    def __init__(self, periods: dict[str | None, int]) -> None:
        self._periods = periods
        self.entries = 0
        self.charges = 0
        self.refunds = 0
        self.balance_micros = 0
        self.queries: Counter[str | None] = Counter()
        self.cost_micros: Counter[str | None] = Counter()

    def add(self, entry: LedgerEntry, given_back: LedgerEntry | None) -> None:
        """Add an entry; `given_back` is the charge that it refunds, if it is a refund."""
        self.entries += 1
        self.balance_micros += entry.amount_micros
        if given_back is not None:
            self.refunds += 1
            for key_id in (None, given_back.key_id):
                if given_back.created_at >= self._periods[key_id]:
                    self.cost_micros[key_id] += given_back.amount_micros
        if entry.kind != "charge":
            return
        self.charges += 1
        for key_id in (None, entry.key_id):
            if entry.created_at >= self._periods[key_id]:
                self.queries[key_id] += entry.images + entry.texts
                self.cost_micros[key_id] -= entry.amount_micros


def _fault_of_chain(session: Session, account: Account, sums: _Sums) -> str | None:
    previous, dated = ledger.GENESIS_HASH, 0
    for seq, entry in enumerate(ledger.entries(session, account.id), start=1):
        if entry.seq != seq:
            return f"entry {seq} is missing"
        if entry.previous_hash != previous:
            return f"entry {seq} does not follow from the one before it"
        if entry.entry_hash != ledger.entry_hash(entry):
            return f"entry {seq} was changed: its hash does not match"
        if entry.kind == "charge" and -entry.amount_micros != _price(entry):
            return f"entry {seq} is not the price of its queries"
        if entry.created_at < dated:
            return f"entry {seq} is dated before the one that it follows"
        previous, dated = entry.entry_hash, entry.created_at
        given_back = None
        if entry.kind == "refund":
            given_back = session.get(LedgerEntry, (account.id, entry.corrects_seq))
            if given_back is None or given_back.amount_micros != -entry.amount_micros:
                return f"entry {seq} does not give back what it names"
        sums.add(entry, given_back)
    if (account.ledger_seq, account.ledger_hash) != (sums.entries, previous):
        return f"entry {sums.entries} is not the last one: the account has written {account.ledger_seq}"
    return None


def _price(entry: LedgerEntry) -> int:
    return entry.images * entry.image_micros + entry.texts * entry.text_micros


def _fault_of_counters(session: Session, account: Account, keys: Sequence[ApiKey], sums: _Sums) -> str | None:
    if account.credit_micros not in (None, sums.balance_micros):
        return f"the credit is {account.credit_micros}, but the entries add up to {sums.balance_micros}"
    settled = select(func.count()).where(Hold.account_id == account.id, Hold.state == "settled")
    if session.scalar(settled) != sums.charges:
        return f"there are {session.scalar(settled)} settled holds, but {sums.charges} charges"
    refunded = select(func.count()).where(Hold.account_id == account.id, Hold.refunded_at.is_not(None))
    if session.scalar(refunded) != sums.refunds:
        return f"there are {session.scalar(refunded)} refunded holds, but {sums.refunds} refunds"
    if fault := _fault(session, account, "the account", sums, Hold.account_id == account.id, None):
        return fault
    for key in keys:
        if fault := _fault(session, key, f"the key {key.id}", sums, Hold.key_id == key.id, key.id):
            return fault
    return None


def _fault(
    session: Session,
    limited: Limited,
    whose: str,
    sums: _Sums,
    its_holds: ColumnElement[bool],
    key_id: str | None,
) -> str | None:
    held = select(func.sum(Hold.images + Hold.texts), func.sum(Hold.cost_micros))
    row = session.execute(held.where(Hold.state == "open", its_holds)).one()
    queries_held, held_micros = (int(value or 0) for value in row)
    counters = {
        "queries_used": (limited.queries_used, sums.queries[key_id]),
        "spent_micros": (limited.spent_micros, sums.cost_micros[key_id]),
        "queries_held": (limited.queries_held, queries_held),
        "held_micros": (limited.held_micros, held_micros),
    }
    for name, (counted, summed) in counters.items():
        if counted != summed:
            return f"{name} of {whose} is {counted}, but the books add up to {summed}"
    return None
