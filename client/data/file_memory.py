"""A memory of image files, by path, size and times, so that each is read and hashed once."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from client.data.images import codecs
from client.data.members import Stamp, stamp_of
from client.errors import unwritable
from client.paths import is_there

# Pixels of a side of the small image that is kept of each file, to tell near copies by.
THUMBNAIL = 12
# A file that has just been written may be written again within one tick of the disk's clock.
_SETTLED_AFTER_NS = 2 * 10**9
_AT_ONCE = 500
_VERSION = 4
# Marks the file in its header, so that no file of another program is ever taken for it: "Tfil".
_APPLICATION = 0x5466696C
_MAGIC, _MARK_AT = b"SQLite format 3\0", slice(68, 72)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    path BLOB PRIMARY KEY,
    size INTEGER NOT NULL,
    time INTEGER NOT NULL,       -- when it was last changed, in nanoseconds since 1970
    ctime INTEGER NOT NULL,      -- and when its inode was, which `mv` changes too and nobody can set
    digest TEXT NOT NULL,
    file TEXT NOT NULL,
    side INTEGER NOT NULL,
    thumbnail BLOB NOT NULL,
    reason TEXT NOT NULL,
    kind TEXT NOT NULL,
    encoder TEXT NOT NULL        -- `codecs()` where these made what is sent or refused it, otherwise empty
) WITHOUT ROWID
"""
_FACTS = "digest, file, side, thumbnail, reason, kind"


@dataclass(frozen=True, slots=True)
class FileFacts:
    """The facts that reading a file gave.

    Attributes:
        digest: the SHA-256 (hex) of what is sent of it (see `Example.content`).
        file_digest: the SHA-256 (hex) of its bytes.
        side: the shorter side of its image in pixels.
        thumbnail: the image at THUMBNAIL x THUMBNAIL pixels, RGB.
        reason: why it is not an image that can be read, and then the rest is empty; otherwise empty.
        kind: what `reason` is counted under, where that tells more; otherwise empty.
        may_pass: whether `reason` is the system's, and no more true once the file may be read.
    """

    digest: str = ""
    file_digest: str = ""
    side: int = 0
    thumbnail: bytes = b""
    reason: str = ""
    kind: str = ""
    may_pass: bool = False


class _NotOurs(sqlite3.OperationalError):
    """The file is another program's."""


class FileMemory:
    """The facts of files, in a SQLite file: if it is deleted or damaged, nothing is lost but time."""

    def __init__(self, path: Path | None, say: Callable[[str], object] = lambda _: None) -> None:
        """Take up the memory, which is made when something is first remembered; `None` remembers nothing.

        A file of another program that has its name stays as it is, and nothing is remembered.

        Args:
            path: the file.
            say: told of a file of another program, whenever it is come upon.
        """
        self._path = path
        self._say = say

    def recall(self, files: Sequence[Path]) -> list[FileFacts | None]:
        """The facts of each file; `None` of those that are not known, or have changed since.

        What is sent of a file, where that is not the file itself, is known as long as the same versions of
        Pillow and its libraries encode it, and that it is no image as long as they read it.
        """
        if self._path is None or not is_there(self._path):
            return [None] * len(files)
        try:
            with self._opened() as memory:
                return [
                    facts
                    for start in range(0, len(files), _AT_ONCE)
                    for facts in self._recall(memory, files[start : start + _AT_ONCE])
                ]
        except (sqlite3.Error, OSError):
            return [None] * len(files)

    def remember(self, read: Mapping[Path, tuple[FileFacts, Stamp | None]]) -> None:
        """Keep what was just read of some files, with the stamp that it is true of, where there is one.

        What the disk has no room for is not kept.
        """
        if self._path is None or not read:
            return
        rows = []
        for path, (each, stamp) in read.items():
            if stamp is not None and each.kind != "HEIC" and not each.may_pass:
                told = (each.digest, each.file_digest, each.side, each.thumbnail, each.reason, each.kind)
                is_file = not each.reason and each.digest == each.file_digest
                encoder = "" if is_file else codecs()
                rows.append((_key(path), *stamp, *told, encoder))
        with suppress(sqlite3.Error, OSError), self._opened() as memory:
            memory.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def forget(self, images: Sequence[str]) -> None:
        """Delete what is known of images, by the SHA-256 (hex) of their files or of what is sent of them.

        The file is written anew, so that none of its bytes tell it any more.

        Raises:
            ClientError: it cannot be deleted.
        """
        if self._path is None or not is_there(self._path):
            return
        try:
            with self._opened() as memory:
                for start in range(0, len(images), _AT_ONCE):
                    some = images[start : start + _AT_ONCE]
                    marks = ", ".join(f"?{number}" for number in range(1, len(some) + 1))
                    memory.execute(
                        f"DELETE FROM files WHERE file IN ({marks}) OR digest IN ({marks})",  # noqa: S608
                        some,
                    )
                memory.commit()
                memory.execute("VACUUM")  # `secure_delete` leaves what SQLite has moved about before
        except _NotOurs:
            return
        except (sqlite3.Error, OSError) as error:
            if is_there(self._path):  # one that is damaged is gone
                raise unwritable(self._path, error) from error

    @staticmethod
    def _recall(memory: sqlite3.Connection, files: Sequence[Path]) -> list[FileFacts | None]:
        keys = [_key(path) for path in files]
        marks = ", ".join("?" * len(keys))
        query = (
            f"SELECT path, size, time, ctime, {_FACTS} FROM files "  # noqa: S608
            f"WHERE path IN ({marks}) AND encoder IN (?, '')"
        )
        known = {bytes(row[0]): row[1:] for row in memory.execute(query, [*keys, codecs()])}
        found: list[FileFacts | None] = []
        for path, key in zip(files, keys, strict=True):
            row = known.get(key)
            found.append(_facts(*row[3:]) if row is not None and row[:3] == stamp_of(path) else None)
        return found

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """The file; what is done in it is one step. One of ours that is damaged or of another version goes.

        Others of SQLite's errors say nothing of the file: the disk is full, or somebody else has it for long.
        """
        assert self._path is not None
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _require_ours(self._path)
            with closing(_connected(self._path)) as connection, connection:
                yield connection
        except _NotOurs:
            self._say(
                f"{self._path} was not made by Tuition. It stays as it is, and what is known of image files "
                "is not remembered: every command reads them all. Move it away, or name another --cache."
            )
            raise
        except sqlite3.DatabaseError as error:
            if type(error) is sqlite3.DatabaseError:
                self._path.unlink(missing_ok=True)
            raise


def read_stamped(path: Path, read: Callable[[Path], FileFacts]) -> tuple[FileFacts, Stamp | None]:
    """The facts of a file, and its stamp; `None` where that may be of other bytes than were read.

    What unpacks an archive meanwhile writes a file, and then gives it an old time.
    """
    stamp, now = stamp_of(path), time.time_ns()
    facts = read(path)
    is_settled = stamp is not None and stamp[1] < now - _SETTLED_AFTER_NS
    return facts, stamp if is_settled and stamp == stamp_of(path) else None


def _require_ours(path: Path) -> None:
    """Refuse a file that is neither marked as ours nor empty.

    It is looked at without SQLite, which writes to a file that its own program has left in the middle.
    """
    try:
        with path.open("rb") as file:
            header = file.read(_MARK_AT.stop)
    except FileNotFoundError:
        return
    is_ours = header.startswith(_MAGIC) and header[_MARK_AT] == _APPLICATION.to_bytes(4, "big")
    if header and not is_ours:
        raise _NotOurs


def _connected(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    connection = sqlite3.connect(path, timeout=60)
    try:
        connection.execute("PRAGMA synchronous = OFF")
        with connection:
            _prepare(connection)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _prepare(memory: sqlite3.Connection) -> None:
    """Make the table, which two commands may find missing at once."""
    memory.execute("BEGIN IMMEDIATE")
    (application,) = memory.execute("PRAGMA application_id").fetchone()
    (version,) = memory.execute("PRAGMA user_version").fetchone()
    programs = memory.execute("SELECT 1 FROM sqlite_master WHERE type IN ('view', 'trigger')").fetchone()
    if (application, version, programs) == (_APPLICATION, _VERSION, None):
        return  # on a full disk, nothing is written for what is only to be read
    if application == _APPLICATION:
        raise sqlite3.DatabaseError("of another version")
    if application or version or memory.execute("SELECT 1 FROM sqlite_master").fetchone():
        raise _NotOurs  # another program has begun it a moment ago
    memory.execute(_SCHEMA)
    memory.execute(f"PRAGMA application_id = {_APPLICATION}")
    memory.execute(f"PRAGMA user_version = {_VERSION}")


def _facts(digest: str, file_digest: str, side: int, thumbnail: bytes, reason: str, kind: str) -> FileFacts:
    """The facts in a row; equal digests are one string, because there are very many."""
    return FileFacts(digest, digest if file_digest == digest else file_digest, side, thumbnail, reason, kind)


def _key(path: Path) -> bytes:
    return os.fsencode(path.absolute())
