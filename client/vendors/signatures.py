"""Signatures: whether a vendor's own key has signed a statement, checked without asking the vendor.

PyJWT takes a tenth of a second to import, so it is imported where something is checked.
"""

import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar, Generic, Self, TypeVar

from pydantic import BaseModel, ValidationError

from shared.receipts import ALGORITHM, HeadClaims, KeySet, PublicKey, ReceiptClaims, thumbprint

_MOST_BYTES = 2**20
# The last second that a date can have, and the last entry that the cache can note.
_LATEST, _LAST_ENTRY = 253_402_300_799, 2**63 - 1
Claims = TypeVar("Claims", bound=BaseModel)
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
    content: ClassVar[type[BaseModel]]
    claims: Claims
    token: str
    key: PublicKey

    @classmethod
    def read(cls, token: str, find_key: FindKey) -> Self:
        """Check a statement.

        Raises:
            BadSignature: its signature is not right, or it makes no sense.
        """
        import jwt

        kid = cls._signer(token)
        key = find_key(kid)
        if key is None:
            raise BadSignature(f"signed by a key that it does not publish, {kid}")
        try:
            content = jwt.PyJWS().decode(token, jwt.PyJWK(key.model_dump()).key, algorithms=[ALGORITHM])
            claims: Claims = cls.content.model_validate_json(content)  # type: ignore[assignment]
        except jwt.PyJWTError as error:
            raise BadSignature(f"signed a statement whose signature is not by its key {kid}") from error
        except ValidationError as error:
            raise BadSignature("signed a statement that lacks what it should say") from error
        return cls(claims, token, key)

    @classmethod
    def _signer(cls, token: str) -> str:
        """The id of the key that a statement names as its signer.

        Raises:
            BadSignature: it is no statement of this kind.
        """
        import jwt

        if len(token) > _MOST_BYTES:
            raise BadSignature("signed what is too long to be a statement")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError as error:
            raise BadSignature("signed what is no compact JWS") from error
        kid = header.get("kid")
        if header.get("typ") != cls.media_type or not isinstance(kid, str):
            raise BadSignature(f"signed another kind of statement than {cls.media_type}")
        if not re.fullmatch("[A-Za-z0-9_-]{43}", kid):
            raise BadSignature("signed by a key whose id is no thumbprint")
        return kid


class KeyRing:
    """The keys that one vendor publishes: asked for when first needed, and when an unknown one has signed.

    Thread-safe. A vendor that publishes none does not sign.
    """

    def __init__(self, fetch: Callable[[], KeySet | None]) -> None:
        """Ask nothing yet.

        Args:
            fetch: the keys, or `None` of a vendor that has none.
        """
        self._fetch = fetch
        self._lock = threading.Lock()
        self._keys: dict[str, PublicKey] | None = None

    @property
    def signs(self) -> bool:
        """Whether the vendor publishes keys; raises what asking it raises."""
        with self._lock:
            return bool(self._known())

    def find(self, kid: str) -> PublicKey | None:
        """The key of that id, if the vendor publishes it; raises what asking it raises."""
        with self._lock:
            if kid not in self._known():
                self._keys = None  # it may have been made since
            return self._known().get(kid)

    def _known(self) -> dict[str, PublicKey]:
        if self._keys is None:
            found = self._fetch()
            self._keys = by_id(found.keys if found else ())
        return self._keys


def by_id(keys: Iterable[PublicKey]) -> dict[str, PublicKey]:
    """Keys by their ids, without those whose id is another key's."""
    return {key.kid: key for key in keys if key.kid == thumbprint(key.x)}


def require_possible(claims: HeadClaims | ReceiptClaims) -> None:
    """Refuse a statement of a time, or of a place in the ledger, that cannot be.

    It is for what a vendor says now. What was kept before this was looked at is evidence all the same.

    Raises:
        BadSignature: it is one.
    """
    if not (0 <= claims.iat <= _LATEST and 0 <= claims.ledger_seq <= _LAST_ENTRY):
        raise BadSignature("signed a time, or a place in its ledger, that cannot be")


def time_of(signed_at: int, form: str) -> str:
    """When a vendor says that it signed, in UTC; a number that is no date is shown as it is."""
    try:
        return f"{datetime.fromtimestamp(signed_at, UTC):{form}}"
    except (ValueError, OverflowError, OSError):
        return f"no date ({signed_at})"
