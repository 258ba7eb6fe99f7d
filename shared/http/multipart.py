"""`multipart/form-data` as it streams in: image files and texts, in order, each limit enforced at once.

Only delimiters are looked for in what comes, by searches in C: no content makes a step of Python's a byte.
"""

import codecs
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from python_multipart.multipart import parse_options_header

from shared.embeddings import Kind
from shared.errors import APIError, ErrorCode
from shared.http.errors import invalid

MEDIA_TYPE = "multipart/form-data"
_Where = Literal["before", "line", "head", "content", "after"]

_LONGEST_CONTENT_TYPE = 512  # bytes of the header, with the boundary
_LONGEST_BOUNDARY = 70  # characters, by RFC 2046
_LONGEST_PADDING = 64  # spaces behind a boundary
_LONGEST_HEAD = 4096  # bytes of all headers of a part
_MOST_HEADERS = 16  # of a part
_MOST_PARAMETERS = 8  # of one header
_LONGEST_FIELD = 1024  # bytes of a field that is no text
_MOST_AROUND = 1024  # bytes before the first part, and after the last
_LARGEST_CHARACTER = 4  # bytes
_LONGEST_NAME = 255  # characters of a file's name


@dataclass(frozen=True)
class FormShape:
    """The limits of a form: up to `max_inputs` images or texts, and each of `fields` once.

    A text may have `longest_text` characters; `None` is for a form that takes images alone. A file named
    `streamed`, of any length, is handed on as it comes; among the fields is then its name.
    What nobody looks up again need not be hashed, which takes as long as all else.
    """

    fields: frozenset[str]
    max_inputs: int
    longest_text: int | None = None
    streamed: str | None = None
    is_hashed: bool = True


class Part(NamedTuple):
    """An input of a form: the bytes of an image file, under the file's name, or a text."""

    kind: Kind
    content: bytes | str
    name: str = ""


@dataclass(frozen=True)
class Form:
    """A form that was read: its inputs, in order, and its other fields, unchecked.

    The hash is of its parts, since a retry of the same parts has another boundary.
    """

    items: list[Part]
    fields: dict[str, str]
    body_hash: str


class FormBody:
    """Takes a form of this shape block by block; `sink` takes the content of the file that is streamed."""

    def __init__(
        self, content_type: str, shape: FormShape, sink: Callable[[bytes], object] = lambda _: None
    ) -> None:
        self._sink = sink
        self._delimiter = b"\r\n--" + _boundary(content_type)
        self._parts = _Parts(shape)
        # The first delimiter need not have a line before it; with one, all of them are alike.
        self._buffer = bytearray(b"\r\n")
        self._searched = 0
        self._where: _Where = "before"

    def feed(self, block: bytes) -> None:
        """Take the next bytes.

        Raises:
            APIError: `invalid_request` or `too_many_inputs`.
        """
        self._buffer += block
        while self._step():
            pass

    def finish(self) -> Form:
        """The form that was read.

        Raises:
            APIError: `invalid_request`, if it is cut off.
        """
        if self._where != "after":
            raise _unreadable("it is cut off: its last boundary is missing")
        return Form(self._parts.items, self._parts.fields, self._parts.hash.hexdigest())

    def _step(self) -> bool:
        if self._where == "after":
            return self._pass_over()
        if self._where == "line":
            return self._end_line()
        if self._where == "head":
            return self._end_head()
        return self._end_content()

    def _end_content(self) -> bool:
        found = self._find(self._delimiter)
        if found < 0:
            if self._where == "before" and len(self._buffer) > _MOST_AROUND:
                raise _unreadable("it does not begin with its boundary")
            if self._where == "content" and len(self._buffer) > self._parts.longest_content:
                raise invalid("this is too long", self._parts.name)
            if self._where == "content" and self._parts.is_streamed:
                self._sink(self._cut(max(0, len(self._buffer) - len(self._delimiter) + 1)))
            return False
        if self._where == "content" and self._parts.is_streamed:
            self._sink(self._cut(found))
        elif self._where == "content":
            self._parts.end(self._cut(found))
        else:
            self._cut(found)
        self._drop(len(self._delimiter))
        self._where = "line"
        return True

    def _end_line(self) -> bool:
        """Behind a delimiter: the end of its line, or of the form."""
        if len(self._buffer) < 2:
            return False
        if self._buffer.startswith(b"--"):
            self._drop(2)
            self._where = "after"
            return True
        found = self._find(b"\r\n", _LONGEST_PADDING)
        if found >= 0 and not self._buffer[:found].strip(b" \t"):
            self._drop(found)  # the line's end stays: it may be all there is of a head
            self._where = "head"
            return True
        if found >= 0 or len(self._buffer) > _LONGEST_PADDING:
            raise _unreadable("a line begins with its boundary and goes on")
        return False

    def _end_head(self) -> bool:
        found = self._find(b"\r\n\r\n", _LONGEST_HEAD)
        if found < 0:
            if len(self._buffer) > _LONGEST_HEAD:
                raise _unreadable(f"the headers of a part may have {_LONGEST_HEAD} bytes")
            return False
        self._parts.begin(self._cut(found))
        self._drop(4)
        self._where = "content"
        return True

    def _pass_over(self) -> bool:
        if len(self._buffer) > _MOST_AROUND:
            raise _unreadable(f"it goes on for more than {_MOST_AROUND} bytes after its end")
        return False

    def _find(self, what: bytes, within: int | None = None) -> int:
        """Where it is, or -1; what was searched is not searched again."""
        end = len(self._buffer) if within is None else within + len(what)
        found = self._buffer.find(what, self._searched, end)
        self._searched = 0 if found >= 0 else max(0, len(self._buffer) - len(what) + 1)
        return found

    def _cut(self, end: int) -> bytes:
        with memoryview(self._buffer) as view:
            content = bytes(view[:end])
        self._drop(end)
        return content

    def _drop(self, count: int) -> None:
        del self._buffer[:count]
        self._searched = 0


@dataclass
class _Parts:
    """Makes inputs and fields of parts."""

    shape: FormShape
    items: list[Part] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)
    hash: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    name: str = ""
    file: str = ""

    @property
    def is_streamed(self) -> bool:
        """Whether the part that has begun is handed on as it comes."""
        return self.name == self.shape.streamed

    @property
    def longest_content(self) -> float:
        """How long the content of the part that has begun may be."""
        return _LONGEST_FIELD if self.name in self.shape.fields else float("inf")

    def begin(self, head: bytes) -> None:
        """A part begins: refuse now what it could not end as."""
        options = _disposition(head)
        self.name = options.get(b"name", b"").decode("latin-1")
        self.file = options.get(b"filename", b"").decode(errors="replace")[:_LONGEST_NAME]
        is_text = self.name == "text" and self.shape.longest_text is not None
        if is_text or (self.name == "image" and b"filename" in options):
            if len(self.items) == self.shape.max_inputs:
                message = f"a request may have {self.shape.max_inputs} inputs"
                raise APIError(ErrorCode.TOO_MANY_INPUTS, message, param="inputs")
        elif self.is_streamed and self.name not in self.fields:
            self.fields[self.name] = self.file
        elif self.name not in self.shape.fields or self.name in self.fields:
            texts = "" if self.shape.longest_text is None else ", texts as text"
            wanted = f"each image as a file named image{texts}"
            if self.shape.streamed is not None:
                wanted = f"one file named {self.shape.streamed}"
            raise invalid(f"send {wanted}, and any other field once", self.name)

    def end(self, content: bytes) -> None:
        """A part ends."""
        if self.name == "image":
            self.items.append(Part("image", content, self.file))
        elif self.name == "text" and self.shape.longest_text is not None:
            self.items.append(Part("text", self._text(content, self.shape.longest_text)))
        elif len(content) > _LONGEST_FIELD:
            raise invalid("this is too long", self.name)
        else:
            self.fields[self.name] = _decoded(content, self.name)
        if self.shape.is_hashed:
            self.hash.update(f"{len(self.name)} {self.name} {len(content)} ".encode())
            self.hash.update(content)

    def _text(self, content: bytes, longest: int) -> str:
        # Of one that is too long in any case no more than one character too many is kept.
        most = longest + 1
        kept = content[: _LARGEST_CHARACTER * most]
        return _decoded(kept, self.name, cut=len(kept) < len(content))[:most]


def _boundary(content_type: str) -> bytes:
    if len(content_type) > _LONGEST_CONTENT_TYPE:
        message = f"this header may have {_LONGEST_CONTENT_TYPE} bytes in a form"
        raise invalid(message, "content-type")
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not 1 <= len(boundary) <= _LONGEST_BOUNDARY:
        message = "multipart/form-data needs a boundary of up to 70 characters in its content-type"
        raise invalid(message, "content-type")
    return boundary


def _disposition(head: bytes) -> dict[bytes, bytes]:
    """The parameters of the header that says which field a part is."""
    if b"\0" in head:  # PostgreSQL takes no name with it
        raise _unreadable("a header of a part has the character NUL")
    lines = head.split(b"\r\n")[1:]
    if len(lines) > _MOST_HEADERS:
        raise _unreadable(f"a part may have {_MOST_HEADERS} headers")
    options: dict[bytes, bytes] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            raise _unreadable("a header of a part has no colon")
        if name.strip().lower() == b"content-disposition":
            if value.count(b";") > _MOST_PARAMETERS:
                raise _unreadable("a header of a part has too many parameters")
            options = parse_options_header(value.strip())[1]
    return options


def _decoded(content: bytes, name: str, *, cut: bool = False) -> str:
    """Its text; where it is `cut` off, the last character may be so as well."""
    try:
        return codecs.utf_8_decode(content, "strict", not cut)[0]
    except UnicodeDecodeError as error:
        raise invalid(f"{name} is not UTF-8", name) from error


def _unreadable(why: str) -> APIError:
    return invalid(f"the form cannot be read: {why}")
