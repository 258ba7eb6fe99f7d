"""The key by which inputs are hashed, in a file: who has the books alone cannot try out what was asked."""

import hashlib
import logging
from pathlib import Path

from vendor_service.database import key_files
from vendor_service.database.session import Database

_BYTES = 32
_log = logging.getLogger(__name__)


def read_or_make_key(database: Database, folder: Path | None) -> bytes | None:
    """The key in a file, made if need be; `None` where the file can be neither read nor made.

    `key_files.place` says where it is.

    Raises:
        OperatorError: the file holds something else.
    """
    file = key_files.place(database, "sketch-key", folder)
    try:
        return key_files.read_or_make(file, _BYTES)
    except OSError as error:
        _log.warning(
            "distinct inputs are not counted: their key cannot be kept in %s (%s); name a folder that can "
            "be written with VENDOR_KEYS_IN",
            file,
            error.strerror,
        )
        return None


def key_id(key: bytes | None) -> str:
    """A name for a key that does not give it away; empty where there is none."""
    return "" if key is None else hashlib.blake2b(key, digest_size=8, person=b"sketch key").hexdigest()
