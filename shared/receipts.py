"""Signed statements of a vendor: receipts, and the keys by which anybody can check them.

A receipt is a compact JWS (RFC 7515) with an Ed25519 signature (RFC 8037). It names what was asked and what
was answered by their hashes alone, so it tells nobody else what that was, and whoever has both can prove it.
"""

import base64
import hashlib
import json
from collections.abc import Iterable
from datetime import datetime
from typing import Literal, NamedTuple, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from shared.encoding import WIRE_DTYPE, Vector
from shared.kinds import CountFields, Kind

RECEIPT_HEADER = "x-tuition-receipt"
RECEIPT_TYPE = "tuition-receipt+jws"
HEAD_TYPE = "tuition-head+jws"
CARD_TYPE = "tuition-card+jws"
KEYS_PATH = "/.well-known/jwks.json"
ALGORITHM = "EdDSA"


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


class ReceiptClaims(CountFields):
    """The claims of a receipt: this was answered, for this price, and is that entry of the ledger."""

    model_config = ConfigDict(frozen=True)

    iat: int = Field(description="when it was charged, in seconds since 1970")
    request_id: str
    request_hash: str = Field(description="see `request_hash` in docs/http-api.md")
    answer_hash: str
    model: str
    model_fingerprint: str
    cost_micros: int
    key_id: str = Field(description="the public half of the API key that paid")
    ledger_seq: int
    entry_hash: str


class HeadClaims(BaseModel):
    """The claims of a signed head: at that moment this was the last entry of the account's ledger."""

    model_config = ConfigDict(frozen=True)

    iat: int = Field(description="when it was signed, in seconds since 1970")
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


class CardClaims(BaseModel):
    """The claims of a signed card: under this fingerprint a model is sold that answers like this."""

    model_config = ConfigDict(frozen=True)

    iat: int = Field(description="when it was signed, in seconds since 1970")
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


class KeySet(BaseModel):
    """The answer of `GET /.well-known/jwks.json`: every key that ever signed, and was not withdrawn."""

    keys: list[PublicKey]


class Signs(Protocol):
    """Signs statements."""

    def sign(self, kind: str, content: BaseModel) -> str:
        """The content as a compact JWS whose header says what `kind` of statement it is."""
