"""Files of keys, which stand beside the books and never in them: for their owner alone, and written whole."""

import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_data_path

from vendor_service.database.session import Database
from vendor_service.errors import OperatorError


def place(database: Database, name: str, folder: Path | None) -> Path:
    """Where a key is: in the folder, else beside an SQLite database, else with the user's data.

    There it has a folder for each database, so that two vendors of one user have keys of their own.
    """
    if folder is not None:
        return folder / name
    if database.file is not None:
        return database.file.with_suffix(f".{name}")
    url = database.engine.url
    books = f"{url.host or url.query.get('host') or ''}:{url.port or ''}/{url.database or ''}"
    digest = hashlib.blake2b(books.encode(), digest_size=4).hexdigest()
    words = re.sub(r"[^A-Za-z0-9_-]", "_", url.database or "")
    return user_data_path("tuition") / f"{words}-{digest}" / name


def check_folder(folder: Path) -> None:
    """Make a folder of keys if need be, and make sure that new ones can be written there, or are there.

    Raises:
        OperatorError: it cannot be made, or is empty and nothing can be written there.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        can = os.access(folder, os.R_OK | os.W_OK | os.X_OK) or any(folder.iterdir())
    except OSError as error:
        raise OperatorError(f"VENDOR_KEYS_IN: no keys can be kept in {folder}: {error.strerror}") from error
    if not can:
        raise OperatorError(f"VENDOR_KEYS_IN: no keys can be kept in {folder}, where nothing can be written")


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
    beside.parent.mkdir(parents=True, exist_ok=True)
    file = beside.with_name(f".{beside.name}-{secrets.token_hex(8)}")
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as opened:  # noqa: PTH123 - a descriptor, not a path
        opened.write(content)
        opened.flush()
        os.fsync(descriptor)
    return file
