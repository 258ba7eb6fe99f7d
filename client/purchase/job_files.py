"""The files of bulk jobs: which queries one has, and what is set aside for them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from client.cache.bulk_notes import BulkNote
from client.errors import unwritable
from client.purchase.budget import NOTHING, Budget, price
from client.vendors.bulk_lines import size_of, write_line
from client.vendors.query import Query
from shared.embeddings import ModelCard

# A line is one request, of so many queries and bytes; a job is of so many queries and bytes.
_LINE_QUERIES, _LINE_BYTES = 16, 2 << 20
_JOB_QUERIES, _JOB_BYTES = 20_000, 1 << 30
_OVERHEAD = 1024  # bytes of a line beside its inputs, generously


@contextmanager
def on_disk(path: Path) -> Iterator[None]:
    """Where something is written to a path.

    Raises:
        ClientError: the disk is full, or cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error


@contextmanager
def file_beside(cache: Path) -> Iterator[BinaryIO]:
    """A file for a job, on the disk of the cache; raises as `on_disk` does.

    It is full of images and has no name: nothing of it is left where the client is killed.
    """
    with on_disk(cache.parent):
        file = TemporaryFile(dir=cache.parent)  # noqa: SIM115 (closed below)
    try:
        yield file
    finally:
        with suppress(OSError):  # what could not be written was told when it was
            file.close()


class JobFiles:
    """Writes the files of one buyer's jobs, one after the other."""

    def __init__(self, model: ModelCard, budget: Budget, refused: dict[Query, str]) -> None:
        """Write nothing yet.

        Args:
            model: the model, at the prices of bulk jobs.
            budget: for what they may be.
            refused: where to note what cannot be sent, and why.
        """
        self._model = model
        self._budget = budget
        self._refused = refused
        self._reserved = NOTHING

    def write(self, to: BinaryIO, missing: Sequence[Query]) -> tuple[tuple[Query, ...], ...]:
        """Write as many of these as fit and the budget reaches, and set them aside; those of each line.

        Raises:
            OSError: the disk is full, or cannot be written.
        """
        lines: list[tuple[Query, ...]] = []
        line: list[tuple[Query, bytes]] = []
        room, queries = self._room, 0

        def end_line() -> None:
            if line:
                write_line(to, len(lines), line, self._model.id)
                lines.append(tuple(query for query, _ in line))
                line.clear()

        for query in missing:
            content = self._read(query)
            if content is None:
                continue
            if queries == _JOB_QUERIES or to.tell() > _JOB_BYTES or not self._reserve(query):
                break
            size = size_of(query, content)
            if len(line) == min(_LINE_QUERIES, self._model.limits.max_inputs) or size > room:
                end_line()
                room = self._room
            line.append((query, content))
            room -= size
            queries += 1
        end_line()
        to.flush()
        return tuple(lines)

    def write_again(self, to: BinaryIO, note: BulkNote, at_hand: Mapping[Query, Query]) -> bool:
        """Write the file of a noted job once more, if all that is in it is what it was."""
        try:
            for place, line in enumerate(note.lines):
                asked = [(query, at_hand.get(query, query).content()) for query in line]
                write_line(to, place, asked, self._model.id)
            to.flush()
        except (OSError, ValueError):
            return False
        return True

    def release(self) -> None:
        """Set nothing aside any more: what was written is paid for, or was not sent."""
        self._budget.settle(self._reserved, paid=NOTHING)
        self._reserved = NOTHING

    @property
    def _room(self) -> int:
        return min(self._model.limits.max_request_bytes, _LINE_BYTES) - _OVERHEAD

    def _reserve(self, query: Query) -> bool:
        cost = price([query], self._model.prices)
        if not self._budget.reserve(cost):
            return False
        self._reserved += cost
        return True

    def _read(self, query: Query) -> bytes | None:
        """A query's bytes; `None`, and a reason where they cannot be sent."""
        limits = self._model.limits
        try:
            content = query.sendable(limits.max_image_bytes)
        except (OSError, ValueError) as error:
            self._refused[query] = str(error)
            return None
        if size_of(query, content) > limits.max_request_bytes - _OVERHEAD:
            self._refused[query] = "larger than a request to the vendor may be"
            return None
        return content
