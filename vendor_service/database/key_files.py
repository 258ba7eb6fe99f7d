"""Files of keys, which stand beside the books and never in them: for their owner alone, and written whole."""

import os
import secrets
from pathlib import Path

from platformdirs import user_data_path

from vendor_service.database.session import Database
from vendor_service.errors import OperatorError


def beside(database: Database, name: str) -> Path:
    """Where a key is unless another file is named: beside an SQLite database, else with the user's data."""
    if database.file is not None:
        return database.file.with_suffix(f".{name}")
    return user_data_path("tuition") / name


def read_or_make(file: Path, size: int) -> bytes:
    """The key of so many random bytes in a file, made if need be.

    Raises:
        OSError: it can be neither read nor made.
        OperatorError: the file holds something else.
    """
    if not file.exists():
        make(file, secrets.token_bytes(size))
    key = file.read_bytes()
    if len(key) != size:
        raise OperatorError(f"{file} is no key of {size} bytes; remove it, and a new one is made")
    return key


def make(file: Path, content: bytes) -> None:
    """Make the file, unless another process makes it at the same moment: then that one's stays.

    Raises:
        OSError: it cannot be made.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    written = _write(file, content)
    try:
        os.link(written, file)  # unlike a renaming, it replaces nothing
    except FileExistsError:
        pass
    finally:
        written.unlink()


def replace(file: Path, content: bytes) -> None:
    """Put another key in the place of the one in the file.

    Raises:
        OSError: it cannot be written.
    """
    _write(file, content).replace(file)


def _write(beside: Path, content: bytes) -> Path:
    """A new file in the same folder, for its owner alone."""
    file = beside.with_name(f".{beside.name}-{secrets.token_hex(8)}")
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as opened:  # noqa: PTH123 - a descriptor, not a path
        opened.write(content)
        opened.flush()
        os.fsync(descriptor)
    return file
