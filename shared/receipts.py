"""Signed statements of a vendor: receipts, and the keys by which anybody can check them.

A receipt is a compact JWS (RFC 7515) with an Ed25519 signature (RFC 8037). It names what was asked and what
was answered by their hashes alone, so it tells nobody else what that was, and whoever has both can prove it.
"""

import base64
import hashlib
import json
from collections.abc import Iterable
from datetime import datetime
from typing import Literal, NamedTuple, Protocol, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.encoding import WIRE_DTYPE, Vector
from shared.kinds import CountFields, Kind

RECEIPT_HEADER = "x-tuition-receipt"
RECEIPT_TYPE = "tuition-receipt+jws"
HEAD_TYPE = "tuition-head+jws"
KEYS_TYPE = "tuition-keys+jws"
CARD_TYPE = "tuition-card+jws"
KEYS_PATH = "/.well-known/jwks.json"
ALGORITHM = "EdDSA"
_MOST = 2**63 - 1  # that a ledger can hold


class Sold(NamedTuple):
    """One query that was answered: its place in the request, and SHA-256 (hex) of what it was and brought.

    `asked` is the digest of an image's file, or of a text's UTF-8; `answered` that of the vector's
    little-endian float32, as it was sent (float16 is widened, which is exact).
    """

    place: int
    kind: Kind
    asked: str
    answered: str


def vector_digest(vector: Vector) -> str:
    """SHA-256 (hex) of a vector's little-endian float32."""
    return hashlib.sha256(np.ascontiguousarray(vector, dtype=WIRE_DTYPE).tobytes()).hexdigest()


def request_hash(sold: Iterable[Sold]) -> str:
    """SHA-256 (hex) of a line `INDEX KIND DIGEST` for each answered query, in the order of their places."""
    lines = (f"{each.place} {each.kind} {each.asked}\n" for each in sold)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def answer_hash(sold: Iterable[Sold]) -> str:
    """SHA-256 (hex) of a line `INDEX DIGEST` for each vector, in the order of their places."""
    lines = (f"{each.place} {each.answered}\n" for each in sold)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def thumbprint(x: str) -> str:
    """The key id of a public key: its thumbprint by RFC 7638, of the members that RFC 8037 names."""
    members = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": x}, separators=(",", ":"))
    return base64url(hashlib.sha256(members.encode()).digest())


def base64url(content: bytes) -> str:
    """Base64 as JOSE has it: for URLs, without padding."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    """The bytes that `base64url` writes like this; no other spelling of them is taken.

    Raises:
        ValueError: it is one, or no base64.
    """
    content = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64url(content) != text:
        raise ValueError("not the one spelling of these bytes in base64url")
    return content


class Statement(BaseModel):
    """What every signed statement says of itself: when it was made, and by whom.

    A vendor that was not told its name or address leaves these out. They are filled in where it is signed.
    """

    model_config = ConfigDict(frozen=True)

    iat: int = Field(description="when it was signed, in seconds since 1970")
    iss: str | None = Field(
        default=None, pattern="^https?://[!-~]+$", max_length=2000, description="the vendor's public URL"
    )
    vendor: str | None = Field(default=None, max_length=200, description="the vendor's name")


class ReceiptClaims(CountFields, Statement):
    """The claims of a receipt: this was answered, for this price, and is that entry of the ledger."""

    iat: int = Field(description="when it was charged, in seconds since 1970")
    request_id: str
    request_hash: str = Field(description="see `request_hash` in docs/http-api.md")
    answer_hash: str
    model: str
    model_fingerprint: str
    cost_micros: int
    account_id: str = Field(description="who bought, as the ledger names the account")
    key_id: str = Field(description="the public half of the API key that paid")
    ledger_seq: int
    entry_hash: str

    @model_validator(mode="after")
    def _can_be_added_up(self) -> Self:
        if not all(0 <= each <= _MOST for each in (self.cost_micros, *self.counts.values())):
            raise ValueError("nothing is sold for less than nothing, nor for more than a ledger can hold")
        return self


class HeadClaims(Statement):
    """The claims of a signed head: at that moment this was the last entry of the account's ledger."""

    account_id: str
    ledger_seq: int = Field(description="0 where there is no entry yet")
    entry_hash: str


class LedgerHead(BaseModel):
    """The answer of `GET /v1/ledger/head`: the last entry, and the same as a signed statement."""

    account_id: str
    seq: int = Field(description="0 where there is no entry yet")
    entry_hash: str
    created_at: datetime | None
    signed: str = Field(description="a compact JWS of `HeadClaims`")


class CanaryVector(BaseModel):
    """An input that anybody may ask about, and what the model answers."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    content: str = Field(description="the text, or the base64 of an image file")
    embedding: str = Field(description="base64 of little-endian float32")


class CardClaims(Statement):
    """The claims of a signed card: under this fingerprint a model is sold that answers like this."""

    model: str
    model_fingerprint: str
    dimensions: int
    tolerance: float
    dtype: str
    image_size: int
    canaries: list[CanaryVector]


class SignedCard(BaseModel):
    """The answer of `GET /v1/models/{id}/signed-card`."""

    signed: str = Field(description="a compact JWS of `CardClaims`")


class PublicKey(BaseModel):
    """A key that signs, as a JWK (RFC 8037); `kid` is its thumbprint (RFC 7638), so it names no other."""

    model_config = ConfigDict(frozen=True)

    kty: Literal["OKP"] = "OKP"
    crv: Literal["Ed25519"] = "Ed25519"
    x: str = Field(pattern="^[A-Za-z0-9_-]{43}$", description="the public key, in base64url")
    kid: str
    use: Literal["sig"] = "sig"
    alg: Literal["EdDSA"] = "EdDSA"


class DatedKey(PublicKey):
    """A key of a vendor with its dates, in seconds since 1970; what a withdrawn one signed proves nothing."""

    since: int
    retired: int | None = Field(default=None, description="since when another key signs in its place")
    withdrawn: int | None = Field(default=None, description="since when the vendor disowns it")


class KeysClaims(Statement):
    """The claims of a signed key set: every key that ever signed for the vendor."""

    keys: list[DatedKey]


class KeySet(BaseModel):
    """The answer of `GET /.well-known/jwks.json`: every key that ever signed, and was not withdrawn."""

    keys: list[PublicKey]
    signed: str | None = Field(
        default=None, description="a compact JWS of `KeysClaims`, which has the withdrawn keys too"
    )


class Signs(Protocol):
    """Signs statements."""

    def sign(self, kind: str, content: Statement) -> str:
        """The content as a compact JWS whose header says what `kind` of statement it is."""
