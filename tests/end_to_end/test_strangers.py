"""A vendor that rewrites its books, or sells another model under the same name, is found out, with proof.

One real vendor in this process serves both tests, and the real client buys from it over HTTP.
"""

import base64
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select, text

import client
from client.cli.main import main
from client.vendors.statements import PinnedCard
from shared.encoding import from_wire
from shared.receipts import CARD_TYPE, Sold, answer_hash, request_hash, vector_digest
from tests.vendor_service.local_vendor import LocalVendor, image_file
from vendor_service.database.tables import GENESIS_HASH, Account, LedgerEntry
from vendor_service.encoder.replica import Replica
from vendor_service.money import ledger
from vendor_service.money.signing import SigningKey

TEXTS = tuple(f"text {number}" for number in range(40))


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalVendor]:
    # What an account asked before would otherwise come from memory, whichever model is there now.
    with LocalVendor(tmp_path_factory.mktemp("vendor"), text_cache_bytes=0) as local:
        yield local


@pytest.fixture
def options(vendor: LocalVendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("TUITION_API_KEY", vendor.key())
    return {"vendor": f"http://127.0.0.1:{vendor.port}", "cache": tmp_path / "cache.db"}


def _opened(token: str, keys: list[dict[str, str]]) -> dict[str, Any]:
    """What a statement says, by the code of nobody here."""
    kid = jwt.get_unverified_header(token)["kid"]
    (key,) = [each for each in keys if each["kid"] == kid]
    content = jwt.PyJWS().decode(token, jwt.PyJWK(key).key, algorithms=["EdDSA"])
    claims: dict[str, Any] = json.loads(content)
    return claims


def _rewrite(vendor: LocalVendor, key: str) -> None:
    """Make the second charge dearer, and the whole chain behind it anew, as only who owns the books can."""
    with vendor.books.write() as session:
        triggers = session.scalars(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).all()
        for name in triggers:
            session.execute(text(f"DROP TRIGGER {name}"))
        account = session.get_one(Account, vendor.account(key).id)
        entries = session.scalars(
            select(LedgerEntry).where(LedgerEntry.account_id == account.id).order_by(LedgerEntry.seq)
        ).all()
        before = GENESIS_HASH
        for entry in entries:
            if entry.seq == 2:
                entry.amount_micros -= 100
            entry.previous_hash = before
            entry.entry_hash = before = ledger.entry_hash(entry)
        account.ledger_hash = before


def test_a_rewritten_history_is_found_chain_and_all(vendor: LocalVendor, options: dict[str, Any]) -> None:
    client.embed(client.EmbedOptions(texts=TEXTS, **options))
    asked = client.VendorOptions(**options)
    found = client.reconcile(asked)
    assert not found.differences
    assert found.pinned == 3  # two receipts, and the head that was pinned when they were bought
    _rewrite(vendor, os.environ["TUITION_API_KEY"])
    found = client.reconcile(asked)
    # The chain itself is whole: what the vendor had signed is what gives it away.
    assert [(each.seq, each.shown_hash is not None) for each in found.rewritten] == [(2, True), (2, True)]
    assert all("rewritten" in each.problem or "micros" in each.problem for each in found.differences)
    keys = vendor.http.get("/.well-known/jwks.json").json()["keys"]
    assert found.head is not None
    now = _opened(found.head, keys)
    for each in found.rewritten:
        then = _opened(each.statement, keys)
        assert then["ledger_seq"] == now["ledger_seq"] == 2
        assert then["entry_hash"] == each.signed_hash
        assert now["entry_hash"] == each.shown_hash != each.signed_hash


def test_a_silent_swap_is_found_and_proved(
    vendor: LocalVendor,
    options: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    image = tmp_path / "red.png"
    image.write_bytes(image_file())
    client.embed(client.EmbedOptions(texts=TEXTS[:4], images=(image,), **options))
    with client.EmbeddingCache(options["cache"]) as cache:  # the card was kept as they were bought
        (fingerprint,) = cache.fingerprints()
        assert len(cache.cards.of(fingerprint)) == 1
    asking = client.CanaryOptions(texts=TEXTS, images=(image,), count=11, **options)
    found = client.canary(asking)
    assert (found.asked, found.own, found.cost_micros) == (11, 5, 8 * 20 + 3 * 100)
    assert not found.swapped
    assert found.evidence is None

    encode = Replica.encode
    monkeypatch.setattr(Replica, "encode", lambda *args, **how: np.roll(encode(*args, **how), 1, axis=1))
    evidence, shown = tmp_path / "swap.json", str(options["cache"])
    arguments = ["canary", "--images", str(image), "--count", "4", "--evidence", str(evidence)]
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--vendor", options["vendor"], "--cache", shown])
    assert end.value.code == 1
    assert "Another model is sold" in capsys.readouterr().out
    proof = json.loads(evidence.read_text())
    cards = [_opened(each, proof["keys"]) for each in proof["cards"]]
    assert len(proof["pairs"]) == 4
    for pair in proof["pairs"]:
        before, after = (_answer(pair, when, proof["keys"], cards) for when in ("before", "after"))
        assert np.abs(before - after).max() > proof["tolerance"]
    # Others find the same by the client, and no more than is there.
    keys = tmp_path / "jwks.json"
    keys.write_bytes(vendor.http.get("/.well-known/jwks.json").content)
    checked = client.verify_receipts_file(evidence, keys)
    assert isinstance(checked, client.SwapCheck)
    assert (checked.pairs, checked.proven, checked.problems) == (4, True, [])
    for forged in _forgeries(proof):
        evidence.write_text(json.dumps(forged))
        checked = client.verify_receipts_file(evidence, keys)
        assert isinstance(checked, client.SwapCheck)
        assert (checked.proven, len(checked.problems)) == (False, 1)
    # What was answered otherwise is billed and noted, and nothing of it is used.
    again = client.embed(client.EmbedOptions(images=(image,), **options))
    assert again.queries_bought == 0
    kept = client.verify_receipts(client.VendorOptions(**options))
    assert not kept.problems


def test_cards_that_contradict_each_other_are_a_proof_that_costs_nothing(
    options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client.embed(client.EmbedOptions(texts=TEXTS[:4], **options))
    with client.EmbeddingCache(options["cache"]) as cache:
        (card,) = cache.cards.of(cache.fingerprints()[0])
        other = card.claims.model_copy(update={"iat": 1, "dtype": "float8"})
        key = SigningKey(Ed25519PrivateKey.generate())
        cache.cards.pin(PinnedCard(other, key.sign(CARD_TYPE, other), key.public))
    evidence = tmp_path / "swap.json"
    arguments = ["canary", "--text", TEXTS[0], "--evidence", str(evidence)]
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--vendor", options["vendor"], "--cache", str(options["cache"])])
    assert end.value.code == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "0 inputs were asked again for 0 micros" in shown
    assert "signed cards contradict each other: dtype" in shown
    checked = client.verify_receipts_file(evidence)
    assert isinstance(checked, client.SwapCheck)
    assert (checked.proven, checked.pairs, checked.problems) == (True, 0, [])


def _forgeries(proof: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Accusations that the vendor's signatures do not bear out."""
    own = hashlib.sha256(image_file()).hexdigest()  # which no card promises
    (pair,) = [each for each in proof["pairs"] if each["asked"] == own]
    before, after = pair["before"], pair["after"]
    other = base64.b64encode(base64.b64decode(after["embedding"])[::-1]).decode()
    yield proof | {"pairs": [pair | {"after": before}]}
    yield proof | {"pairs": [pair | {"asked": "0" * 64}]}
    yield proof | {"pairs": [pair | {"before": before | {"embedding": other}}]}
    yield proof | {"pairs": [pair | {"before": before | {"receipt": None, "sold": []}}]}
    yield proof | {"pairs": [pair], "model_fingerprint": "fp_other"}


def _answer(
    pair: dict[str, Any], when: str, keys: list[dict[str, str]], cards: list[dict[str, Any]]
) -> np.ndarray[Any, Any]:
    """One answer of a pair, once it is found that the vendor has signed it."""
    said = pair[when]
    vector = from_wire(said["embedding"], 256)
    if said["receipt"] is None:
        assert any(each["embedding"] == said["embedding"] for card in cards for each in card["canaries"])
        return vector
    claims = _opened(said["receipt"], keys)
    sold = [Sold(*each) for each in said["sold"]]
    assert (claims["request_hash"], claims["answer_hash"]) == (request_hash(sold), answer_hash(sold))
    assert any((each.asked, each.answered) == (pair["asked"], vector_digest(vector)) for each in sold)
    return vector
