"""Disputes: what a customer shows is ours or not, and the ledger has it or not."""

import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.receipts import HEAD_TYPE, RECEIPT_TYPE, HeadClaims, ReceiptClaims
from tests.vendor_service.books import Books, on_sqlite
from vendor_service.database.tables import LedgerEntry
from vendor_service.errors import UsageError
from vendor_service.money import payments, signing
from vendor_service.money.disputes import Dispute, facts, judge
from vendor_service.money.signing import Signer


def judged(books: Books, shown: str) -> Dispute:
    with books.database.read() as session:
        return judge(session, shown)


def receipt(entry: LedgerEntry, **changes: object) -> ReceiptClaims:
    said = {
        "iat": int(time.time()), "request_id": entry.hold_id, "request_hash": "a", "answer_hash": "b",
        "model": entry.model, "model_fingerprint": entry.model_fingerprint,
        "cost_micros": -entry.amount_micros, "account_id": entry.account_id, "key_id": entry.key_id,
        "ledger_seq": entry.seq, "entry_hash": entry.entry_hash, "images": 2, "texts": 0,
    }  # fmt: skip
    return ReceiptClaims.model_validate(said | changes)


@on_sqlite
def test_a_receipt_of_ours_is_told_from_one_that_is_not_and_from_what_the_books_have(
    books: Books, tmp_path: Path
) -> None:
    order = books.open()
    books.buy(order, images=2)
    (entry,) = books.entries(order)
    signer = Signer(books.database, tmp_path / "a.pem", books.clock)
    signed = signer.sign(RECEIPT_TYPE, receipt(entry))
    found = judged(books, signed)
    assert (found.holds, found.signature, found.account) == (True, "good", "account-0")
    assert "entry 1 of account-0 is what it says" in found.verdict
    assert found.left_micros == 200
    with books.locked(order) as (session, account):
        payments.refund(session, account, 1, books.clock(), 50, "ticket 812")
    told = dict(facts(judged(books, signed)))
    assert "A part of it was given back" in told["Verdict"]
    assert "ticket 812" in told["Refund"]
    assert told["Still charged"] == "0.00015"
    # A head, and what was signed and is not what the books have.
    assert judged(books, signer.sign(HEAD_TYPE, HeadClaims(
        iat=1, account_id=order.account_id, ledger_seq=1, entry_hash=entry.entry_hash
    ))).holds  # fmt: skip
    for changes, said in (
        ({"cost_micros": 201}, "cost_micros is 200 in the books, and 201 in what was signed"),
        ({"images": 3}, "counts is"),
        ({"entry_hash": "f" * 64}, "entry_hash is"),
    ):
        other = judged(books, signer.sign(RECEIPT_TYPE, receipt(entry, **changes)))
        assert (other.holds, other.signature) == (False, "good")
        assert said in " ".join(other.differences)
    gone = judged(books, signer.sign(RECEIPT_TYPE, receipt(entry, ledger_seq=9)))
    assert "no entry 9" in gone.verdict
    # Forged, of a stranger, and of a key that was withdrawn.
    head, payload, signature = signed.split(".")
    forged = f"{head}.{payload[:-6]}{'A' if payload[-6] != 'A' else 'B'}{payload[-5:]}.{signature}"
    stranger = signing.SigningKey(Ed25519PrivateKey.generate()).sign(RECEIPT_TYPE, receipt(entry))
    for shown, wrong in ((forged, "wrong"), (stranger, "unknown key")):
        try:
            assert judged(books, shown).signature == wrong
        except UsageError:  # what was changed may be no JSON any more
            assert shown is forged
    with books.database.write() as session:
        signing.withdraw(session, signing.read_key(tmp_path / "a.pem").public.kid, books.clock())
    assert (judged(books, signed).holds, judged(books, signed).signature) == (False, "withdrawn")
    for nonsense in ("", "a.b", "a.b.c", "e30.e30.e30", "." * 9000, "é.b.c", "x" * 9000):
        with pytest.raises(UsageError):
            judged(books, nonsense)


@on_sqlite
def test_a_request_is_charged_or_not_answered_or_unknown(books: Books) -> None:
    order = books.open()
    done, held, lost = books.buy(order), books.admit(order), books.admit(order)
    books.admission.void(order.account_id, lost.request_id).result()
    assert "charged once, as entry 1" in judged(books, done.request_id).verdict
    assert "in flight" in judged(books, held.request_id).verdict
    assert "not answered. Nothing was charged" in judged(books, lost.request_id).verdict
    assert not judged(books, "req_of_nobody").holds
    books.tamper("UPDATE ledger_entries SET amount_micros = -1")
    found = judged(books, done.request_id)
    assert (found.holds, "its hash does not match" in found.differences[0]) == (False, True)
