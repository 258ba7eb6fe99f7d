"""Files of keys, which stand beside the books and never in them: for their owner alone, and written whole."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_data_path

from vendor_service.database.session import Database
from vendor_service.errors import OperatorError


def beside(database: Database, name: str) -> Path:
    """The default place of a key: beside an SQLite database, else with the user's data."""
    if database.file is not None:
        return database.file.with_suffix(f".{name}")
    return user_data_path("tuition") / name


def read_or_make(file: Path, size: int) -> bytes:
    """The key in a file, random bytes of the given number, made if need be.

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


@contextmanager
def replacing(file: Path, content: bytes) -> Iterator[None]:
    """Put another key in the place of the one in the file, for the same owner, at the end of the block.

    Raises:
        OSError: it cannot be written, or not for that owner; the block was not entered.
    """
    written = _write(file, content)
    try:
        _give_to_owner_of(file, written)
        yield
        written.replace(file)
    finally:
        written.unlink(missing_ok=True)


def _give_to_owner_of(former: Path, written: Path) -> None:
    try:
        owned = former.stat()
    except FileNotFoundError:
        return
    if owned.st_uid != os.geteuid():
        try:
            os.chown(written, owned.st_uid, owned.st_gid)
        except PermissionError as error:
            raise PermissionError(error.errno, "it is another user's, who or root may replace it") from error


def _write(beside: Path, content: bytes) -> Path:
    """A new file in the same folder, for its owner alone."""
    file = beside.with_name(f".{beside.name}-{secrets.token_hex(8)}")
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as opened:  # noqa: PTH123 - a descriptor, not a path
        opened.write(content)
        opened.flush()
        os.fsync(descriptor)
    return file
