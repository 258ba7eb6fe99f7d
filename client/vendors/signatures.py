"""Signatures: whether a vendor's own key has signed a statement, checked without asking the vendor.

A statement is a compact JWS of one exact form, so that no two programs read it differently: base64url as it
is written, a header of `alg`, `typ` and `kid`, and JSON in which no member stands twice.
"""

import json
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar

from pydantic import ValidationError

from client.vendors.ed25519 import is_signed, is_strong
from shared.receipts import (
    ALGORITHM,
    KEYS_TYPE,
    HeadClaims,
    KeysClaims,
    KeySet,
    PublicKey,
    ReceiptClaims,
    Statement,
    from_base64url,
    thumbprint,
)

_MOST_BYTES = 2**20
# The last second that a date can have, and the last entry that the cache can note.
_LATEST, _LAST_ENTRY = 253_402_300_799, 2**63 - 1
Claims = TypeVar("Claims", bound=Statement)
Key = TypeVar("Key", bound=PublicKey)
FindKey = Callable[[str], PublicKey | None]
"""Gives the key of an id, if it is known."""


class BadSignature(ValueError):
    """A statement is not what it should be; the message follows "the vendor" and says why."""


@dataclass(frozen=True)
class Signed(Generic[Claims]):
    """A statement whose signature is right.

    Attributes:
        media_type: of this kind of statement, as its header names it.
        content: the model of its claims.
        claims: what it says.
        token: the statement, a compact JWS.
        key: the public half of the key that signed it.
    """

    media_type: ClassVar[str]
    content: ClassVar[type[Statement]]
    claims: Claims
    token: str
    key: PublicKey

    @classmethod
    def read(cls, token: str, find_key: FindKey) -> Self:
        """Check a statement.

        Raises:
            BadSignature: its signature is not right, or it makes no sense.
        """
        head, payload, signature = _parts(token)
        kid = cls._signer(head)
        key = find_key(kid)
        if key is None:
            raise BadSignature(f"signed by a key that it does not publish, {kid}")
        if not is_signed(token.rpartition(".")[0].encode(), signature, _public(key.x)):
            raise BadSignature(f"signed a statement whose signature is not by its key {kid}")
        try:
            _parsed(payload)
            claims: Claims = cls.content.model_validate_json(payload, strict=True)  # type: ignore[assignment]
        except (ValidationError, ValueError, RecursionError) as error:
            raise BadSignature("signed a statement that lacks what it should say") from error
        return cls(claims, token, key)

    @classmethod
    def _signer(cls, head: bytes) -> str:
        """The id of the key that a header names as the signer.

        Raises:
            BadSignature: it is not the header of this kind of statement.
        """
        try:
            header = _parsed(head)
        except (ValueError, RecursionError) as error:
            raise BadSignature("signed something that is not a compact JWS") from error
        if header.keys() != {"alg", "typ", "kid"} or header["alg"] != ALGORITHM:
            raise BadSignature(f"signed with a header that says more or less than {ALGORITHM}, typ and kid")
        kid = header["kid"]
        if header["typ"] != cls.media_type or not isinstance(kid, str):
            raise BadSignature(f"signed another kind of statement than {cls.media_type}")
        if not re.fullmatch("[A-Za-z0-9_-]{43}", kid):
            raise BadSignature("signed by a key whose id is not its thumbprint")
        return kid


class SignedKeys(Signed[KeysClaims]):
    """The set of a vendor's keys, signed by one of them."""

    media_type, content = KEYS_TYPE, KeysClaims

    @classmethod
    def of(cls, answer: KeySet | None) -> Self | None:
        """The key set of a vendor's answer; `None` of one that has no keys, and so does not sign.

        Raises:
            BadSignature: it is not signed by a key of it, or says otherwise which keys there are.
        """
        if answer is None or (not answer.keys and answer.signed is None):
            return None
        if answer.signed is None:
            raise BadSignature("publishes keys, and does not sign the set of them")
        told = by_id(answer.keys)
        found = cls.read(answer.signed, told.get)
        if found.good.keys() != told.keys():
            raise BadSignature("signed another set of keys than it publishes")
        return found

    @property
    def good(self) -> dict[str, PublicKey]:
        """Its keys by their ids, but those that the vendor disowns."""
        return by_id(key for key in self.claims.keys if key.withdrawn is None)


class KeyChanges(NamedTuple):
    """The ids of keys that a vendor published before and now hides, and of those that it now disowns."""

    hidden: list[str]
    withdrawn: list[str]


class KeyRing:
    """The keys that one vendor publishes: asked for when first needed, and when an unknown one has signed.

    Thread-safe. A vendor that publishes none does not sign.
    """

    def __init__(self, fetch: Callable[[], SignedKeys | None], key_id: str | None = None) -> None:
        """Ask nothing yet.

        Args:
            fetch: the keys, or `None` of a vendor that has none.
            key_id: the public half of the API key that pays, if it is known.
        """
        self.key_id = key_id
        self._fetch = fetch
        self._lock = threading.Lock()
        self._is_known = False
        self._published: SignedKeys | None = None

    @property
    def signs(self) -> bool:
        """Whether the vendor publishes keys; raises what asking it raises."""
        with self._lock:
            return bool(self._known())

    def find(self, kid: str) -> PublicKey | None:
        """The key of that id, if the vendor publishes it; raises what asking it raises."""
        with self._lock:
            if kid not in self._known():
                self._is_known = False  # it may have been made since
            return self._known().get(kid)

    def require_possible(self, claims: Statement) -> None:
        """Refuse what the vendor says now in another's name, or of a time or place that cannot be.

        What was kept before this was looked at is evidence all the same.

        Raises:
            BadSignature: it is such a statement.
        """
        with self._lock:
            if self._issuer != _issuer(claims):
                self._is_known = False  # the vendor may have another name since
            if self._issuer != _issuer(claims):
                names = [
                    " at ".join(filter(None, each)) or "nobody" for each in (_issuer(claims), self._issuer)
                ]
                raise BadSignature(
                    f"signed in the name of {names[0]!r}, and its keys in that of {names[1]!r}"
                )
        entry = claims.ledger_seq if isinstance(claims, HeadClaims | ReceiptClaims) else 0
        if not (0 <= claims.iat <= _LATEST and 0 <= entry <= _LAST_ENTRY):
            raise BadSignature("signed a time, or a place in its ledger, that cannot be")

    @property
    def _issuer(self) -> tuple[str | None, str | None]:
        self._known()
        return (None, None) if self._published is None else _issuer(self._published.claims)

    def _known(self) -> dict[str, PublicKey]:
        if not self._is_known:
            self._published = self._fetch()
            self._is_known = True
        return {} if self._published is None else self._published.good


def by_id(keys: Iterable[Key]) -> dict[str, Key]:
    """Keys by their ids, without those whose id is another key's, and those that bind nobody."""
    return {key.kid: key for key in keys if key.kid == thumbprint(key.x) and is_strong(_public(key.x))}


def time_of(signed_at: int, form: str) -> str:
    """When a vendor says that it signed, in UTC; a number that is no date is shown, if it is not endless."""
    try:
        return f"{datetime.fromtimestamp(signed_at, UTC):{form}}"
    except (ValueError, OverflowError, OSError):
        shown = str(signed_at) if abs(signed_at) < 10**40 else "endless"
        return f"no date ({shown})"


def _issuer(claims: Statement) -> tuple[str | None, str | None]:
    return claims.vendor, claims.iss


def _public(x: str) -> bytes:
    """The bytes of a public key; none where it is not spelled as it must be."""
    try:
        return from_base64url(x)
    except ValueError:
        return b""


def _parts(token: str) -> tuple[bytes, bytes, bytes]:
    """The header, the payload and the signature of a compact JWS.

    Raises:
        BadSignature: it is none.
    """
    if len(token) > _MOST_BYTES:
        raise BadSignature("signed what is too long to be a statement")
    try:
        head, payload, signature = map(from_base64url, token.split("."))
    except ValueError as error:
        raise BadSignature("signed something that is not a compact JWS") from error
    return head, payload, signature


def _parsed(content: bytes) -> dict[str, Any]:
    """A JSON object in which no member stands twice.

    Raises:
        ValueError: it is something else.
    """
    found = json.loads(content.decode(), object_pairs_hook=_unique)
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a member is there twice")
    return found
