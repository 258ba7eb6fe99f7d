"""Signed receipts: what a vendor signs is checked before anything is stored, and can be checked by others."""

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import jwt
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.cache.cache import EmbeddingCache
from client.cache.notes import Batch
from client.cache.tables import StoredEmbedding
from client.errors import AnswerRejected, ClientError, QuotaExhausted, UsageError, VendorError
from client.proofs import evidence
from client.proofs.canary import Canary, CanaryResult
from client.proofs.swap import check_swap
from client.purchase.buyer import Buyer
from client.vendors.query import Query
from client.vendors.statements import pack, unpack
from client.vendors.teachers.tuition import VendorClient
from shared.encoding import to_rows
from shared.kinds import Usage
from shared.receipts import (
    KEYS_PATH,
    RECEIPT_HEADER,
    RECEIPT_TYPE,
    KeySet,
    PublicKey,
    ReceiptClaims,
    Sold,
    answer_hash,
    request_hash,
    vector_digest,
)
from tests.client.cards import MODEL
from tests.client.forms import read_form
from tests.client.key_sets import key_set
from tests.client.shop import refusal as _refusal
from vendor_service.money.signing import SigningKey

pytestmark = pytest.mark.usefixtures("hurry")

QUERIES = [Query.text(f"text {number}") for number in range(3)]
ROWS = np.array([[0.6, 0.8], [1.0, 0.0], [0.0, 1.0]], dtype=np.float32)


class Signing(httpx.BaseTransport):
    """Sells three texts, signed by `key`; `claims` and `headers` are changed before they are sent."""

    def __init__(self) -> None:
        self.key = SigningKey(Ed25519PrivateKey.generate())
        self.publisher = self.key
        self.published: list[PublicKey] | None = [self.key.public]
        self.kind = RECEIPT_TYPE
        self.claims: dict[str, Any] = {}
        self.headers: dict[str, str | None] = {}
        self.asked_for_keys = 0
        self.rows = ROWS
        self.refusal: httpx.Response | None = None

    def key_set(self) -> KeySet:
        return key_set(self.publisher, self.published)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith(KEYS_PATH):
            self.asked_for_keys += 1
            if self.published is None:
                return _refusal(404, "not_found")
            return httpx.Response(200, json=self.key_set().model_dump())
        if request.method == "GET":
            return _refusal(403, "insufficient_scope")  # the key may only buy
        if self.refusal is not None:
            return self.refusal
        asked = [Query.text(content.decode()) for _, content in read_form(request)[1]]
        assert set(asked) == set(QUERIES)
        rows = self.rows[[QUERIES.index(query) for query in asked]]
        sold = [
            Sold(place, "text", query.digest, vector_digest(row))
            for place, (query, row) in enumerate(zip(asked, rows, strict=True))
        ]
        claims = ReceiptClaims(
            iat=1_800_000_000,
            request_id="req_1",
            request_hash=request_hash(sold),
            answer_hash=answer_hash(sold),
            model="m",
            model_fingerprint="fp_1",
            images=0,
            texts=3,
            cost_micros=60,
            account_id="me",
            key_id="1",
            ledger_seq=1,
            entry_hash="e" * 64,
        )
        headers = {
            "content-type": "application/octet-stream",
            "x-embedding-id": "req_1",
            "x-embedding-shape": "3,2",
            "x-embedding-dtype": "float32",
            "x-model-fingerprint": "fp_1",
            "x-cost-micros": "60",
            "x-billed-queries": "3",
            "x-billed-images": "0",
            "x-billed-texts": "3",
            RECEIPT_HEADER: self.key.sign(self.kind, claims.model_copy(update=self.claims)),
        } | self.headers
        sent = {name: value for name, value in headers.items() if value is not None}
        return httpx.Response(200, headers=sent, content=to_rows(rows, "float32"))


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[EmbeddingCache]:
    with EmbeddingCache(tmp_path / "cache.db") as cache:
        yield cache


def _buy(cache: EmbeddingCache, vendor: Signing, run: str = "run") -> None:
    with VendorClient("http://vendor", "tk_1_s", transport=vendor) as client:
        Buyer(client, cache, model=MODEL, run_id=run, budget=None).buy(QUERIES)


def test_a_receipt_is_kept_with_what_it_is_of_and_proves_it_later(cache: EmbeddingCache) -> None:
    vendor = Signing()
    _buy(cache, vendor)
    found = evidence.check_cache(cache)
    assert (found.receipts, found.queries, found.cost_micros) == (1, 3, 60)
    assert (found.proven, found.unproven, found.unsigned) == (3, 0, 0)
    assert (found.keys, found.vendors, found.accounts) == ([vendor.key.public.kid], [], ["me"])
    assert not found.problems
    assert vendor.asked_for_keys == 1


@pytest.mark.parametrize(
    ("claims", "problem"),
    [
        ({"request_hash": "0" * 64}, "another request"),
        ({"answer_hash": "0" * 64}, "another answer"),
        ({"request_id": "req_2"}, "req_2"),
        ({"model_fingerprint": "fp_2"}, "fp_2"),
        ({"cost_micros": 61}, "61"),
        ({"texts": 2, "images": 1}, "images"),
        ({"iat": 1_800_000_000_000}, "cannot be"),
        ({"iat": -1}, "cannot be"),
        ({"ledger_seq": 2**63}, "cannot be"),
        ({"ledger_seq": -1}, "cannot be"),
        ({"key_id": "2"}, "API key"),
        ({"iss": "https://other"}, "in the name of 'https://other', and its keys in that of 'nobody'"),
        ({"vendor": "Another Ltd"}, "in the name of 'Another Ltd'"),
    ],
)
def test_a_receipt_of_something_else_is_refused_and_its_bill_noted(
    cache: EmbeddingCache, claims: dict[str, Any], problem: str
) -> None:
    vendor = Signing()
    vendor.claims = claims
    with pytest.raises(AnswerRejected, match=problem):
        _buy(cache, vendor)
    _nothing_is_stored(cache)


def _nothing_is_stored(cache: EmbeddingCache) -> None:
    assert not cache.lookup("fp_1", QUERIES)
    assert not list(cache.billed.signed())
    (receipt,) = cache.receipts()
    assert receipt.fault is not None
    assert len(cache.notes.of_run()) == 1  # asked again under its key, which is free


def test_a_signature_that_is_not_the_vendors_is_refused(cache: EmbeddingCache) -> None:
    vendor = Signing()
    vendor.key = SigningKey(Ed25519PrivateKey.generate())
    with pytest.raises(AnswerRejected, match="does not publish"):
        _buy(cache, vendor)
    assert vendor.asked_for_keys == 2  # the key might have been new
    _nothing_is_stored(cache)


def test_a_key_under_anothers_id_is_no_key(cache: EmbeddingCache) -> None:
    vendor, thief = Signing(), SigningKey(Ed25519PrivateKey.generate())
    vendor.published = [PublicKey(x=thief.public.x, kid=vendor.key.public.kid)]
    with pytest.raises(VendorError, match="does not publish"):
        _buy(cache, vendor)
    assert not cache.receipts()  # nothing was asked for


@pytest.mark.parametrize("receipt", ["", "no receipt", "a.b.c", "e30.e30.e30", "x" * 1_100_000])
def test_what_is_no_receipt_is_refused(cache: EmbeddingCache, receipt: str) -> None:
    vendor = Signing()
    vendor.headers = {RECEIPT_HEADER: receipt}
    with pytest.raises(AnswerRejected):
        _buy(cache, vendor)
    _nothing_is_stored(cache)


def signed_as(kid: str) -> str:
    """A receipt that names a key by this id."""
    key = Ed25519PrivateKey.generate()
    return jwt.PyJWS().encode(b"{}", key, algorithm="EdDSA", headers={"typ": RECEIPT_TYPE, "kid": kid})


@pytest.mark.parametrize("kid", ["\ud800", "\x1b[2J", "", "A" * 42, f"{'A' * 43}\n"])
def test_a_receipt_by_a_key_whose_id_is_none_is_refused_and_its_bill_noted(
    cache: EmbeddingCache, kid: str
) -> None:
    vendor = Signing()
    vendor.headers = {RECEIPT_HEADER: signed_as(kid)}
    with pytest.raises(AnswerRejected, match="whose id is not its thumbprint"):
        _buy(cache, vendor)
    _nothing_is_stored(cache)


def test_another_statement_is_no_receipt(cache: EmbeddingCache) -> None:
    vendor = Signing()
    vendor.kind = "tuition-head+jws"
    with pytest.raises(AnswerRejected, match="another kind"):
        _buy(cache, vendor)


def test_a_changed_signature_is_refused(cache: EmbeddingCache) -> None:
    vendor = Signing()
    answer = vendor.handle_request

    def changed(request: httpx.Request) -> httpx.Response:
        response = answer(request)
        if RECEIPT_HEADER in response.headers:
            head, payload, signature = response.headers[RECEIPT_HEADER].split(".")
            other = "A" if signature[0] != "A" else "B"
            response.headers[RECEIPT_HEADER] = f"{head}.{payload}.{other}{signature[1:]}"
        return response

    vendor.handle_request = changed  # type: ignore[method-assign]
    with pytest.raises(AnswerRejected, match="signature"):
        _buy(cache, vendor)
    _nothing_is_stored(cache)


def test_a_vendor_that_publishes_keys_may_not_leave_a_receipt_out(cache: EmbeddingCache) -> None:
    vendor = Signing()
    vendor.headers = {RECEIPT_HEADER: None}
    with pytest.raises(AnswerRejected, match="sent none"):
        _buy(cache, vendor)
    _nothing_is_stored(cache)


def test_a_key_that_is_new_is_fetched(cache: EmbeddingCache) -> None:
    vendor = Signing()
    assert vendor.published is not None
    answer = vendor.handle_request

    def rotated(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/embed":
            vendor.key = SigningKey(Ed25519PrivateKey.generate())
            vendor.published = [vendor.key.public, vendor.publisher.public]
        return answer(request)

    vendor.handle_request = rotated  # type: ignore[method-assign]
    _buy(cache, vendor)
    assert evidence.check_cache(cache).keys == [vendor.key.public.kid]


def test_a_vendor_that_does_not_sign_sells_all_the_same_and_that_is_said_once(cache: EmbeddingCache) -> None:
    vendor, said = Signing(), list[str]()
    vendor.published, vendor.headers = None, {RECEIPT_HEADER: None}
    with VendorClient("http://vendor", "tk_1_s", transport=vendor, on_wait=said.append) as client:
        teacher = Buyer(client, cache, model=MODEL, run_id="run", budget=None)
        teacher.buy(QUERIES)
        for number in range(2):
            client.embed(
                [(query, query.content()) for query in QUERIES], model=MODEL, idempotency_key=f"{number}"
            )
    (told,) = said
    assert "does not sign" in told
    found = evidence.check_cache(cache)
    assert (found.receipts, found.unsigned, found.unproven) == (0, 1, 3)
    assert not found.problems


def test_a_vector_that_is_not_what_was_sold_is_found(cache: EmbeddingCache, tmp_path: Path) -> None:
    _buy(cache, Signing())
    with closing(sqlite3.connect(tmp_path / "cache.db")) as file, file:
        (digest,) = file.execute("SELECT digest FROM embeddings LIMIT 1").fetchone()
        forged = StoredEmbedding("text", digest, np.array([0.8, 0.6], dtype="<f4").tobytes())
        file.execute(
            "UPDATE embeddings SET vector = ?, checksum = ? WHERE digest = ?",
            (forged.vector, forged.checksum, digest),
        )
    found = evidence.check_cache(cache)
    assert (found.proven, len(found.problems)) == (2, 1)
    assert digest.hex() in found.problems[0].problem


def test_a_bill_that_is_not_the_signed_one_is_found(cache: EmbeddingCache, tmp_path: Path) -> None:
    _buy(cache, Signing())
    with closing(sqlite3.connect(tmp_path / "cache.db")) as file, file:
        file.execute("UPDATE receipts SET cost_micros = 6")
    (problem,) = evidence.check_cache(cache).problems
    assert "not what the vendor signed" in problem.problem


def test_an_exported_file_needs_neither_cache_nor_vendor(cache: EmbeddingCache, tmp_path: Path) -> None:
    vendor, file, keys = Signing(), tmp_path / "bought.json", tmp_path / "jwks.json"
    _buy(cache, vendor)
    assert evidence.export_receipts(cache, file) == 1
    keys.write_text(KeySet(keys=[vendor.key.public]).model_dump_json())
    for found in (evidence.check_file(file), evidence.check_file(file, evidence.read_keys(keys))):
        assert isinstance(found, evidence.Evidence)
        assert (found.receipts, found.queries, found.cost_micros) == (1, 3, 60)
        assert not found.problems
    exported = json.loads(file.read_text())
    assert exported["receipts"][0]["sold"][0][:3] == [0, "text", QUERIES[0].digest]


def test_what_was_exported_before_stays_where_the_disk_is_full(
    cache: EmbeddingCache, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = small_disk / "bought.json"
    _buy(cache, Signing())
    evidence.export_receipts(cache, file)
    before = file.read_text()
    monkeypatch.setattr(evidence, "_lines", lambda _: ["line " * 1_000_000])
    with pytest.raises(ClientError, match=r"bought\.json cannot be written: the disk is full"):
        evidence.export_receipts(cache, file)
    assert file.read_text() == before


def _forgeries(exported: dict[str, Any]) -> Iterator[dict[str, Any]]:
    (receipt,) = exported["receipts"]
    stranger = SigningKey(Ed25519PrivateKey.generate()).public.model_dump()
    first, *others = receipt["sold"]
    yield exported | {"receipts": [receipt | {"sold": others}]}
    yield exported | {"receipts": [receipt | {"sold": [[*first[:3], "0" * 64], *others]}]}
    yield exported | {"receipts": [receipt, receipt]}
    yield exported | {"keys": [stranger]}
    yield exported | {"keys": [stranger | {"kid": exported["keys"][0]["kid"]}]}


def test_every_forgery_of_an_exported_file_is_found(cache: EmbeddingCache, tmp_path: Path) -> None:
    file = tmp_path / "bought.json"
    _buy(cache, Signing())
    evidence.export_receipts(cache, file)
    for forged in _forgeries(json.loads(file.read_text())):
        file.write_text(json.dumps(forged))
        assert len(evidence.check_file(file).problems) == 1
    for content in ("", "{}", '{"format": "tuition-receipts/2", "keys": [], "receipts": []}'):
        file.write_text(content)
        with pytest.raises(UsageError, match="no exported receipts"):
            evidence.check_file(file)


@pytest.mark.parametrize("wrong", [{"cost_micros": -60}, {"cost_micros": 9 * 10**4299}, {"texts": -3}])
def test_no_receipt_takes_from_a_sum_or_makes_it_endless(
    cache: EmbeddingCache, tmp_path: Path, wrong: dict[str, int]
) -> None:
    vendor = Signing()
    _buy(cache, vendor)
    evidence.export_receipts(cache, tmp_path / "bought.json")
    exported = evidence.ExportedReceipts.model_validate_json((tmp_path / "bought.json").read_bytes())
    (proof,) = [proof for _, proof in cache.billed.signed() if proof is not None]
    exported.receipts[0].receipt = vendor.key.sign(RECEIPT_TYPE, proof.claims().model_copy(update=wrong))
    (tmp_path / "bought.json").write_text(exported.model_dump_json())
    found = evidence.check_file(tmp_path / "bought.json")
    assert isinstance(found, evidence.Evidence)
    assert (found.receipts, found.queries, found.cost_micros) == (0, 0, 0)
    assert "lacks what it should say" in found.problems[0].problem


def test_what_was_sold_is_packed_and_unpacked() -> None:
    sold = (Sold(0, "text", "a" * 64, "b" * 64), Sold(255, "image", "c" * 64, "d" * 64))
    assert unpack(pack(sold)) == sold
    for broken in (b"x", b"\0\0\0\0\xff" + bytes(64)):
        with pytest.raises(ValueError, match="cannot be read"):
            unpack(broken)


def _ask_again(cache: EmbeddingCache, vendor: Signing) -> CanaryResult:
    with VendorClient("http://vendor", "tk_1_s", transport=vendor) as client:
        canary = Canary(client, cache, MODEL)
        return canary.ask(canary.choose([*QUERIES, Query.text("never bought")], 8))


def test_a_canary_asks_what_was_bought_and_finds_a_swap(cache: EmbeddingCache) -> None:
    vendor = Signing()
    _buy(cache, vendor)
    found = _ask_again(cache, vendor)
    assert (found.asked, found.own, found.cost_micros, found.swapped) == (3, 3, 60, False)
    assert found.evidence is None
    vendor.rows = ROWS[::-1].copy()  # the middle one stays as it was
    found = _ask_again(cache, vendor)
    assert sorted(each.name for each in found.differences) == ["text 0", "text 2"]
    assert all(each.proven for each in found.differences)
    assert found.evidence is not None
    checked = check_swap(found.evidence, KeySet(keys=[vendor.key.public]))
    assert (checked.pairs, checked.problems) == (2, [])
    assert not check_swap(found.evidence, KeySet(keys=[])).proven
    # Nothing of the other model is stored, and nothing is owed.
    assert np.array_equal(cache.lookup("fp_1", QUERIES)[QUERIES[0]], ROWS[0])
    assert not cache.notes.of_run()


def test_a_swap_of_a_vendor_that_does_not_sign_is_found_and_not_proved(cache: EmbeddingCache) -> None:
    vendor = Signing()
    vendor.published, vendor.headers = None, {RECEIPT_HEADER: None}
    _buy(cache, vendor)
    vendor.rows = ROWS[::-1].copy()
    found = _ask_again(cache, vendor)
    assert [each.proven for each in found.differences] == [False, False]
    assert found.evidence is not None
    assert not check_swap(found.evidence).proven


class _Once(Signing):
    """Sells once more, and then nothing."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = super().handle_request(request)
        if request.method == "POST":
            self.refusal = _refusal(402, "quota_exhausted")
        return answer


def test_what_a_canary_has_found_is_told_although_the_next_inputs_are_refused(cache: EmbeddingCache) -> None:
    vendor = _Once()
    _buy(cache, vendor)
    image = Query("image", hashlib.sha256(b"image").hexdigest(), "a.png", lambda: b"image")
    usage = Usage(images=1, texts=0, billed_queries=1, cost_micros=100)
    cache.commit(Batch("key", "run", "fp_1", (image,)), {image: ROWS[0]}, usage, "req_0")
    vendor.refusal, vendor.rows = None, ROWS[::-1].copy()
    with VendorClient("http://vendor", "tk_1_s", transport=vendor) as client:
        found = Canary(client, cache, MODEL).ask([image, *QUERIES])
    assert (found.asked, found.own, found.cost_micros, len(found.differences)) == (3, 3, 60, 2)
    assert found.stopped is not None
    assert "quota" in found.stopped
    assert found.evidence is not None
    assert check_swap(found.evidence, KeySet(keys=[vendor.key.public])).pairs == 2
    assert not cache.notes.of_run()


def test_a_canary_that_is_refused_owes_nothing(cache: EmbeddingCache) -> None:
    vendor = Signing()
    _buy(cache, vendor)
    vendor.refusal = _refusal(402, "quota_exhausted")
    with pytest.raises(QuotaExhausted):
        _ask_again(cache, vendor)
    assert not cache.notes.of_run()
