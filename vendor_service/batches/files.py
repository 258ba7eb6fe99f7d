"""The files of customers: sent in, listed, read and deleted. What is in them lies in the store."""

import json
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import delete, func, insert, select, tuple_
from sqlalchemy.orm import Session

from shared.batches import FileObject
from shared.errors import ErrorCode
from vendor_service.batches.intake import Piece, Taken
from vendor_service.batches.limits import BatchLimits
from vendor_service.batches.store import Store
from vendor_service.clock import SECOND, Clock
from vendor_service.database.session import Database
from vendor_service.database.tables import Account, BatchChunk, BatchJob, FilePiece, StoredFile
from vendor_service.database.view import View
from vendor_service.errors import APIError

_Piece = TypeVar("_Piece")

_BLOCK_BYTES = 1 << 20
_MOST_FILES = 1000
# So many of its pieces are written or deleted in one transaction, and fewer where they keep more bytes of
# faults than this: it holds up others for a moment only.
_PIECES_AT_ONCE = 1000
_FAULT_BYTES_AT_ONCE = 1 << 18
_EXPIRED_AT_ONCE = 100
# A file that comes without its size takes room in steps of so many bytes.
_STEP_BYTES = 64 << 20
# An error file has so many times as many bytes as the books keep of the faults in it, or somewhat fewer.
_ERRORS_OF_FAULTS = 4
# A file that comes for longer than this comes no more.
_LONGEST_COMING = 2 * 3600 * SECOND


class FilePart(NamedTuple):
    """A piece of what is in a file: where in the store, and of how many bytes."""

    name: str
    bytes: int


class Files:
    """All files. Its methods block; they raise `APIError` where database or store is away. Thread-safe."""

    def __init__(self, database: Database, store: Store, clock: Clock, limits: BatchLimits) -> None:
        self._database = database
        self._clock = clock
        self._limits = limits
        self.store = store

    def begin(self, account_id: str, project_id: str, size: int) -> str:
        """Note that a file of at least that size is coming; the id that it will have.

        Raises:
            APIError: the account has no room for it.
        """
        file_id, now = f"file-{secrets.token_hex(12)}", self._clock()
        with self._database.write() as session:
            session.get_one(Account, account_id, with_for_update=True)
            _check_count(session, View(account_id, project_id))
            check_room(session, account_id, self._limits, size)
            session.add(
                StoredFile(
                    id=file_id,
                    account_id=account_id,
                    project_id=project_id,
                    purpose="batch",
                    name="",
                    state="coming",
                    created_at=now,
                    expires_at=now + self._limits.keep_micros,
                    bytes=size,
                )
            )
        return file_id

    def grow(self, account_id: str, file_id: str, size: int) -> int:
        """Note how many bytes of a file have come; how many may come before the next note.

        Raises:
            APIError: the account has no room for it; or it came for so long that it was given up.
        """
        with self._database.write() as session:
            session.get_one(Account, account_id, with_for_update=True)
            file = _coming(session, file_id)
            left = check_room(session, account_id, self._limits, size - file.bytes)
            file.bytes = size + min(left, _STEP_BYTES)
            return file.bytes

    def finish(self, account_id: str, file_id: str, name: str, taken: Taken) -> FileObject:
        """Note that all of a file is in the store.

        Raises:
            APIError: the account has no room for it; or it came for so long that it was given up.
        """
        slices = _slices((_row(file_id, *each) for each in enumerate(taken.pieces)), _fault_bytes)
        rows = next(slices)
        for following in slices:
            # They are nobody's yet, and go with the rest of a file that never is ready.
            with self._database.write() as session:
                self._add_pieces(session, account_id, file_id, taken.bytes, rows)
            rows = following
        with self._database.write() as session:
            file = self._add_pieces(session, account_id, file_id, taken.bytes, rows)
            file.name, file.state = name, "ready"
            file.digest, file.endpoint, file.model = taken.digest, taken.endpoint, taken.model
            file.lines = sum(each.lines for each in taken.pieces)
            file.counts = sum((each.counts for each in taken.pieces), Counter())
            return public(file)

    def get(self, view: View, file_id: str) -> StoredFile:
        """A file in view.

        Raises:
            APIError: `not_found`.
        """
        with self._database.read() as session:
            return find(session, view, file_id)

    def page(
        self, view: View, purpose: str | None, after: str | None, limit: int, *, newest_first: bool
    ) -> tuple[list[FileObject], bool]:
        """Up to `limit` files in view behind the file `after`, and whether there are more.

        Raises:
            APIError: `not_found`; there is no file `after`.
        """
        order = (StoredFile.created_at, StoredFile.id)
        with self._database.read() as session:
            found = select(StoredFile).where(view.rows(StoredFile), StoredFile.state == "ready")
            if purpose is not None:
                found = found.where(StoredFile.purpose == purpose)
            if after is not None:
                last = find(session, view, after)
                at = tuple_(StoredFile.created_at, StoredFile.id)
                here = tuple_(last.created_at, last.id)
                found = found.where(at < here if newest_first else at > here)
            found = found.order_by(*((each.desc() for each in order) if newest_first else order))
            files = session.scalars(found.limit(limit + 1)).all()
        return [public(each) for each in files[:limit]], len(files) > limit

    def content(self, view: View, file_id: str) -> Iterator[bytes]:
        """Read a file, block by block.

        Raises:
            APIError: `not_found`.
        """
        with self._database.read() as session:
            parts = _parts(session, find(session, view, file_id))
        return self._blocks(parts)

    def _blocks(self, parts: list[FilePart]) -> Iterator[bytes]:
        for part in parts:
            for start in range(0, part.bytes, _BLOCK_BYTES):
                yield self.store.read(part.name, start, min(_BLOCK_BYTES, part.bytes - start))

    def let_go(self, view: View, file_id: str) -> None:
        """Take a file in view out of its owner's sight; then `remove` it.

        Raises:
            APIError: `not_found`; or a job that is in progress needs it (`conflict`).
        """
        with self._database.write() as session:
            session.get_one(Account, view.account_id, with_for_update=True)
            file = find(session, view, file_id)
            if _is_needed(session, file_id):
                message = "a job that is in progress reads this file; cancel it first"
                raise APIError(ErrorCode.CONFLICT, message, param="file_id")
            file.state = "leaving"

    def give_up(self, file_id: str) -> None:
        """Delete what has come of a file that does not come whole."""
        with self._database.write() as session:
            file = session.get(StoredFile, file_id)
            if file is not None and file.state == "coming":
                file.state = "leaving"
        self.remove(file_id)

    def expired(self) -> list[str]:
        """Some files to be deleted: kept for long enough, begun to be deleted, or never finished."""
        now = self._clock()
        old = select(StoredFile).where(
            (StoredFile.expires_at <= now)
            | (StoredFile.state == "leaving")
            | ((StoredFile.state == "coming") & (StoredFile.created_at <= now - _LONGEST_COMING))
        )
        with self._database.read() as session:  # most of the time there is nothing, and nothing to lock
            if session.scalars(old.limit(1)).first() is None:
                return []
        with self._database.write() as session:
            # One that is locked is being finished, or a job begins on it: it is looked at the next time.
            # Some that cannot be deleted now do not stand before all others for ever.
            some = old.order_by(func.random()).limit(_EXPIRED_AT_ONCE)
            free = session.scalars(some.with_for_update(skip_locked=True)).all()
            files = [each for each in free if not _is_needed(session, each.id)]
            for each in files:
                each.state = "leaving"
            return [each.id for each in files]

    def remove_expired(self) -> None:
        """Delete the files that are to go by now; one that cannot be deleted keeps no other from it.

        Raises:
            Exception: the last reason why one could not.
        """
        failed: Exception | None = None
        for each in self.expired():
            try:
                self.remove(each)
            except Exception as error:
                failed = error
        if failed is not None:
            raise failed

    def remove(self, file_id: str) -> None:
        """Delete a file that is leaving: what is in it, then what is known of it."""
        with self._database.read() as session:
            file = session.get(StoredFile, file_id)
            if file is None or file.state != "leaving":
                return
            others = select(StoredFile.id).where(
                StoredFile.batch_id == file.batch_id, StoredFile.id != file_id
            )
            is_last = session.scalar(others.limit(1)) is None
            sizes = select(FilePiece.number, func.coalesce(func.length(FilePiece.faults), 0))
            mine = sizes.where(FilePiece.file_id == file_id).order_by(FilePiece.number)
            pieces = [(number, size) for number, size in session.execute(mine)]
        if file.batch_id is None:
            self.store.remove(input_name(file_id))
        elif is_last:
            self.store.remove_folder(job_folder(file.batch_id))
        else:
            for name in self.store.names(job_folder(file.batch_id)):
                if name.endswith(_ENDINGS[_kind(file)]):
                    self.store.remove(name)
        for some in _slices(pieces, lambda piece: piece[1]):
            numbers = FilePiece.number.between(some[0][0], some[-1][0])
            with self._database.write() as session:
                session.execute(delete(FilePiece).where(FilePiece.file_id == file_id, numbers))
        with self._database.write() as session:
            session.execute(delete(StoredFile).where(StoredFile.id == file_id))

    def _add_pieces(
        self, session: Session, account_id: str, file_id: str, size: int, rows: list[dict[str, Any]]
    ) -> StoredFile:
        """Write some pieces of a file down, and count what they and its `size` take of its account's room."""
        session.get_one(Account, account_id, with_for_update=True)
        file = _coming(session, file_id)
        faults = sum(map(_fault_bytes, rows))
        # While it came, it may have had more room than it needs.
        check_room(session, account_id, self._limits, size - file.bytes + faults)
        file.bytes = size
        file.fault_bytes += faults
        session.execute(insert(FilePiece), rows)
        return file


def check_room(session: Session, account_id: str, limits: BatchLimits, more: int) -> int:
    """How many bytes an account has left after some more bytes.

    What is answered is paid for, and refused lines are not. So the error files that jobs brought count, and
    those that jobs in progress are to bring.

    Raises:
        APIError: the account has no room for them.
    """
    sent = StoredFile.purpose == "batch"
    mine, counts = StoredFile.account_id == account_id, sent | StoredFile.name.endswith(_ENDINGS["errors"])
    size = session.scalar(select(func.sum(StoredFile.bytes + StoredFile.fault_bytes)).where(mine, counts))
    running = (BatchJob.input_file_id == StoredFile.id, BatchJob.state == "in_progress")
    faults = session.scalar(select(func.sum(StoredFile.fault_bytes)).where(mine, *running))
    size = int(size or 0) + errors_of(int(faults or 0))
    left = limits.account_bytes - size - more
    if left < 0:
        message = (
            f"an account may have {limits.account_bytes} bytes of files, with the error files of its jobs; "
            "delete some"
        )
        raise APIError(ErrorCode.REQUEST_TOO_LARGE, message, param="file")
    return left


def _check_count(session: Session, project: View) -> None:
    mine = select(func.count()).where(project.rows(StoredFile), StoredFile.purpose == "batch")
    if (session.scalar(mine) or 0) >= _MOST_FILES:
        message = f"a project may have {_MOST_FILES} files; delete some"
        raise APIError(ErrorCode.REQUEST_TOO_LARGE, message, param="file")


def errors_of(fault_bytes: int) -> int:
    """An estimate of the bytes of a job's error file, from the bytes of the faults in the books."""
    return _ERRORS_OF_FAULTS * fault_bytes


def find(session: Session, view: View, file_id: str, *, lock: bool = False) -> StoredFile:
    """A file in view that is there; with a `lock` it stays until this transaction has ended.

    Raises:
        APIError: `not_found`.
    """
    file = session.get(StoredFile, file_id, with_for_update=lock or None)
    if file is None or not view.has(file) or file.state != "ready":
        raise APIError(ErrorCode.NOT_FOUND, f"this account has no file {file_id[:64]!r}", param="file_id")
    return file


def public(file: StoredFile) -> FileObject:
    """A file as its owner sees it."""
    return FileObject(
        id=file.id,
        bytes=file.bytes,
        created_at=file.created_at // SECOND,
        expires_at=file.expires_at // SECOND,
        filename=file.name,
        purpose="batch" if file.purpose == "batch" else "batch_output",
    )


def input_name(file_id: str) -> str:
    """The name in the store of a file that was sent in."""
    return f"inputs/{file_id}"


def job_folder(batch_id: str) -> str:
    """The folder in the store of what a job brings."""
    return f"batches/{batch_id}"


def output_name(part: str) -> str:
    """The name in the store of the answers of a part."""
    return part + _ENDINGS["output"]


def errors_name(part: str) -> str:
    """The name in the store of the refusals of a part."""
    return part + _ENDINGS["errors"]


_ENDINGS = {"output": ".output.jsonl", "errors": ".errors.jsonl"}


def _kind(file: StoredFile) -> str:
    return "errors" if file.name.endswith(_ENDINGS["errors"].removeprefix(".")) else "output"


def _coming(session: Session, file_id: str) -> StoredFile:
    file = session.get(StoredFile, file_id, with_for_update=True)
    if file is None or file.state != "coming":
        raise APIError(ErrorCode.DEADLINE_EXCEEDED, "the file took too long to come", retry_after=1)
    return file


def _slices(pieces: Iterable[_Piece], fault_bytes: Callable[[_Piece], int]) -> Iterator[list[_Piece]]:
    """Pieces, as many at a time as are written or deleted in one transaction."""
    some: list[_Piece] = []
    faults = 0
    for piece in pieces:
        faults += fault_bytes(piece)
        if some and (len(some) == _PIECES_AT_ONCE or faults > _FAULT_BYTES_AT_ONCE):
            yield some
            some, faults = [], fault_bytes(piece)
        some.append(piece)
    if some:
        yield some


def _fault_bytes(row: Mapping[str, Any]) -> int:
    return len((row["faults"] or "").encode())


def _row(file_id: str, number: int, piece: Piece) -> dict[str, Any]:
    faults = {place: asdict(fault) for place, fault in piece.faults.items()}
    return {
        "file_id": file_id,
        "number": number,
        "first_byte": piece.first_byte,
        "bytes": piece.bytes,
        "first_line": piece.first_line,
        "lines": piece.lines,
        "counts": piece.counts,
        "faults": json.dumps(faults, ensure_ascii=False, separators=(",", ":")) if faults else None,
    }


def _parts(session: Session, file: StoredFile) -> list[FilePart]:
    if file.batch_id is None:
        return [FilePart(input_name(file.id), file.bytes)]
    size = BatchChunk.error_bytes if _kind(file) == "errors" else BatchChunk.output_bytes
    name = errors_name if _kind(file) == "errors" else output_name
    mine = (BatchChunk.batch_id == file.batch_id, size > 0)
    found = session.execute(select(BatchChunk.part, size).where(*mine).order_by(BatchChunk.number))
    return [FilePart(name(str(part)), count) for part, count in found]


def _is_needed(session: Session, file_id: str) -> bool:
    busy = (BatchJob.input_file_id == file_id, BatchJob.state == "in_progress")
    return session.scalar(select(BatchJob.id).where(*busy).limit(1)) is not None
