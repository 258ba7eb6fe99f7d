"""Receipts: what each request was billed, whether or not its answer could be taken."""

import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from client.cache.file import CacheFile
from client.cache.pending import Payer, PendingBatch, RequestBatch
from client.cache.statements import Pin, keep_key
from client.errors import Bill
from client.vendors.proofs import Proof, pack, unpack
from client.vendors.query import Spending
from client.vendors.signatures import BadSignature, signer_of
from shared.embeddings import Usage
from shared.receipts import RECEIPT_TYPE, PublicKey

LOST = "lost"
_RECENT = 10_000
# Beyond any bill in earnest; sums of so many fit SQLite's integers.
_MOST = 10**15


@dataclass(frozen=True)
class Receipt:
    """What one paid request brought and cost.

    `key_id` is the public half of the API key, if it was noted; `fault` says why the answer was not taken.
    A request whose answer is lost for good has the `request_id` "lost".
    """

    request_id: str
    fingerprint: str
    images: int
    texts: int
    cost_micros: int
    key_id: str | None
    fault: str | None = None


@dataclass(frozen=True)
class SignedReceipt:
    """A receipt with what its vendor signed; `proof` is `None` where what is stored cannot be read."""

    receipt: Receipt
    vendor: str | None
    token: str
    proof: Proof | None


@dataclass(frozen=True)
class PaidRequest:
    """A receipt: when it came, in seconds, for which run, and of how many images and texts."""

    at: float
    run_id: str
    images: int
    texts: int


class Receipts:
    """The receipts in one cache. Thread-safe."""

    def __init__(self, file: CacheFile) -> None:
        self._file = file

    def all(self) -> list[Receipt]:
        """Those of every run, vendor and account that the cache was used with."""
        rows = self._file.read(
            "SELECT request_id, fingerprint, images, texts, cost_micros, key_id, fault FROM receipts"
        )
        return [Receipt(*row) for row in rows]

    def signed(self) -> Iterator[SignedReceipt]:
        """Those that are signed, in the order in which they came."""
        keys = {kid: PublicKey(kid=kid, x=x) for kid, x in self._file.read("SELECT kid, x FROM signing_keys")}
        names = self._file.read(
            "SELECT idempotency_key FROM receipts WHERE signed IS NOT NULL ORDER BY received_at"
        )
        for (name,) in names:
            ((*fields, vendor, token, sold),) = self._file.read(
                "SELECT request_id, fingerprint, images, texts, cost_micros, key_id, fault, vendor, signed, "
                "sold FROM receipts WHERE idempotency_key = ?",
                (name,),
            )
            yield SignedReceipt(Receipt(*fields), vendor, token, _proof(token, keys, sold))

    def unsigned(self) -> int:
        """How many receipts, of something that was bought, no vendor has signed."""
        ((number,),) = self._file.read(
            "SELECT count(*) FROM receipts WHERE signed IS NULL AND images + texts > 0"
        )
        return int(number)

    def refused(self) -> set[str]:
        """The ids of requests that a vendor refused, and so never was to charge."""
        return {name for (name,) in self._file.read("SELECT request_id FROM refusals")}

    def spending(self, run_id: str | None = None) -> Spending:
        """What a run has paid, or with `None` what all have."""
        (row,) = self._file.read(
            "SELECT coalesce(sum(images + texts), 0), coalesce(sum(cost_micros), 0) "
            "FROM receipts WHERE ? IS NULL OR run_id = ?",
            (run_id, run_id),
        )
        return Spending(*row)

    def of_job(self, idempotency_key: str) -> Spending:
        """What was billed for the parts of a bulk job, of which each has a key that begins with the job's."""
        first = f"{idempotency_key}:"
        (row,) = self._file.read(
            "SELECT coalesce(sum(images + texts), 0), coalesce(sum(cost_micros), 0) FROM receipts "
            "WHERE idempotency_key >= ? AND idempotency_key < ?",
            (first, f"{first}~"),
        )
        return Spending(*row)

    def lost(self, idempotency_key: str) -> int:
        """How often the answer to what was sent under this key was given up for lost."""
        first = f"{idempotency_key}:{LOST}:"
        ((number,),) = self._file.read(
            "SELECT count(*) FROM receipts WHERE idempotency_key >= ? AND idempotency_key < ?",
            (first, f"{first}~"),
        )
        return int(number)

    def rejected(self, note: PendingBatch) -> Spending:
        """What the sender of a noted batch was billed for answers that could not be taken."""
        bills = [spending for spending, fault in self._bills(note) if fault is not None]
        return sum(bills, start=Spending(0, 0))

    def is_answered(self, note: PendingBatch) -> bool:
        """Whether the answer to what is noted was stored before: then its bill counts by that receipt."""
        return any(fault is None for _, fault in self._bills(note))

    def _bills(self, note: PendingBatch) -> list[tuple[Spending, str | None]]:
        """What its sender was billed for a noted batch, each with its fault; nothing that was given up."""
        key = note.batch.idempotency_key
        rows = self._file.read(
            "SELECT images + texts, cost_micros, fault FROM receipts "
            "WHERE idempotency_key >= ? AND idempotency_key < ? AND request_id != ? "
            "AND coalesce(vendor = ?, 1) AND coalesce(key_id = ?, 1)",  # who is not known may be the sender
            (key, f"{key};", LOST, note.vendor, note.key_id),
        )
        return [(Spending(queries, cost_micros), fault) for queries, cost_micros, fault in rows]

    def sales(self, fingerprint: str) -> list[PaidRequest]:
        """What was bought of a model, by its latest receipts of answers that could be taken."""
        rows = self._file.read(
            "SELECT julianday(received_at) * 86400, run_id, images, texts FROM receipts "
            "WHERE fingerprint = ? AND fault IS NULL ORDER BY received_at DESC LIMIT ?",
            (fingerprint, _RECENT),
        )
        return [PaidRequest(*row) for row in rows]


def receipt_pins(receipts: Iterable[SignedReceipt]) -> list[Pin]:
    """The pins that receipts are, those whose signature is right."""
    pins = []
    for each in receipts:
        with suppress(BadSignature):
            if each.proof is not None:
                claims = each.proof.claims()
                pins.append(
                    Pin(
                        claims.ledger_seq,
                        claims.entry_hash,
                        claims.iat,
                        each.token,
                        key_id=claims.key_id,
                        request_id=claims.request_id,
                    )
                )
    return pins


def add_receipt(
    connection: sqlite3.Connection,
    batch: RequestBatch,
    bill: Bill,
    payer: Payer,
    *,
    fault: str | None = None,
    proof: Proof | None = None,
) -> bool:
    """Store what a request was billed, once; an answer that can be taken replaces one that could not.

    A key may have been charged by two vendors, which know nothing of each other: then both receipts stay.

    Returns:
        False where it was stored before.
    """
    key = batch.idempotency_key
    row = connection.execute("SELECT request_id FROM receipts WHERE idempotency_key = ?", (key,)).fetchone()
    if row is not None and row[0] != bill.request_id:
        key = f"{key}:{bill.request_id}"
    stored = connection.execute(
        "INSERT INTO receipts (idempotency_key, request_id, run_id, fingerprint, images, texts, cost_micros, "
        "received_at, key_id, vendor, fault, signed, sold) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (idempotency_key) DO UPDATE SET fingerprint = excluded.fingerprint, "
        "images = excluded.images, texts = excluded.texts, cost_micros = excluded.cost_micros, "
        "fault = excluded.fault, signed = excluded.signed, sold = excluded.sold "
        "WHERE receipts.fault IS NOT NULL",
        (
            *(key, bill.request_id, batch.run_id, bill.fingerprint, *_numbers(bill.usage), _now()),
            *(payer.key_id, payer.vendor, fault),
            *((None, None) if proof is None else (proof.token, pack(proof.sold))),
        ),
    )
    if proof is not None:
        keep_key(connection, proof.key)
    return stored.rowcount > 0


def add_lost_receipt(
    connection: sqlite3.Connection, batch: RequestBatch, paid: Spending, payer: Payer
) -> None:
    """Store that a batch whose answer is lost for good may have been paid for.

    Where its bill is stored already, this one is of nothing, and only says that the key is spent.
    """
    texts = min(paid.queries, sum(query.kind == "text" for query in batch.queries))
    connection.execute(
        "INSERT INTO receipts (idempotency_key, request_id, run_id, fingerprint, images, texts, cost_micros, "
        "received_at, key_id, vendor) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(f"{batch.idempotency_key}:{LOST}:{time.time_ns()}", LOST, batch.run_id, batch.fingerprint),
            *(paid.queries - texts, texts, min(paid.cost_micros, _MOST), _now(), payer.key_id, payer.vendor),
        ),
    )


def add_refusal(
    connection: sqlite3.Connection, batch: RequestBatch, request_id: str, key_id: str | None
) -> None:
    """Store that a request was refused."""
    connection.execute(
        "INSERT OR IGNORE INTO refusals (request_id, run_id, key_id) VALUES (?, ?, ?)",
        (request_id, batch.run_id, key_id),
    )


def _proof(token: str, keys: dict[str, PublicKey], sold: bytes) -> Proof | None:
    try:
        return Proof(token, keys[signer_of(token, RECEIPT_TYPE)], unpack(sold))
    except (KeyError, ValueError):
        return None


def _numbers(usage: Usage) -> tuple[int, int, int]:
    """What is counted: of a bill that makes no sense, as much as can be stored, and nothing below zero."""
    images, texts, cost = (
        min(max(0, number), _MOST) for number in (usage.images, usage.texts, usage.cost_micros)
    )
    return images, texts, cost


def _now() -> str:
    return datetime.now(UTC).isoformat()
