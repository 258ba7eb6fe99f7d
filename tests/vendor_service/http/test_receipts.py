"""Receipts: checked here without the code that signs them, as somebody else's program would."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
import jwt
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from shared.billing import Entry, entry_hash
from shared.encoding import ROWS_MEDIA_TYPE, RowDtype, from_rows, from_wire
from tests.vendor_service.local_vendor import LocalVendor, Vendor, image_file, image_input
from vendor_service.database.tables import Account
from vendor_service.money import payments, signing

CAT = {"text": "a photo of a cat"}
BROKEN = {"image": base64.b64encode(b"no image").decode()}


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def opened(vendor: Vendor, answer: httpx.Response) -> dict[str, Any]:
    """What the receipt of an answer says, once its signature is found to be by a published key."""
    assert answer.status_code == 200, answer.text
    head, payload, signature = answer.headers["x-tuition-receipt"].split(".")
    header = json.loads(_decoded(head))
    assert (header["alg"], header["typ"]) == ("EdDSA", "tuition-receipt+jws")
    (key,) = [each for each in _keys(vendor) if each["kid"] == header["kid"]]
    Ed25519PublicKey.from_public_bytes(_decoded(key["x"])).verify(
        _decoded(signature), f"{head}.{payload}".encode()
    )
    claims: dict[str, Any] = json.loads(_decoded(payload))
    return claims


def _keys(vendor: Vendor) -> list[dict[str, str]]:
    keys: list[dict[str, str]] = vendor.http.get("/.well-known/jwks.json").json()["keys"]
    return keys


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _hashes(asked: dict[int, tuple[str, bytes]], rows: list[np.ndarray[Any, Any]]) -> tuple[str, str]:
    request = "".join(f"{index} {kind} {_sha256(content)}\n" for index, (kind, content) in asked.items())
    digests = [_sha256(row.astype("<f4").tobytes()) for row in rows]
    answer = "".join(f"{index} {each}\n" for index, each in zip(asked, digests, strict=True))
    return _sha256(request.encode()), _sha256(answer.encode())


def test_the_receipt_names_the_request_the_answer_and_the_entry(vendor: Vendor) -> None:
    key = vendor.key()
    answer = vendor.embed(key, CAT, BROKEN, image_input(), on_error="skip")
    claims, body = opened(vendor, answer), answer.json()
    (entry,) = vendor.get("/v1/ledger", key)["data"]
    asked = {0: ("text", b"a photo of a cat"), 2: ("image", image_file())}
    rows = [from_wire(each["embedding"], 256) for each in body["data"]]
    hashes = _hashes(asked, rows)
    assert claims == {
        "iat": vendor.clock() // 1_000_000,
        "request_id": body["id"],
        "request_hash": hashes[0],
        "answer_hash": hashes[1],
        "model": "icon-clip",
        "model_fingerprint": body["model_fingerprint"],
        "images": 1,
        "texts": 1,
        "cost_micros": 120,
        "account_id": entry["account_id"],
        "key_id": key.split("_")[1],
        "ledger_seq": entry["seq"],
        "entry_hash": entry["entry_hash"],
    }


def test_every_form_of_answer_has_a_receipt_of_the_numbers_that_it_holds(vendor: Vendor) -> None:
    key = vendor.key()
    bearer = {"authorization": f"Bearer {key}"}
    asked = {0: ("text", b"a photo of a cat"), 1: ("image", image_file())}

    def rows_in(answer: httpx.Response) -> list[np.ndarray[Any, Any]]:
        if answer.headers["content-type"] == ROWS_MEDIA_TYPE:
            dtype: RowDtype = "float16" if answer.headers["x-embedding-dtype"] == "float16" else "float32"
            return list(from_rows(answer.content, (2, 256), dtype))
        return [from_wire(each["embedding"], 256) for each in answer.json()["data"]]

    form = [("text", (None, b"a photo of a cat")), ("image", ("red.png", image_file()))]
    openai = {"model": "icon-clip", "input": [CAT, image_input()]}
    answers = [
        vendor.embed(key, CAT, image_input()),
        vendor.embed(key, CAT, image_input(), encoding="base64"),
        vendor.embed(key, CAT, image_input(), headers={"accept": ROWS_MEDIA_TYPE}),
        vendor.embed(key, CAT, image_input(), headers={"accept": f"{ROWS_MEDIA_TYPE};dtype=float16"}),
        vendor.http.post("/embed", files=form, headers=bearer),
        vendor.http.post("/v1/embeddings", json=openai, headers=bearer),
        vendor.http.post("/v1/embeddings", json=openai | {"encoding_format": "base64"}, headers=bearer),
    ]
    for answer in answers:
        claims = opened(vendor, answer)
        assert (claims["request_hash"], claims["answer_hash"]) == _hashes(asked, rows_in(answer))
    assert [opened(vendor, each)["ledger_seq"] for each in answers] == list(range(1, 8))


def test_a_paid_request_that_is_sent_again_has_the_same_receipt(vendor: Vendor) -> None:
    key = vendor.key()
    headers = {"idempotency-key": "again"}
    first = vendor.embed(key, CAT, headers=headers)
    vendor.embed(key, CAT)  # another entry, which the replay is not of
    again = vendor.embed(key, CAT, headers=headers)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["x-tuition-receipt"] == first.headers["x-tuition-receipt"]


def test_what_costs_nothing_has_no_receipt(vendor: Vendor) -> None:
    answer = vendor.embed(vendor.key(), BROKEN, on_error="skip")
    assert answer.json()["usage"]["cost_micros"] == 0
    assert "x-tuition-receipt" not in answer.headers


def test_a_rotated_key_signs_at_once_and_the_former_one_stays_published(tmp_path: Path) -> None:
    with LocalVendor(tmp_path, name="Vendor Ltd", public_url="https://vendor.example/") as vendor:
        file = signing.default_file(vendor.books)
        assert file.stat().st_mode & 0o777 == 0o600
        key = vendor.key()
        headers = {"idempotency-key": "before"}
        before = vendor.embed(key, CAT, headers=headers)
        (former,) = _keys(vendor)
        vendor.clock.advance(seconds=1)
        rotated = signing.rotate(vendor.books, file, vendor.clock)
        _signer(vendor).refresh()
        after = vendor.embed(key, CAT)
        assert [each["kid"] for each in _keys(vendor)] == [rotated.public.kid, former["kid"]]
        kids = [
            json.loads(_decoded(each.headers["x-tuition-receipt"].split(".")[0]))["kid"]
            for each in (before, after)
        ]
        assert kids == [former["kid"], rotated.public.kid]
        opened(vendor, after)
        again = vendor.embed(key, CAT, headers=headers)
        assert again.headers["x-tuition-receipt"] != before.headers["x-tuition-receipt"]
        # Whenever and by whichever key it is signed, it is a receipt of the first time.
        assert opened(vendor, again) == opened(vendor, before)
        with vendor.books.write() as session:
            signing.withdraw(session, former["kid"], vendor.clock())
        assert [each["kid"] for each in _keys(vendor)] == [rotated.public.kid]
        # Everything is signed in the vendor's name, and the signed set of keys hides none.
        now = vendor.clock() // 1_000_000
        signed = vendor.http.get("/.well-known/jwks.json").json()["signed"]
        public = _public(vendor, rotated.public.kid)
        head = vendor.get("/v1/ledger/head", vendor.key())["signed"]
        statements = [
            jwt.decode(each, public, ["EdDSA"], options={"verify_iat": False}) for each in (signed, head)
        ]
        for each in (*statements, opened(vendor, after)):
            assert (each["vendor"], each["iss"]) == ("Vendor Ltd", "https://vendor.example")
        first, second = statements[0]["keys"]
        assert (first["kid"], first["since"], "retired" in first) == (rotated.public.kid, now, False)
        assert (second["kid"], second["retired"], second["withdrawn"]) == (former["kid"], now, now)


def _signer(vendor: LocalVendor) -> signing.Signer:
    signer: signing.Signer = vendor.app.state.signer
    return signer


def test_the_head_of_the_ledger_is_its_last_entry_signed(vendor: Vendor) -> None:
    key = vendor.key()
    nothing = vendor.get("/v1/ledger/head", key)
    assert (nothing["seq"], nothing["entry_hash"], nothing["created_at"]) == (0, "0" * 64, None)
    for _ in range(2):
        vendor.embed(key, CAT)
    head = vendor.get("/v1/ledger/head", key)
    last = vendor.get("/v1/ledger", key)["data"][-1]
    assert (head["seq"], head["entry_hash"]) == (2, last["entry_hash"])
    told = jwt.decode_complete(head["signed"], options={"verify_signature": False})
    jwt.decode(
        head["signed"], _public(vendor, told["header"]["kid"]), ["EdDSA"], options={"verify_iat": False}
    )
    assert told["header"]["typ"] == "tuition-head+jws"
    assert told["payload"] == {
        "iat": vendor.clock() // 1_000_000,
        "account_id": last["account_id"],
        "ledger_seq": 2,
        "entry_hash": last["entry_hash"],
    }


def test_a_customer_can_compute_the_hash_of_every_entry(vendor: Vendor) -> None:
    key = vendor.key(credit_micros=10_000)
    vendor.embed(key, CAT, image_input())
    with vendor.books.write() as session:
        account = session.get_one(Account, vendor.account(key).id)
        payments.top_up(session, account, 500, vendor.clock(), "transfer 7 of Zo\u00eb")
        payments.adjust(session, account, -3, "a reason", vendor.clock())
        payments.refund(session, account, account.ledger_seq - 2, vendor.clock())
    entries = [Entry.model_validate(each) for each in vendor.get("/v1/ledger", key)["data"]]
    assert {each.kind for each in entries} >= {"charge", "top_up", "adjustment", "refund"}
    for entry in entries:
        assert entry_hash(entry) == entry.entry_hash
    assert entry_hash(entries[0].model_copy(update={"amount_micros": -1})) != entries[0].entry_hash


def _public(vendor: Vendor, kid: str) -> Ed25519PublicKey:
    (key,) = [each for each in _keys(vendor) if each["kid"] == kid]
    return Ed25519PublicKey.from_public_bytes(_decoded(key["x"]))
