"""Signatures: Ed25519 keys in files of their own, whose public halves are in the books for everybody.

The private half is a file, and not in the database, because of what signatures are for: whoever can read or
rewrite the books (an operator's script, a thief of a backup) cannot sign what they make of them. The public
half is in the database, so all processes and machines of a vendor publish the keys of each other, and a key
whose file is lost is replaced by a new one while its receipts stay good.
"""

import asyncio
import json
import logging
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.receipts import ALGORITHM, DatedKey, PublicKey, Statement, base64url, thumbprint
from vendor_service.clock import SECOND, Clock
from vendor_service.database import key_files
from vendor_service.database.session import Database, take_turns
from vendor_service.database.tables import SigningKeyRow
from vendor_service.errors import APIError, CommitInDoubt, OperatorError, UnknownName

_NOBODY: Mapping[str, str | None] = {}
_log = logging.getLogger(__name__)


class SigningKey:
    """A key that can sign; `public` is what others need to check that."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        x = base64url(raw)
        self.public = PublicKey(x=x, kid=thumbprint(x))

    def sign(self, kind: str, content: Statement) -> str:
        """The content as a compact JWS whose header says what `kind` of statement it is."""
        head = json.dumps({"typ": kind, "alg": ALGORITHM, "kid": self.public.kid}).encode()
        payload = content.model_dump_json(exclude_none=True).encode()
        signed = f"{base64url(head)}.{base64url(payload)}"
        return f"{signed}.{base64url(self._private.sign(signed.encode()))}"

    def pem(self) -> bytes:
        """The private half, as its file has it (PKCS 8)."""
        return self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class Signer:
    """Signs with the key in a file, which is made if need be, and taken up anew when it is replaced.

    Where the file can be neither read nor made, it signs with a key that ends with this process.
    """

    def __init__(
        self, database: Database, file: Path | None, clock: Clock, issuer: Mapping[str, str | None] = _NOBODY
    ) -> None:
        """Read or make the key, and publish it; `issuer` has the `iss` and `vendor` of every statement.

        Raises:
            OperatorError: the file holds something else.
        """
        self._database = database
        self._file = file or default_file(database)
        self._clock = clock
        self._issuer = issuer
        self._seen = _version(self._file)
        self._key = self._open()
        self._publish(self._key)

    def sign(self, kind: str, content: Statement) -> str:
        """The content as a compact JWS by the present key, in the vendor's name."""
        return self._key.sign(kind, content.model_copy(update=self._issuer))

    def refresh(self) -> None:
        """Take up the key of the file, if that is another one by now; it is published before it signs."""
        version = _version(self._file)
        if version is None or version == self._seen:
            return
        key = read_key(self._file)
        self._publish(key)
        self._key, self._seen = key, version
        _log.info("receipts are signed by %s from now on", key.public.kid)

    async def repeat(self, every_seconds: float) -> None:
        """Look at the file again and again, until cancelled; the former key signs while that fails."""
        while True:
            await asyncio.sleep(every_seconds)
            try:
                await asyncio.to_thread(self.refresh)
            except (APIError, OperatorError, OSError) as error:
                _log.error("the new signing key cannot be taken up, the former one goes on: %s", error)
            except Exception:
                _log.exception("taking up the new signing key failed; it will be tried again")

    def _open(self) -> SigningKey:
        try:
            return read_or_make_key(self._file)
        except OSError as error:
            _log.warning(
                "the signing key cannot be kept in %s (%s); receipts are signed by one that ends with this "
                "process. Name a folder that can be written with --keys-in",
                self._file,
                error.strerror,
            )
            return SigningKey(Ed25519PrivateKey.generate())

    def _publish(self, key: SigningKey) -> None:
        with self._database.write() as session:
            if not publish(session, key, self._clock()):
                _log.error(
                    "the signing key %s was withdrawn, and nobody believes what it signs; make another with: "
                    "`vendor receipts-key rotate`",
                    key.public.kid,
                )


def default_file(database: Database, folder: Path | None = None) -> Path:
    """The place of the key; see `key_files.place`."""
    return key_files.place(database, "signing-key.pem", folder)


def read_or_make_key(file: Path) -> SigningKey:
    """The key in a file; a new one where there is no file yet, whoever else makes one at the same moment.

    Raises:
        OSError: the file cannot be read or made.
        OperatorError: it holds something else.
    """
    if not file.exists():
        key_files.make(file, SigningKey(Ed25519PrivateKey.generate()).pem())
    return read_key(file)


def read_key(file: Path) -> SigningKey:
    """The key in a file.

    Raises:
        OSError: it cannot be read.
        OperatorError: it holds something else.
    """
    content = file.read_bytes()
    if stat.S_IMODE(file.stat().st_mode) & 0o077:
        _log.warning("%s is a private key that others can read; run: chmod 600 %s", file, file)
    try:
        private = load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:
        raise OperatorError(f"{file} is no private key in PEM without a password: {error}") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise OperatorError(f"{file} is no Ed25519 key; make one with: openssl genpkey -algorithm ed25519")
    return SigningKey(private)


def rotate(
    database: Database, file: Path, clock: Clock, on_published: Callable[[Session, str], None] | None = None
) -> SigningKey:
    """Replace the key in a file by a new one, published before any process can sign with it.

    What the former key signed stays good; nobody can sign with it once the processes that have it have
    looked at the file again. `on_published` is told its id in the transaction that publishes it.

    Raises:
        OperatorError: the file cannot be written, or not for the owner of the former; nothing is published.
        APIError: the database does not answer; the former key goes on.
    """
    former = _kid_in(file)
    key = SigningKey(Ed25519PrivateKey.generate())
    try:
        with key_files.replacing(file, key.pem()), database.write() as session:
            publish(session, key, clock())
            if (replaced := session.get(SigningKeyRow, former)) is not None:
                replaced.retired_at = clock()
            if on_published is not None:
                on_published(session, key.public.kid)
    except CommitInDoubt as doubt:  # published or not, nothing has it to sign with
        message = "the vendor's database went away; receipts are signed by the former key still, so try again"
        raise APIError(doubt.code, message, retry_after=1) from doubt
    except OSError as error:
        raise OperatorError(f"the signing key cannot be written to {file}: {error.strerror}") from error
    return key


def publish(session: Session, key: SigningKey, now: int) -> bool:
    """Publish the public half; False if it was withdrawn."""
    take_turns(session.connection(), "signing keys")
    found = session.get(SigningKeyRow, key.public.kid)
    if found is None:
        session.add(SigningKeyRow(kid=key.public.kid, x=key.public.x, created_at=now))
        return True
    return found.withdrawn_at is None


def every_key(session: Session) -> list[DatedKey]:
    """The public halves of all keys that ever signed, the newest first."""
    rows = session.scalars(select(SigningKeyRow).order_by(SigningKeyRow.created_at.desc(), SigningKeyRow.kid))
    return [
        DatedKey(
            kid=row.kid,
            x=row.x,
            since=row.created_at // SECOND,
            retired=None if row.retired_at is None else row.retired_at // SECOND,
            withdrawn=None if row.withdrawn_at is None else row.withdrawn_at // SECOND,
        )
        for row in rows
    ]


def withdraw(session: Session, kid: str, now: int) -> bool:
    """Disown a key, as one that others have got hold of: what it signed proves nothing from then on.

    It says whether this is the first time; withdrawing it again changes nothing.

    Raises:
        UnknownName: there is no such key.
    """
    row = session.get(SigningKeyRow, kid)
    if row is None:
        raise UnknownName(f"there is no signing key {kid!r}; see: `vendor receipts-key list`")
    if row.withdrawn_at is not None:
        return False
    row.withdrawn_at = now
    return True


def _kid_in(file: Path) -> str:
    """The id of the key in a file; empty where it holds none."""
    try:
        return read_key(file).public.kid
    except (OSError, OperatorError):
        return ""


def _version(file: Path) -> tuple[int, int] | None:
    """A value that changes when the file is replaced; `None` where there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
