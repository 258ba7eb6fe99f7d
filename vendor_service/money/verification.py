"""Verification: whether an account's ledger, totals, invoices, holds and counters agree, from scratch.

It reads the ledger once, page by page, in memory that does not grow with it.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from shared.billing import Invoice
from shared.kinds import cost_micros, queries
from vendor_service.clock import HOUR
from vendor_service.database.tables import (
    BULK,
    GENESIS_HASH,
    Account,
    ApiKey,
    BooksHead,
    Coverage,
    Hold,
    LedgerEntry,
    LedgerTotal,
    Limited,
    Project,
)
from vendor_service.money import coverage, credit_notes, invoices, ledger, payments

Progress = Callable[[int], object]
# How many entries are verified between two reports of progress.
_STEP = 1000


@dataclass(frozen=True)
class Verification:
    """The result: `balance_micros` is the sum of the entries; `problem` is the first fault, if any."""

    account: str
    entries: int
    balance_micros: int
    problem: str | None


class Common:
    """What has to be read of all accounts at once, for accounts that are verified one after the other.

    No index leads from an account to its holds, for it would make each charge dearer. So the holds of all
    accounts are counted in one pass, and again only where an account has gone on since: whatever settles or
    refunds a hold appends to its ledger. Likewise the numbers of invoices and credit notes are looked at
    again only once there are more. Of one account, `account_id`, only its own holds are counted.
    """

    def __init__(self, account_id: str | None = None) -> None:
        self._account_id = account_id
        self._numbered: tuple[int, int] | None = None
        self._fault: str | None = None
        self._counted: dict[str, tuple[int, int, int]] = {}

    def fault_of_numbers(self, session: Session) -> str | None:
        """What is wrong with the numbers of all invoices or credit notes."""
        issued = select(BooksHead.invoices_issued, BooksHead.credit_notes_issued)
        invoiced, credited = session.execute(issued).one()
        if (invoiced, credited) != self._numbered:
            self._numbered = invoiced, credited
            self._fault = invoices.fault_of_numbers(session, invoiced)
            self._fault = self._fault or credit_notes.fault_of_numbers(session, credited)
        return self._fault

    def holds(self, session: Session, account: Account) -> tuple[int, int]:
        """How many holds of an account are settled, and how many refunded."""
        if account.id not in self._counted or self._counted[account.id][0] != account.ledger_seq:
            self._counted = self._count(session)
        _, settled, refunded = self._counted[account.id]
        return settled, refunded

    def _count(self, session: Session) -> dict[str, tuple[int, int, int]]:
        accounts = select(Account.id, Account.ledger_seq)
        states = (
            func.count().filter(Hold.state == "settled"),
            func.count().filter(Hold.refunded_at.is_not(None)),
        )
        holds = select(Hold.account_id, *states).group_by(Hold.account_id)
        if self._account_id is not None:
            accounts = accounts.where(Account.id == self._account_id)
            holds = holds.where(Hold.account_id == self._account_id)
        counted = {
            account_id: (settled, refunded) for account_id, settled, refunded in session.execute(holds)
        }
        return {id_: (seq, *counted.get(id_, (0, 0))) for id_, seq in session.execute(accounts)}


def verify(
    session: Session,
    account: Account,
    progress: Progress = lambda _: None,
    common: Common | None = None,
) -> Verification:
    """Recompute the chain, the sums and the counters of one account, in one transaction that reads.

    `progress` is told now and then how many entries more were read. Who verifies several accounts has one
    `common` for all.
    """
    common = common or Common(account.id)
    sums = _Sums(session, account)
    problem = (
        _fault_of_chain(session, account, sums, progress)
        or _fault_of_invoices(session, account)
        or credit_notes.fault(session, account)
        or common.fault_of_numbers(session)
        or _fault_of_counters(session, account, sums, common)
    )
    return Verification(account.name, sums.entries, sums.balance_micros, problem)


def recount(session: Session, account: Account) -> None:
    """Count anew, from the ledger, what account, projects and keys used in their periods."""
    sums = _Sums(session, account)
    for entry in ledger.rows(session, account.id):
        sums.add(entry, _refunded(session, entry))
    for whose, limited in sums.limited.items():
        limited.queries_used, limited.spent_micros = sums.queries[whose], sums.cost_micros[whose]


@dataclass(frozen=True)
class _Refunded:
    """A charge of which an entry gives back `micros`, and whether it is `whole` given back with that."""

    seq: int
    key_id: str | None
    micros: int
    whole: bool


class _Sums:
    """Sums over the entries read so far; of the account (`None`), of each project and key, of its period."""

    def __init__(self, session: Session, account: Account) -> None:
        keys = session.scalars(select(ApiKey).where(ApiKey.account_id == account.id)).all()
        projects = session.scalars(select(Project).where(Project.account_id == account.id)).all()
        self.limited: dict[str | None, Limited] = {None: account}
        self.limited.update((each.id, each) for each in projects)
        self.limited.update((each.id, each) for each in keys)
        self._projects = {key.id: key.project_id for key in keys}
        self.entries = 0
        self.charges = 0
        self.given_back = 0
        self.balance_micros = 0
        self.queries: Counter[str | None] = Counter()
        self.cost_micros: Counter[str | None] = Counter()

    def add(self, entry: Row[Any], refunded: "_Refunded | None") -> None:
        """Add an entry; `refunded` is the charge that it gives back, or a part of it."""
        self.entries += 1
        self.balance_micros += entry.amount_micros
        if refunded is not None:
            self.given_back += refunded.whole
            for whose in self._counted(refunded.key_id, refunded.seq):
                self.cost_micros[whose] -= refunded.micros
        if entry.kind == "charge":
            self.charges += 1
            for whose in self._counted(entry.key_id, entry.seq):
                self.queries[whose] += queries(entry.counts)
                self.cost_micros[whose] -= entry.amount_micros

    def project_of(self, key_id: str | None) -> str | None:
        """The project that a key belongs to."""
        return None if key_id is None else self._projects[key_id]

    def _counted(self, key_id: str | None, seq: int) -> list[str | None]:
        """The owners in whose period a charge by a key counts."""
        whose = {None, key_id, self.project_of(key_id)}
        return [each for each in whose if seq > self.limited[each].period_seq]


class _Hours:
    """The running totals, held against the entries hour by hour, as these come."""

    def __init__(self, session: Session, account: Account) -> None:
        self._session = session
        self._account = account
        self._hour = 0
        # One, and those that a wrong clock dated ahead, or that are gone back to behind them.
        self._summed: dict[int, ledger.Totals] = defaultdict(dict)
        self._right = 0

    def add(self, entry: Row[Any]) -> str | None:
        """One more entry; what is wrong with the totals of the hours that are over with it."""
        hour, fault = entry.created_at // HOUR, None
        if hour != self._hour:
            self._hour = hour
            fault = self._fault(before=entry.seq)
        ledger.add_to_totals(self._summed[hour], entry)
        return fault

    def end(self) -> str | None:
        """There are no more entries; what is wrong with the rest of the totals."""
        if fault := self._fault(before=None):
            return fault
        mine = select(func.count()).where(LedgerTotal.account_id == self._account.id)
        if (there := self._session.scalar(mine)) != self._right:
            return f"there are {there} running totals, but the entries make {self._right}"
        return None

    def _fault(self, before: int | None) -> str | None:
        """The first fault of the hours whose entries all come `before` one, or of all."""
        for hour, summed in list(self._summed.items()):
            written = ledger.totals_of_hour(self._session, self._account.id, hour)
            if before is not None and any(each.last_seq >= before for each in written.values()):
                continue
            del self._summed[hour]
            self._right += len(summed)
            for key in sorted(summed.keys() | written.keys()):
                if summed.get(key) != written.get(key):
                    first = min(each.first_seq for each in summed.values())
                    last = max(each.last_seq for each in summed.values())
                    return (
                        f"the running total of {key.kind} entries in the hour of entries {first} to {last} "
                        "is not what they add up to"
                    )
        return None


def _fault_of_chain(session: Session, account: Account, sums: _Sums, progress: Progress) -> str | None:
    previous, dated = GENESIS_HASH, 0
    hours = _Hours(session, account)
    for seq, entry in enumerate(ledger.rows(session, account.id), start=1):
        if fault := _fault_of_entry(entry, seq, previous):
            return fault
        is_note = entry.kind == "adjustment" and not entry.amount_micros  # as that of a repair
        if entry.created_at < dated and not is_note:
            return f"entry {seq} is dated before the one that it follows"
        if fault := hours.add(entry):
            return fault
        previous, dated = entry.entry_hash, entry.created_at
        refunded = _refunded(session, entry)
        if entry.kind == "refund" and refunded is None:
            return f"entry {seq} does not give back what is left of what it names"
        if entry.project_id != sums.project_of(entry.key_id if refunded is None else refunded.key_id):
            return f"entry {seq} names another project than that of its key"
        sums.add(entry, refunded)
        if seq % _STEP == 0:
            progress(_STEP)
    progress(sums.entries % _STEP)
    if (account.ledger_seq, account.ledger_hash) != (sums.entries, previous):
        return f"entry {sums.entries} is not the last one: the account has written {account.ledger_seq}"
    return hours.end()


def _fault_of_entry(entry: Row[Any], seq: int, previous: str) -> str | None:
    if entry.seq != seq:
        return f"entry {seq} is missing"
    if entry.previous_hash != previous:
        return f"entry {seq} does not follow from the one before it"
    if entry.entry_hash != ledger.entry_hash(entry):
        return f"entry {seq} was changed: its hash does not match"
    if entry.kind == "charge" and -entry.amount_micros != cost_micros(entry.counts, entry.prices):
        return f"entry {seq} is not the price of its queries"
    return None


def _refunded(session: Session, entry: Row[Any]) -> _Refunded | None:
    """The charge that a refund gives back; `None` where there is none, or less is left of it."""
    if entry.kind != "refund":
        return None
    columns = LedgerEntry.__table__.columns
    named = (columns.account_id == entry.account_id, columns.seq == entry.corrects_seq)
    charged = session.execute(select(*columns).where(*named, columns.kind == "charge")).one_or_none()
    if charged is None:
        return None
    refunds, before = payments.given_back_of(session, entry.account_id, charged.seq, before=entry.seq)
    left = -charged.amount_micros - before
    of_nothing = entry.amount_micros == 0 and (charged.amount_micros or refunds)
    if not 0 <= entry.amount_micros <= left or of_nothing:
        return None
    return _Refunded(charged.seq, charged.key_id, entry.amount_micros, whole=entry.amount_micros == left)


def _fault_of_invoices(session: Session, account: Account) -> str | None:
    """The totals are right by now, and what they sum up to is what a final invoice must say."""
    for stored in invoices.finals(session, account.id):
        issued = json.loads(stored.content)
        if issued.get("number") != stored.number:
            return f"the final invoice of {stored.month} has another number than it was issued under"
        again = invoices.summed(session, account, stored.month, final=True)
        as_issued = Invoice.model_validate(issued)
        stays = {name: getattr(as_issued, name) for name in invoices.AS_ISSUED}
        summed = again.model_copy(update=stays).model_dump(mode="json")
        if issued != summed:
            return f"the final invoice of {stored.month} is not what the entries of the month add up to"
    return None


def _fault_of_counters(session: Session, account: Account, sums: _Sums, common: Common) -> str | None:
    if account.credit_micros not in (None, sums.balance_micros):
        return f"the credit is {account.credit_micros}, but the entries add up to {sums.balance_micros}"
    settled, refunded = common.holds(session, account)
    if settled != sums.charges:
        return f"there are {settled} settled holds, but {sums.charges} charges"
    if refunded != sums.given_back:
        return f"there are {refunded} refunded holds, but {sums.given_back} charges were wholly given back"
    covered = session.scalars(select(Coverage).where(Coverage.account_id == account.id))
    buckets = sum(coverage.bits_of(each).bit_count() for each in covered)
    if account.buckets_covered != buckets:
        return f"the account covers {account.buckets_covered} buckets, but the books have {buckets}"
    mine = select(Hold).where(Hold.account_id == account.id, Hold.state == "open")
    open_holds = session.scalars(mine).all()
    for whose, limited in sums.limited.items():
        its_holds = [each for each in open_holds if whose is None or whose in (each.key_id, each.project_id)]
        if fault := _fault_of(limited, whose, sums, its_holds):
            return fault
    return None


def _fault_of(limited: Limited, whose: str | None, sums: _Sums, open_holds: Sequence[Hold]) -> str | None:
    counters = {
        "queries_used": (limited.queries_used, sums.queries[whose]),
        "spent_micros": (limited.spent_micros, sums.cost_micros[whose]),
        "queries_held": (limited.queries_held, sum(queries(each.counts) for each in open_holds)),
        "held_micros": (limited.held_micros, sum(each.cost_micros for each in open_holds)),
    }
    name = "the account" if whose is None else f"the project {whose}"
    if isinstance(limited, ApiKey):
        name = f"the key {whose}"
        counters["requests_held"] = (limited.requests_held, sum(each.server != BULK for each in open_holds))
    for counter, (counted, summed) in counters.items():
        if counted != summed:
            return f"{counter} of {name} is {counted}, but the books add up to {summed}"
    return None
