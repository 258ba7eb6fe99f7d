"""The seal: what the console gives a browser to keep, and gets back as it was or not at all."""

import base64
import hashlib
import hmac
import logging
import secrets
from pathlib import Path

from vendor_service.database import key_files
from vendor_service.database.session import Database

_BYTES = 32
_log = logging.getLogger(__name__)


class Seal:
    """Signs values by a key, each for one purpose, so that none is taken for another."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def tag(self, purpose: str, value: str) -> str:
        """A tag of a value that nobody can make without the key."""
        digest = hmac.new(self._key, f"{purpose}\0{value}".encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def close(self, purpose: str, value: str) -> str:
        """A value, in letters that a cookie may have, and its tag."""
        written = base64.urlsafe_b64encode(value.encode()).rstrip(b"=").decode()
        return f"{written}.{self.tag(purpose, written)}"

    def open(self, purpose: str, sealed: str) -> str | None:
        """The value, or `None` if this key did not close it for this purpose."""
        written, _, tag = sealed.partition(".")
        if not hmac.compare_digest(tag.encode(), self.tag(purpose, written).encode()):
            return None
        return base64.urlsafe_b64decode(written + "=" * (-len(written) % 4)).decode()


def read_or_make_seal(database: Database, folder: Path | None) -> Seal:
    """The seal whose key is in a file, made if need be.

    `key_files.place` says where it is. Where it can be
    neither read nor made, the key ends with this process, and so do its sessions.

    Raises:
        OperatorError: the file holds something else.
    """
    file = key_files.place(database, "console-key", folder)
    try:
        return Seal(key_files.read_or_make(file, _BYTES))
    except OSError as error:
        _log.warning(
            "the console's key cannot be kept in %s (%s): who is signed in is so until this process ends; "
            "name a folder that can be written with VENDOR_KEYS_IN",
            file,
            error.strerror,
        )
        return Seal(secrets.token_bytes(_BYTES))
