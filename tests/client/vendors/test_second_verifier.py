"""A second verifier, over another library: both believe the same receipts, however these are changed."""

import json
import random
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from typing import Any

import nacl.bindings
import nacl.exceptions
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.vendors.signatures import BadSignature, by_id
from client.vendors.statements import SignedReceipt
from shared.receipts import PublicKey, ReceiptClaims, thumbprint
from vendor_service.money.signing import SigningKey

MUTATIONS = 10_000
_L = 2**252 + 27742317777372353535851937790883648493
_IDENTITY = b"\1" + bytes(31)
_LETTERS = "AQgw_-09+/= .\n\0\u00e9"
CLAIMS = ReceiptClaims(
    iat=1_800_000_000, iss="https://vendor.example", vendor="Vendor Ltd", request_id="req_1",
    request_hash="a" * 64, answer_hash="b" * 64, model="m", model_fingerprint="fp_1", images=0, texts=3,
    cost_micros=60, account_id="me", key_id="1", ledger_seq=1, entry_hash="e" * 64,
)  # fmt: skip
PRIVATE = Ed25519PrivateKey.generate()
KEY = SigningKey(PRIVATE).public
HEAD = {"typ": "tuition-receipt+jws", "alg": "EdDSA", "kid": KEY.kid}


def second_verifier(token: str, key: PublicKey) -> dict[str, Any] | None:
    """What a receipt says if a key has rightly signed it, by docs/http-api.md and libsodium."""
    try:
        head, payload, signature = (
            urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in token.split(".")
        )
        if ".".join(map(_encoded, (head, payload, signature))) != token or _said(head) != HEAD | {
            "kid": key.kid
        }:
            return None
        public = urlsafe_b64decode(key.x + "=")
        nacl.bindings.crypto_sign_open(signature + token.rpartition(".")[0].encode(), public)
        return _said(payload)
    except (ValueError, nacl.exceptions.CryptoError):
        return None


def _said(content: bytes) -> dict[str, Any]:
    pairs: list[tuple[str, Any]] = json.loads(content, object_pairs_hook=list)
    if len(dict(pairs)) < len(pairs):
        raise ValueError("twice")
    return dict(pairs)


def _encoded(content: bytes) -> str:
    return urlsafe_b64encode(content).decode().rstrip("=")


def _signed(head: str, payload: str) -> str:
    content = f"{_encoded(head.encode())}.{_encoded(payload.encode())}"
    return f"{content}.{_encoded(PRIVATE.sign(content.encode()))}"


def _whole() -> Iterator[str]:
    """Rightly signed receipts, in all forms of header and claims, and some that nobody signed."""
    head, payload = json.dumps(HEAD), CLAIMS.model_dump_json()
    yield _signed(head, payload)
    yield _signed(json.dumps(HEAD, indent=1), json.dumps(json.loads(payload), indent=1))
    for name, value in {"crit": [], "b64": False, "jwk": {}, "alg": "none", "typ": "JWT", "kid": 1}.items():
        yield _signed(json.dumps(HEAD | {name: value}), payload)
    yield _signed(head[:-1] + ', "alg": "EdDSA"}', payload)
    yield _signed('{"alg": "none", ' + head[1:], payload)
    yield _signed(head, payload[:-1] + ',"cost_micros":6}')
    yield _signed(head, '{"cost_micros":6,' + payload[1:])
    token = _signed(head, payload)
    content, _, signature = token.rpartition(".")
    right = urlsafe_b64decode(signature + "==")
    scalar = int.from_bytes(right[32:], "little")
    for times in range(1, 16):
        yield f"{content}.{_encoded(right[:32] + (scalar + times * _L).to_bytes(33, 'little')[:32])}"
    yield f"{content}.{_encoded(_IDENTITY + bytes(32))}"
    yield f"{content}.{signature[:-1]}{chr(ord(signature[-1]) + 1)}"  # the same bytes, with other idle bits
    yield f"{token}="
    yield f"{token}."
    yield f"{content}.{signature}\n"


def _changed(token: str, dice: random.Random) -> str:
    """A receipt with some letters changed, put in or left out, or parts of it in other places."""
    for _ in range(dice.randint(1, 3)):
        place = dice.randrange(len(token))
        letter = dice.choice(_LETTERS) if dice.random() < 0.5 else token[dice.randrange(len(token))]
        match dice.randrange(4):
            case 0:
                token = token[:place] + letter + token[place + 1 :]
            case 1:
                token = token[:place] + letter + token[place:]
            case 2:
                token = token[:place] + token[place + 1 :]
            case 3:
                parts = token.split(".")
                dice.shuffle(parts)
                token = ".".join(parts)
    return token


def _ours(token: str, key: PublicKey) -> dict[str, Any] | None:
    try:
        return SignedReceipt.read(token, by_id([key]).get).claims.model_dump()
    except BadSignature:
        return None


def test_two_verifiers_agree_on_ten_thousand_mutated_receipts() -> None:
    dice, whole = random.Random(0), list(_whole())
    believed = 0
    for number in range(MUTATIONS):
        token = whole[number] if number < len(whole) else _changed(dice.choice(whole), dice)
        ours, theirs = _ours(token, KEY), second_verifier(token, KEY)
        assert ours == theirs, token
        believed += ours is not None
    assert 2 <= believed < 100


@pytest.mark.parametrize("point", [_IDENTITY, bytes(32), b"\xec" + b"\xff" * 30 + b"\x7f"])
def test_both_refuse_a_key_by_which_anybody_signs_everything(point: bytes) -> None:
    x = _encoded(point)
    weak = PublicKey(x=x, kid=thumbprint(x))
    head = json.dumps(HEAD | {"kid": weak.kid})
    for number in range(16):  # by a key of order 4, some of them are right
        claims = CLAIMS.model_copy(update={"cost_micros": number}).model_dump_json()
        token = f"{_encoded(head.encode())}.{_encoded(claims.encode())}.{_encoded(_IDENTITY + bytes(32))}"
        assert _ours(token, weak) is None
        assert second_verifier(token, weak) is None
