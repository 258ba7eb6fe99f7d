"""The intake of a file: its lines checked as they come, and put together in pieces to be worked on."""

import hashlib
import re
import sys
from collections import Counter
from dataclasses import dataclass, field

from shared.errors import APIError, ErrorCode
from shared.http.errors import invalid
from shared.kinds import NOTHING, Kind, queries
from vendor_service.batches.limits import BatchLimits
from vendor_service.batches.lines import Line, LineReader, LineRefused

# A piece is of so many queries and bytes, or of one line: what one process works on at a time, and what is
# lost of its work if it is killed. Lines that cannot be asked have no queries, and are bounded by themselves.
_PIECE_QUERIES = 64
_PIECE_BYTES = 4 << 20
_PIECE_FAULTS = 500
_LONGEST_MODEL = 255
# A reason is kept in the books for each line that cannot be asked: so many bytes of it, and of the name of
# the field that it is about, which may be a name of the caller's.
_REASON_BYTES, _FIELD_BYTES = 120, 40
# What is kept of a piece, and of a fault without its texts.
_KEPT_OF_PIECE, _KEPT_OF_FAULT = 500, 200


@dataclass
class Fault:
    """Why a line cannot be asked."""

    custom_id: str | None
    code: str
    message: str


@dataclass
class Piece:
    """Some whole lines: which bytes and lines of the file, what they ask, and which cannot be asked."""

    first_byte: int
    first_line: int
    bytes: int = 0
    lines: int = 0
    counts: Counter[Kind] = field(default_factory=Counter)
    faults: dict[int, Fault] = field(default_factory=dict)  # by their place in the piece


@dataclass(frozen=True)
class Taken:
    """A file that can be worked on: for which endpoint and model its lines are, and its pieces.

    `digest` is the SHA-256 of the file, hex.
    """

    digest: str
    bytes: int
    endpoint: str
    model: str | None
    pieces: list[Piece]


class Intake:
    """Takes the bytes of a file block by block. What it keeps of it is one line and what pieces there are."""

    def __init__(self, reader: LineReader, limits: BatchLimits) -> None:
        self._reader = reader
        self._limits = limits
        # All that follow each other at once: a file may have billions of blank lines, and none counts.
        spaces = min(limits.max_line_bytes, _PIECE_BYTES) - 1
        self._blanks = re.compile(rb"(?:[ \t\r\v\f]{0,%d}+\n)++" % spaces)
        self._digest = hashlib.sha256()
        self._buffer = bytearray()
        self._searched = 0
        self._size = 0
        self._kept = _KEPT_OF_PIECE
        self._line = 0
        self._pieces = [Piece(0, 0)]
        self._names: set[bytes] = set()
        self._first: Line | None = None

    @property
    def kept_bytes(self) -> int:
        """How many bytes are in memory: of a line, and of what is known of those before it."""
        return len(self._buffer) + self._kept + sys.getsizeof(self._names)

    def feed(self, block: bytes) -> None:
        """Take the next bytes.

        Raises:
            APIError: the file or a line is too large, or there are too many lines.
        """
        self._digest.update(block)
        self._size += len(block)
        if self._size > self._limits.max_file_bytes:
            message = f"a file may have {self._limits.max_file_bytes} bytes"
            raise APIError(ErrorCode.REQUEST_TOO_LARGE, message, param="file")
        self._buffer += block
        start = 0
        while (end := self._buffer.find(b"\n", max(start, self._searched))) >= 0:
            if blanks := self._blanks.match(self._buffer, start):
                self._pass_over(blanks.end() - start)
                start = blanks.end()
            else:
                self._take(bytes(self._buffer[start : end + 1]))
                start = end + 1
        del self._buffer[:start]
        self._searched = len(self._buffer)
        if len(self._buffer) > self._limits.max_line_bytes:
            raise self._too_long()

    def finish(self) -> Taken:
        """The end of the file.

        Raises:
            APIError: the last line is too long, or there is no line that can be asked.
        """
        if self._buffer:
            self._take(bytes(self._buffer))
            self._buffer.clear()
        if self._first is None:
            raise self._worthless()
        pieces = [each for each in self._pieces if each.lines]
        endpoint, model = self._first.endpoint, self._first.queries.model
        return Taken(self._digest.hexdigest(), self._size, endpoint, model, pieces)

    def _take(self, line: bytes) -> None:
        if len(line) > self._limits.max_line_bytes:
            raise self._too_long()
        if not line.strip():
            self._pass_over(len(line))
            return
        if self._line == self._limits.max_lines:
            message = f"a file may have {self._limits.max_lines} lines"
            raise APIError(ErrorCode.REQUEST_TOO_LARGE, message, param="file")
        self._add(line, self._read(line))
        self._line += 1

    def _read(self, line: bytes) -> Line | Fault:
        try:
            read = self._reader.read(line)
        except LineRefused as refused:
            return Fault(refused.custom_id, refused.error.code, _reason(refused.error))
        try:
            return self._checked(read)
        except APIError as error:
            return Fault(read.custom_id, error.code, _reason(error))

    def _pass_over(self, size: int) -> None:
        """Pass over blank lines; a piece is read whole, so that these make none larger than it may be."""
        piece = self._pieces[-1]
        if piece.lines and piece.bytes + size > _PIECE_BYTES:
            piece = self._begin_piece()
        if piece.lines:
            piece.bytes += size
        else:
            piece.first_byte += size

    def _begin_piece(self) -> Piece:
        last = self._pieces[-1]
        self._pieces.append(Piece(last.first_byte + last.bytes, self._line))
        self._kept += _KEPT_OF_PIECE
        return self._pieces[-1]

    def _checked(self, line: Line) -> Line:
        name = hashlib.sha256(line.custom_id.encode(errors="surrogatepass")).digest()[:16]
        if name in self._names:
            raise invalid("another line of this file has this custom_id", "custom_id")
        self._names.add(name)
        self._kept += sys.getsizeof(name)
        model = line.queries.model or ""
        if len(model) > _LONGEST_MODEL or "\0" in model:  # which the books cannot keep
            message = f"the name of a model has up to {_LONGEST_MODEL} characters, none of them NUL"
            raise invalid(message, "body.model")
        first = self._first = self._first or line
        if line.endpoint != first.endpoint:
            raise invalid(
                f"all lines of a file are for one endpoint; the first is for {first.endpoint}", "url"
            )
        if line.queries.model != first.queries.model:
            raise invalid("all lines of a file are for one model, that of the first one", "body.model")
        return line

    def _add(self, line: bytes, read: Line | Fault) -> None:
        piece = self._pieces[-1]
        asked = NOTHING if isinstance(read, Fault) else read.queries.counts
        too_many = queries(piece.counts) + queries(asked) > _PIECE_QUERIES
        is_full = too_many or piece.bytes + len(line) > _PIECE_BYTES
        if piece.lines and (is_full or len(piece.faults) == _PIECE_FAULTS):
            piece = self._begin_piece()
        if isinstance(read, Fault):
            self._kept += _KEPT_OF_FAULT + sys.getsizeof(read.message) + sys.getsizeof(read.custom_id)
            piece.faults[piece.lines] = read
        piece.bytes += len(line)
        piece.lines += 1
        piece.counts.update(asked)

    def _too_long(self) -> APIError:
        message = f"line {self._line + 1} is longer than {self._limits.max_line_bytes} bytes"
        return APIError(ErrorCode.REQUEST_TOO_LARGE, message, param="file")

    def _worthless(self) -> APIError:
        faults = [fault for piece in self._pieces for fault in piece.faults.values()]
        if not faults:
            return APIError(ErrorCode.EMPTY_INPUT, "the file has no lines", param="file")
        return invalid(f"no line of this file can be asked; the first one: {faults[0].message}", "file")


def _reason(error: APIError) -> str:
    if error.param is None:
        return _cut(error.message, _REASON_BYTES)
    return _cut(f"{_cut(error.param, _FIELD_BYTES)}: {error.message}", _REASON_BYTES)


def _cut(text: str, most: int) -> str:
    """The beginning of a text, of at most `most` bytes."""
    return text.encode(errors="replace")[:most].decode(errors="ignore")
