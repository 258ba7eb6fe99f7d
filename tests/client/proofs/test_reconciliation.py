"""Receipts against the ledger: every way in which the two sides can differ is named."""

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from client.cache.notes import Batch, Note, Payer
from client.cache.receipts import Pin
from client.cache.tables import Receipt
from client.proofs import reconciliation
from client.proofs.reconciliation import UnknownCharges, reconcile
from client.vendors.query import Query
from client.vendors.statements import SignedHead
from shared.billing import Entry, entry_hash
from shared.receipts import HeadClaims, PublicKey

RECEIPT = Receipt("req_1", "fp_1", {"image": 2, "text": 1}, cost_micros=220, key_id="mine")
RECEIPTS = [RECEIPT, replace(RECEIPT, request_id="req_2")]


@pytest.fixture(autouse=True)
def _made_up_hashes_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries here are called "hash 1" and so on; others have to have the hash that they should."""

    def right(entry: Entry) -> str:
        return entry.entry_hash if entry.entry_hash.startswith("hash ") else entry_hash(entry)

    monkeypatch.setattr(reconciliation, "entry_hash", right)


def entry(seq: int, **changes: Any) -> Entry:
    fields: dict[str, Any] = {
        "kind": "charge",
        "amount_micros": -220,
        "images": 2,
        "texts": 1,
        "image_micros": 100,
        "text_micros": 20,
        "model": "icon-clip",
        "model_fingerprint": "fp_1",
        "key_id": "mine",
        "request_id": f"req_{seq}",
        "corrects_seq": None,
        "reason": None,
        "created_at": datetime(2026, 11, 15, tzinfo=UTC),
        "previous_hash": f"hash {seq - 1}",
        "entry_hash": f"hash {seq}",
    }
    return Entry(seq=seq, **(fields | changes))


def problems(entries: list[Entry], receipts: list[Receipt], **known: Any) -> list[str]:
    found = reconcile(entries, receipts, "mine", **known)
    return [f"{each.request_id}: {each.problem}" for each in found.differences]


def note(*words: str, key_id: str | None = "mine", hours: float = 0) -> Note:
    batch = Batch("key", "run", "fp_1", tuple(Query.text(word) for word in words))
    return Note(batch, time.time() - 3600 * hours, Payer("http://vendor:80", key_id))


def test_what_agrees_is_counted() -> None:
    refund = entry(3, kind="refund", amount_micros=220, request_id=None, corrects_seq=1)
    found = reconcile([entry(1), entry(2), refund], RECEIPTS, "mine")
    assert (found.matched, found.queries, found.cost_micros) == (2, 6, 440)
    assert not found.differences


def test_every_number_and_the_model_are_compared() -> None:
    changes: list[tuple[str, Any, Any]] = [
        ("counts", {"image": 1, "text": 1}, 1),
        ("counts", {"image": 2, "text": 9}, 9),
        ("cost_micros", 219, 219),
        ("fingerprint", "fp_2", "fp_2"),
    ]
    for field, changed, value in changes:
        (problem,) = problems([entry(1)], [replace(RECEIPT, **{field: changed})])
        assert f"{value} by the receipt" in problem


def test_what_only_one_side_has_is_a_difference() -> None:
    assert problems([entry(1)], RECEIPTS) == ["req_2: the receipt of 220 micros is not in the ledger"]


def test_a_ledger_that_lost_an_entry_or_charges_twice_is_noticed() -> None:
    assert "entry 3 does not follow" in problems([entry(1), entry(3, request_id="req_2")], RECEIPTS)[0]
    assert "entry 2 does not follow" in problems([entry(2)], RECEIPTS[1:])[0]
    assert "entry 2 does not follow" in problems([entry(1), entry(2, previous_hash="x")], RECEIPTS)[0]
    assert problems([entry(1), entry(2, request_id="req_1")], RECEIPTS[:1]) == [
        "req_1: entry 2 charges it again"
    ]


def test_other_keys_need_no_receipt_and_other_accounts_no_charge() -> None:
    elsewhere = entry(2, key_id="another")
    receipts = [RECEIPT, replace(RECEIPT, request_id="req_9", key_id="unknown")]
    old = replace(RECEIPT, request_id="req_8", key_id=None)
    found = reconcile([entry(1), elsewhere], [*receipts, old], "mine")
    assert (found.matched, found.elsewhere.of_other_keys, found.of_other_accounts) == (1, 1, 2)
    assert not found.differences
    lost = replace(RECEIPT, request_id="req_7", key_id="another")
    assert reconcile([entry(1), elsewhere], [RECEIPT, lost], "mine").differences


def test_what_curl_or_an_sdk_bought_was_made_elsewhere_and_is_summed_up() -> None:
    by_curl = [entry(2, request_id="req_c"), entry(3, request_id="req_o", key_id="other")]
    found = reconcile([entry(1), *by_curl], [RECEIPT], "mine")
    assert not found.differences
    assert found.elsewhere == UnknownCharges(charges=2, queries=6, cost_micros=440, of_other_keys=1)


def test_a_request_in_which_every_input_was_refused_needs_no_charge() -> None:
    nothing = replace(RECEIPT, request_id="req_0", counts={}, cost_micros=0)
    assert problems([entry(1)], [RECEIPT, nothing]) == []
    assert "0 by the receipt" in problems([entry(1), entry(2, request_id="req_0")], [RECEIPT, nothing])[0]


def test_a_charge_for_what_is_owed_is_an_alarm_and_says_what_to_do() -> None:
    charge = entry(2, images=0, texts=3, amount_micros=-60, request_id="req_x")
    (problem,) = problems([entry(1), charge], [RECEIPT], owed=[note("a", "b", "c")])
    assert problem.startswith("req_x: entry 2 charges 60 micros, and there is no receipt here")
    assert "Repeat the command" in problem
    for other in (note("a"), note("a", "b", "c", key_id="another")):  # it cannot be of these
        assert problems([entry(1), charge], [RECEIPT], owed=[other]) == []


def test_a_charge_for_what_is_being_answered_is_counted_apart() -> None:
    charges = [entry(seq, images=0, texts=1, amount_micros=-20) for seq in (1, 2)]
    found = reconcile(charges, [], "mine", in_hand=[note("a"), note("b", key_id="another")])
    assert (found.differences, found.in_hand, found.elsewhere.charges) == ([], 1, 1)


def test_a_charge_for_what_is_owed_is_no_alarm_once_it_is_refunded_or_its_answer_is_not_to_be_had() -> None:
    """No command asks again what a canary asked, or a student that is served."""
    first, second = (entry(seq, images=0, texts=1, amount_micros=-20) for seq in (1, 2))
    refund = entry(3, kind="refund", amount_micros=20, request_id=None, corrects_seq=1)
    assert "for a refund" in problems([first], [], owed=[note("a", hours=71)])[0]
    found = reconcile([first, second, refund], [], "mine", owed=[note("a"), note("a", hours=73)])
    assert (found.differences, found.lost, found.elsewhere.charges) == ([], 1, 0)
    found = reconcile([first], [], "mine", owed=[note("a", hours=73), note("a")])
    assert (len(found.differences), found.lost) == (1, 0)  # it may be of the one that can be fetched


def test_a_charge_for_what_was_refused_is_an_alarm() -> None:
    (problem,) = problems([entry(1), entry(2, request_id="req_r")], [RECEIPT], refused={"req_r", "req_s"})
    assert problem == "req_r: entry 2 charges 220 micros for what the vendor had refused"


def test_what_was_given_up_explains_its_charge() -> None:
    lost = Receipt("lost", "fp_1", RECEIPT.counts, cost_micros=220, key_id="mine")
    found = reconcile([entry(1), entry(2, request_id="req_l")], [RECEIPT, lost, lost], "mine")
    assert (found.lost, found.elsewhere.charges, found.of_other_accounts) == (1, 0, 0)
    assert not found.differences


def test_what_was_billed_for_an_answer_that_was_not_taken_is_named_until_it_is_given_back() -> None:
    rejected = replace(RECEIPT, fault="billed 10**12 micros, where at most 100 were agreed")
    (problem,) = problems([entry(1)], [rejected])
    assert "entry 1 charges 220 micros for an answer that was not taken: billed 10**12 micros" in problem
    refund = entry(2, kind="refund", amount_micros=220, request_id=None, corrects_seq=1)
    assert problems([entry(1), refund], [rejected]) == []


def _pin(seq: int, entry_hash: str, **whose: str) -> Pin:
    return Pin(seq, entry_hash, 1_800_000_000, f"signed {seq}", **whose)


def _head() -> SignedHead:
    claims = HeadClaims(iat=1_800_000_001, account_id="me", ledger_seq=2, entry_hash="hash 2")
    return SignedHead(claims, "signed now", PublicKey(x="A" * 43, kid="k"))


def test_what_the_vendor_signed_of_its_ledger_must_still_be_there() -> None:
    ledger = [entry(1), entry(2)]
    right = [
        _pin(1, "hash 1", key_id="mine"),
        _pin(2, "hash 2", account_id="me"),
        _pin(0, "0" * 64, account_id="me"),
    ]
    found = reconcile(ledger, RECEIPTS, "mine", pins=right, head=_head())
    assert (found.pinned, found.rewritten, found.differences, found.head) == (3, [], [], "signed now")
    wrong = [_pin(1, "other", key_id="mine", request_id="req_1"), _pin(3, "hash 3", account_id="me")]
    found = reconcile(ledger, RECEIPTS, "mine", pins=wrong, head=_head())
    assert [(each.seq, each.signed_hash, each.shown_hash, each.statement) for each in found.rewritten] == [
        (1, "other", "hash 1", "signed 1"),
        (3, "hash 3", None, "signed 3"),
    ]
    first, second = (each.problem for each in found.differences)
    assert "rewritten" in first
    assert "ends before" in second


@pytest.mark.parametrize("signed_at", [1_800_000_000_000, 10**15, 10**30, -(10**15)])
def test_a_time_that_is_none_hides_no_ledger_that_was_rewritten(signed_at: int) -> None:
    pin = Pin(1, "other", signed_at, "signed 1", key_id="mine")
    found = reconcile([entry(1)], RECEIPTS[:1], "mine", pins=[pin])
    (problem,) = (each.problem for each in found.differences)
    assert f"no date ({signed_at})" in problem
    assert "rewritten" in problem


def test_what_was_signed_for_others_is_not_held_against_this_account() -> None:
    others = [_pin(1, "other", key_id="theirs"), _pin(1, "other", account_id="they")]
    found = reconcile([entry(1), entry(2)], RECEIPTS, "mine", pins=others, head=_head())
    assert (found.pinned, found.rewritten) == (0, [])


def test_an_entry_must_say_what_its_hash_is_of() -> None:
    said = entry(1, account_id="me", previous_hash="0" * 64)
    right = said.model_copy(update={"entry_hash": entry_hash(said)})
    assert not problems([right], [])
    (problem,) = problems([right.model_copy(update={"amount_micros": -1})], [])
    assert "does not match its hash" in problem


def test_an_entry_that_names_no_account_must_say_what_its_hash_is_of_as_well() -> None:
    (problem,) = problems([entry(1, previous_hash="0" * 64, entry_hash="f" * 64)], [])
    assert "does not match its hash" in problem


@pytest.mark.parametrize(
    "absurd", [{"created_at": "2024-01-01T00:00:00"}, {"amount_micros": -(10**30)}, {"seq": 2**63}]
)
def test_an_entry_that_no_books_hold_is_no_answer(absurd: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Entry.model_validate(entry(1).model_dump(mode="json") | absurd)
