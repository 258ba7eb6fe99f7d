"""Receipts: the bill of each request, whether or not its answer was taken."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

from client.cache.notes import Batch, Note, Payer
from client.cache.tables import Receipt, Tables
from client.errors import Bill
from client.vendors.query import Spending, counts_of
from client.vendors.signatures import BadSignature
from client.vendors.statements import Proof, pack
from shared.embeddings import Kind, Prices

LOST = "lost"
_RECENT = 10_000
# Beyond any bill in earnest; sums of many fit SQLite's integers.
_MOST = 10**15


@dataclass(frozen=True)
class Pin:
    """A signed statement about one place in an account's ledger.

    Attributes:
        seq: the entry.
        entry_hash: its hash.
        signed_at: when the vendor said so, in seconds since 1970.
        token: the signed statement: a head, or the receipt of a request.
        account_id: of whom, where the statement is a head.
        key_id: the API key that paid, where it is a receipt; `request_id` names the request.
    """

    seq: int
    entry_hash: str
    signed_at: int
    token: str
    account_id: str | None = None
    key_id: str | None = None
    request_id: str = ""


class Paid(NamedTuple):
    """The amount paid for an answer, and how much it adds to the record.

    Both are zero where the answer was stored before. An answer that is taken after all adds nothing.
    """

    amount: Spending
    added: Spending


class Owed(NamedTuple):
    """The most that is still owed: queries by kind, and their cost in millionths of a unit."""

    counts: Counter[Kind]
    cost_micros: int

    @property
    def spending(self) -> Spending:
        """The queries of all kinds, and their cost."""
        return Spending(self.counts.total(), self.cost_micros)


NOT_PAID = Paid(Spending(0, 0), Spending(0, 0))


class Receipts:
    """The receipts in one cache. Thread-safe."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def all(self) -> list[Receipt]:
        """The receipts of every run, vendor and account."""
        return self._tables.receipts()

    def signed(self) -> Iterator[tuple[Receipt, Proof | None]]:
        """The signed receipts in the order in which they came; no proof where the stored one is damaged."""
        for name in self._tables.signed_keys():
            for receipt in self._tables.receipts(name, name):
                proof = None
                with suppress(ValueError):
                    signer, sold = receipt.signer or "", receipt.sold or b""
                    proof = Proof.kept(receipt.signed or "", signer, sold)
                yield receipt, proof

    def pins(self) -> Iterator[Pin]:
        """The places in ledgers that receipts with a right signature pin."""
        for _, proof in self.signed():
            with suppress(BadSignature):
                if proof is not None:
                    claims = proof.claims()
                    place = (claims.ledger_seq, claims.entry_hash, claims.iat, proof.token)
                    yield Pin(*place, key_id=claims.key_id, request_id=claims.request_id)

    def unsigned(self) -> int:
        """How many receipts, of something that was bought, no vendor has signed."""
        return self._tables.unsigned()

    def refused(self) -> set[str]:
        """The ids of requests that a vendor refused, and so never was to charge."""
        return self._tables.refusals()

    def spending(self, run_id: str | None = None) -> Spending:
        """The amount paid by a run, or with `None` by all."""
        return Spending(*self._tables.spending(run_id))

    def sales(self, fingerprint: str) -> list[Receipt]:
        """The latest receipts of a model of answers that could be taken."""
        return self._tables.latest_receipts(fingerprint, _RECENT)

    def lost(self, idempotency_key: str) -> int:
        """How often the answer to what was sent under this key was given up for lost."""
        first = f"{idempotency_key}:{LOST}:"
        return len(self._tables.receipts(first, f"{first}~"))

    def of(self, note: Note) -> list[Receipt]:
        """The bills of a noted batch to its sender, in all its parts, without those given up for lost."""
        key, sender, is_job = note.batch.idempotency_key, note.sender, note.batch.is_job
        return [
            each
            for each in self._tables.receipts(key, f"{key};")
            if each.request_id != LOST
            # Who is not known may be the sender; a job's parts are fetched with any key of its account.
            and (is_job or None in (sender.vendor, each.vendor) or sender.vendor == each.vendor)
            and (is_job or None in (sender.key_id, each.key_id) or sender.key_id == each.key_id)
        ]

    def is_answered(self, note: Note) -> bool:
        """Whether the answer to a noted request was stored before: then it counts by that receipt."""
        return not note.batch.is_job and any(each.fault is None for each in self.of(note))

    def owed(self, note: Note, today: Prices) -> Owed:
        """The most that a noted batch may still cost, at the prices of today where none were noted.

        The bill of an answer that could not be taken counts by its receipt, and so no more here.
        """
        if self.is_answered(note):
            return Owed(Counter(), 0)
        billed = self.of(note)
        left = counts_of(note.batch.queries)
        cost = (note.prices or today).cost_of(left) - sum(each.cost_micros for each in billed)
        for each in billed:
            left -= Counter(each.counts)
        return Owed(left, max(0, cost))

    def add(
        self, batch: Batch, bill: Bill, payer: Payer, *, fault: str | None = None, proof: Proof | None = None
    ) -> Paid:
        """Store what a request was billed, once; an answer that can be taken replaces one that could not.

        A key may have been charged by two vendors, which know nothing of each other: then both receipts stay.
        It is part of a transaction.

        Returns:
            What was paid for it, and by how much that adds to what is on record.
        """
        key, tables = batch.idempotency_key, self._tables
        before = tables.receipts(key, key)
        if before and before[0].request_id != bill.request_id:
            key = f"{key}:{bill.request_id}"
            before = tables.receipts(key, key)
        if before and before[0].fault is None:
            return NOT_PAID
        counts, cost = _bounded(bill)
        receipt = Receipt(
            bill.request_id, bill.fingerprint, counts, cost, payer.key_id, fault, payer.vendor, batch.run_id,
            received_at=time.time(), idempotency_key=key,
        )  # fmt: skip
        if proof is not None:
            receipt = replace(receipt, signed=proof.token, signer=proof.key.x, sold=pack(proof.sold))
        paid = added = Spending(receipt.queries, receipt.cost_micros)
        for former in before:
            receipt = replace(
                receipt, run_id=former.run_id, received_at=former.received_at,
                vendor=former.vendor, key_id=former.key_id,
            )  # fmt: skip
            added -= Spending(former.queries, former.cost_micros)
        tables.put_receipt(receipt)
        return Paid(paid, added)

    def add_lost(self, note: Note, owed: Owed) -> Paid:
        """Store that a batch whose answer is lost for good may have been paid for; returns as `add`.

        Where its bill is stored already, this one is of nothing, and only says that the key is spent. It is
        part of a transaction.
        """
        batch, sender, cost = note.batch, note.sender, min(owed.cost_micros, _MOST)
        key = f"{batch.idempotency_key}:{LOST}:{time.time_ns()}"
        receipt = Receipt(
            *(LOST, batch.fingerprint, owed.counts, cost, sender.key_id, None, sender.vendor, batch.run_id),
            received_at=time.time(),
            idempotency_key=key,
        )
        self._tables.put_receipt(receipt)
        paid = Spending(receipt.queries, cost)
        return Paid(paid, paid)


def _bounded(bill: Bill) -> tuple[dict[Kind, int], int]:
    """The counts and the cost of a bill, kept between zero and the most that can be stored."""
    bounded = {kind: min(number, _MOST) for kind, number in bill.usage.counts.items() if number > 0}
    return bounded, min(max(0, bill.usage.cost_micros), _MOST)
