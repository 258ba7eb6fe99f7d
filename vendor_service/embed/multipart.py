"""`multipart/form-data` as it streams in: image files and texts, in order, each limit enforced at once."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from shared.errors import ErrorCode
from vendor_service.encoder.queries import ImageQuery, Query, TextQuery
from vendor_service.errors import Refusal

MEDIA_TYPE = "multipart/form-data"


@dataclass(frozen=True)
class Form:
    """A form that was read: the queries of its parts, in order, and its other fields, unchecked."""

    items: list[Query]
    fields: dict[str, str]
    body_hash: str


async def read_form(content_type: str, body: AsyncIterator[bytes], max_inputs: int) -> Form:
    """Read a form; the hash is of its parts, since a retry of the same parts has another boundary.

    Raises:
        Refusal: `invalid_request` or `too_many_inputs`.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        message = "multipart/form-data needs a boundary in its content-type"
        raise Refusal(ErrorCode.INVALID_REQUEST, message, param="content-type")
    reader = _Reader(max_inputs)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": reader.begin_part,
                "on_header_begin": reader.begin_header,
                "on_header_field": reader.add_header_name,
                "on_header_value": reader.add_header_value,
                "on_header_end": reader.end_header,
                "on_part_data": reader.add_content,
                "on_part_end": reader.end_part,
                "on_end": reader.end,
            },
        )
        async for chunk in body:
            parser.write(chunk)
    except FormParserError as error:
        raise Refusal(ErrorCode.INVALID_REQUEST, f"the form cannot be read: {error}") from error
    if not reader.ended:
        raise Refusal(ErrorCode.INVALID_REQUEST, "the form is cut off: its last boundary is missing")
    return Form(reader.items, reader.fields, reader.hash.hexdigest())


@dataclass
class _Reader:
    """Takes what the parser finds, piece by piece, into queries and fields."""

    max_inputs: int
    items: list[Query] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)
    hash: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    ended: bool = False
    _name: bytes = b""
    _value: bytes = b""
    _disposition: bytes = b""
    _content: bytearray = field(default_factory=bytearray)

    def begin_part(self) -> None:
        self._disposition, self._content = b"", bytearray()

    def begin_header(self) -> None:
        self._name = self._value = b""

    def add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def end_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value

    def add_content(self, data: bytes, start: int, end: int) -> None:
        self._content += memoryview(data)[start:end]

    def end_part(self) -> None:
        options = parse_options_header(self._disposition)[1]
        name, content = options.get(b"name", b"").decode("latin-1"), bytes(self._content)
        if name == "image" and b"filename" in options:
            self._add_query(ImageQuery(content))
        elif name == "text":
            self._add_query(TextQuery(_text(content, name)))
        elif name and name != "image" and name not in self.fields:
            self.fields[name] = _text(content, name)
        else:
            message = "send each image as a file named image, texts as text, and any other field once"
            raise Refusal(ErrorCode.INVALID_REQUEST, message, param=name or None)
        self.hash.update(f"{len(name)} {name} {len(content)} ".encode())
        self.hash.update(content)

    def end(self) -> None:
        self.ended = True

    def _add_query(self, query: Query) -> None:
        if len(self.items) == self.max_inputs:
            message = f"a request may have {self.max_inputs} inputs"
            raise Refusal(ErrorCode.TOO_MANY_INPUTS, message, param="inputs")
        self.items.append(query)


def _text(content: bytes, name: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise Refusal(ErrorCode.INVALID_REQUEST, f"{name} is not UTF-8", param=name) from error
