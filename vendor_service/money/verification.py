"""Verification: whether an account's ledger, totals, invoices, holds and counters agree, from scratch.

It reads the ledger once, page by page, in memory that does not grow with it.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, func, select
from sqlalchemy.orm import Session

from vendor_service.clock import HOUR
from vendor_service.database.tables import (
    BULK,
    Account,
    ApiKey,
    BooksHead,
    Coverage,
    FinalInvoice,
    Hold,
    LedgerEntry,
    LedgerTotal,
    Limited,
    Project,
)
from vendor_service.money import coverage, invoices, ledger, totals

Progress = Callable[[int], object]
# How many entries are verified between two reports of progress.
_STEP = 1000


@dataclass(frozen=True)
class Verification:
    """What was found: `balance_micros` is the sum of the entries; `problem` is the first fault, if any."""

    account: str
    entries: int
    balance_micros: int
    problem: str | None


def verify(session: Session, account: Account, progress: Progress | None = None) -> Verification:
    """Recompute the chain, the sums and the counters of one account, in one transaction that reads.

    `progress` is told now and then how many entries more were read.
    """
    keys = session.scalars(select(ApiKey).where(ApiKey.account_id == account.id)).all()
    projects = session.scalars(select(Project).where(Project.account_id == account.id)).all()
    parts: list[ApiKey | Project] = [*keys, *projects]
    sums = _Sums(
        {None: account.period_started_at} | {each.id: each.period_started_at for each in parts},
        {key.id: key.project_id for key in keys},
    )
    problem = (
        _fault_of_chain(session, account, sums, progress or _nobody)
        or _fault_of_invoices(session, account)
        or _fault_of_counters(session, account, parts, sums)
    )
    return Verification(account.name, sums.entries, sums.balance_micros, problem)


def _nobody(_: int) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True)
class _GivenBack:
    """What a refund gives back: `micros` of a charge of a key that belongs to the instant `at`.

    With it a charge may be `whole`.
    """

    key_id: str | None
    micros: int
    at: int
    whole: bool


class _Sums:
    """Sums over the entries read so far; by key, by project, and by `None` for the account, those of its
    period.
    """

    def __init__(self, periods: dict[str | None, int], projects: dict[str, str | None]) -> None:
        self._periods = periods
        self._projects = projects
        self.entries = 0
        self.charges = 0
        self.given_back = 0
        self.balance_micros = 0
        self.queries: Counter[str | None] = Counter()
        self.cost_micros: Counter[str | None] = Counter()

    def add(self, entry: Row[Any], at: int, given_back: "_GivenBack | None") -> None:
        """Add an entry that belongs to the instant `at`; `given_back` is what it refunds."""
        self.entries += 1
        self.balance_micros += entry.amount_micros
        if given_back is not None:
            self.given_back += given_back.whole
            for whose in self._limited(given_back.key_id):
                if given_back.at >= self._periods[whose]:
                    self.cost_micros[whose] -= given_back.micros
        if entry.kind != "charge":
            return
        self.charges += 1
        for whose in self._limited(entry.key_id):
            if at >= self._periods[whose]:
                self.queries[whose] += entry.images + entry.texts
                self.cost_micros[whose] -= entry.amount_micros

    def project_of(self, key_id: str | None) -> str | None:
        """The project that a key belongs to."""
        return None if key_id is None else self._projects[key_id]

    def _limited(self, key_id: str | None) -> set[str | None]:
        return {None, key_id, self.project_of(key_id)}


class _Hours:
    """The running totals, held against the entries hour by hour, as these come."""

    def __init__(self, session: Session, account: Account) -> None:
        self._session = session
        self._account = account
        self._hour: int | None = None
        self._summed: dict[totals.TotalKey, totals.Sums] = {}
        self._right = 0

    def add(self, entry: Row[Any], at: int) -> str | None:
        """One more entry; what is wrong with the totals of the hour that is over with it."""
        fault = self._end_hour() if at // HOUR != self._hour else None
        self._hour = at // HOUR
        self._summed.setdefault(totals.key_of(entry, at), totals.Sums()).add(entry)
        return fault

    def end(self) -> str | None:
        """There are no more entries; what is wrong with the rest of the totals."""
        if fault := self._end_hour():
            return fault
        mine = select(func.count()).where(LedgerTotal.account_id == self._account.id)
        if (there := self._session.scalar(mine)) != self._right:
            return f"there are {there} running totals, but the entries make {self._right}"
        return None

    def _end_hour(self) -> str | None:
        if self._hour is None:
            return None
        summed, self._summed = self._summed, {}
        self._right += len(summed)
        written = totals.in_hour(self._session, self._account.id, self._hour)
        for group in sorted(summed.keys() | written.keys()):
            if summed.get(group) != written.get(group):
                first, last = (
                    pick(each.first_seq if pick is min else each.last_seq for each in summed.values())
                    for pick in (min, max)
                )
                return (
                    f"the running total of {group.kind} entries in the hour of entries {first} to {last} "
                    "is not what they add up to"
                )
        return None


def _fault_of_chain(session: Session, account: Account, sums: _Sums, progress: Progress) -> str | None:
    previous, dated = ledger.GENESIS_HASH, 0
    redated = [
        (entry.redates_seq or 0, entry.seq, entry.created_at)
        for entry in totals.redatings(session, account.id)
    ]
    hours = _Hours(session, account)
    for seq, entry in enumerate(ledger.rows(session, account.id), start=1):
        if fault := _fault_of_entry(entry, seq, previous):
            return fault
        if entry.project_id != sums.project_of(entry.key_id):
            return f"entry {seq} names another project than that of its key"
        at = _belongs_at(entry, redated)
        if at < dated:
            return f"entry {seq} is dated before the one that it follows"
        if fault := hours.add(entry, at):
            return fault
        previous, dated = entry.entry_hash, at
        given_back = _given_back(session, entry, redated)
        if entry.kind == "refund" and given_back is None:
            return f"entry {seq} does not give back what is left of what it names"
        sums.add(entry, at, given_back)
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
    if entry.kind == "charge" and -entry.amount_micros != _price(entry):
        return f"entry {seq} is not the price of its queries"
    return None


def _belongs_at(entry: Row[Any], redated: Sequence[tuple[int, int, int]]) -> int:
    """The instant that an entry belongs to; see `totals.belongs_at`."""
    at: int = entry.created_at
    for first, last, date in redated:
        if first <= entry.seq < last:
            at = date
    return at


def _given_back(
    session: Session, entry: Row[Any], redated: Sequence[tuple[int, int, int]]
) -> _GivenBack | None:
    """What a refund gives back, or `None` where there is no such charge or so much is not left of it."""
    if entry.kind != "refund":
        return None
    columns = LedgerEntry.__table__.columns
    named = (columns.account_id == entry.account_id, columns.seq == entry.corrects_seq)
    charged = session.execute(select(*columns).where(*named, columns.kind == "charge")).one_or_none()
    if charged is None:
        return None
    refunds, before = ledger.given_back_of(session, entry.account_id, charged.seq, before=entry.seq)
    left = -charged.amount_micros - before
    of_nothing = entry.amount_micros == 0 and (charged.amount_micros or refunds)
    if not 0 <= entry.amount_micros <= left or of_nothing:
        return None
    at = _belongs_at(charged, redated)
    return _GivenBack(charged.key_id, entry.amount_micros, at, whole=entry.amount_micros == left)


def _price(entry: Row[Any]) -> int:
    price: int = entry.images * entry.image_micros + entry.texts * entry.text_micros
    return price


def _fault_of_invoices(session: Session, account: Account) -> str | None:
    """The totals are right by now, and what they sum up to is what a final invoice must say."""
    for stored in invoices.valid(session, account.id):
        issued = json.loads(stored.content)
        if issued.get("number") != stored.number:
            return f"the final invoice of {stored.month} has another number than it was issued under"
        summed = invoices.summed(session, account, stored.month, final=True).model_dump(mode="json")
        summed |= {"number": stored.number, "currency": issued.get("currency")}
        for each in (*summed["credit_notes"], *issued.get("credit_notes", [])):
            each["number"] = None  # an earlier month may be invoiced after a later one
        # What a later version tells besides is not in an old one.
        if issued != {name: value for name, value in summed.items() if name in issued}:
            return f"the final invoice of {stored.month} is not what the entries of the month add up to"
    numbered = func.count(FinalInvoice.number), func.coalesce(func.max(FinalInvoice.number), 0)
    found = (
        *session.execute(select(*numbered)).one(),
        session.scalars(select(BooksHead.invoices_issued)).one(),
    )
    if len(set(found)) > 1:
        return (
            f"there are {found[0]} numbered invoices, but the last has {found[1]} and {found[2]} were issued"
        )
    return None


def _fault_of_counters(
    session: Session, account: Account, parts: Sequence[ApiKey | Project], sums: _Sums
) -> str | None:
    if account.credit_micros not in (None, sums.balance_micros):
        return f"the credit is {account.credit_micros}, but the entries add up to {sums.balance_micros}"
    settled = select(func.count()).where(Hold.account_id == account.id, Hold.state == "settled")
    if session.scalar(settled) != sums.charges:
        return f"there are {session.scalar(settled)} settled holds, but {sums.charges} charges"
    refunded = select(func.count()).where(Hold.account_id == account.id, Hold.refunded_at.is_not(None))
    if session.scalar(refunded) != sums.given_back:
        found = session.scalar(refunded)
        return f"there are {found} refunded holds, but {sums.given_back} charges were wholly given back"
    if fault := _fault(session, account, "the account", sums, Hold.account_id == account.id, None):
        return fault
    covered = session.scalars(select(Coverage).where(Coverage.account_id == account.id))
    buckets = sum(coverage.bits_of(each).bit_count() for each in covered)
    if account.buckets_covered != buckets:
        return f"the account covers {account.buckets_covered} buckets, but the books have {buckets}"
    for each in parts:
        is_key = isinstance(each, ApiKey)
        whose, its_holds = ("key", Hold.key_id) if is_key else ("project", Hold.project_id)
        if fault := _fault(session, each, f"the {whose} {each.id}", sums, its_holds == each.id, each.id):
            return fault
    return None


def _fault(
    session: Session,
    limited: Limited,
    whose: str,
    sums: _Sums,
    its_holds: ColumnElement[bool],
    part: str | None,
) -> str | None:
    requests = func.count().filter(Hold.server.is_distinct_from(BULK))
    held = select(func.sum(Hold.images + Hold.texts), func.sum(Hold.cost_micros), requests)
    row = session.execute(held.where(Hold.state == "open", its_holds)).one()
    queries_held, held_micros, requests_held = (int(value or 0) for value in row)
    counters = {
        "queries_used": (limited.queries_used, sums.queries[part]),
        "spent_micros": (limited.spent_micros, sums.cost_micros[part]),
        "queries_held": (limited.queries_held, queries_held),
        "held_micros": (limited.held_micros, held_micros),
    }
    if isinstance(limited, ApiKey):
        counters["requests_held"] = (limited.requests_held, requests_held)
    for name, (counted, summed) in counters.items():
        if counted != summed:
            return f"{name} of {whose} is {counted}, but the books add up to {summed}"
    return None
