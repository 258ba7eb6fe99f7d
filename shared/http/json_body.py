"""A JSON request as it streams in, taken apart so that nothing of it can cost more than a few milliseconds.

Parsers hold Python's interpreter for as long as they parse, and what a small body becomes in memory may be a
hundred times as large. So long strings, which are images or long texts, are put aside as they come, and each
is decoded by itself. What remains is small, and its shape is checked before it is parsed.
"""

import hashlib
import re
import secrets
from dataclasses import dataclass, field

from pydantic_core import from_json

from shared.errors import APIError, ErrorCode
from shared.http.errors import invalid

_OPENING, _CLOSING, _COLON, _COMMA = b"[{", b"]}", b":"[0], b","[0]
_DEEPEST = 4  # a list of token ids, which is refused in words of its own, in the list of inputs of a request

_MARKS = re.compile(rb"[][{},:]")
_LONG_STRING = 1024  # bytes; a longer one is put aside
# What may lie between strings, spaces included: brackets, keys' colons, indentation.
_OUTSIDE_BYTES, _OUTSIDE_BYTES_AN_INPUT = 16_384, 128
_REST_BYTES, _REST_BYTES_AN_INPUT = 65_536, 2 * _LONG_STRING
_STRINGS, _STRINGS_AN_INPUT = 64, 4  # keys included
_ESCAPED_BYTES = 12  # of one character, at most: \ud83d\ude00
# What some encoders write for letters of base64. `\/` comes first: what `\\u002f` is must not become one.
_BASE64_ESCAPES = {
    rb"\/": b"/",
    rb"\u002f": b"/",
    rb"\u002F": b"/",
    rb"\u002b": b"+",
    rb"\u002B": b"+",
    rb"\u003d": b"=",
    rb"\u003D": b"=",
}


@dataclass(frozen=True)
class Shape:
    """The fields of a request and of an input; the field `items` may have up to `max_inputs` in a list."""

    fields: frozenset[str]
    item_fields: frozenset[str]
    items: str
    max_inputs: int


@dataclass
class _Level:
    """An object or a list that is open: what was met in it so far."""

    is_list: bool
    keys: set[str] = field(default_factory=set)
    key: str = ""
    commas: int = 0


class ShapeCheck:
    """Follows brackets, keys and commas; whether they are JSON at all is for a parser to say."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._levels: list[_Level] = []
        self._last = b""

    def string(self, content: bytes | None) -> None:
        """A string ended; `None` is one that is too long for anything but an input.

        Raises:
            APIError: `invalid_request`, where it cannot be one.
        """
        if content is None:
            level = self._levels[-1] if len(self._levels) == 1 else None
            if level is not None and level.key != self._shape.items:
                raise invalid("a string is too long here", level.key)
        self._last = b"" if content is None else content

    def mark(self, mark: int) -> None:
        """One of `[]{},:` outside of strings.

        Raises:
            APIError: `invalid_request` or `too_many_inputs`.
        """
        if mark in _OPENING:
            if len(self._levels) == _DEEPEST:
                raise invalid("the JSON is nested too deeply", *self._place()[:1])
            self._levels.append(_Level(is_list=mark == _OPENING[0]))
        elif not self._levels:
            return
        elif mark in _CLOSING:
            self._levels.pop()
        elif mark == _COMMA:
            self._count()
        elif not self._levels[-1].is_list:
            self._name()

    def _count(self) -> None:
        level = self._levels[-1]
        level.commas += 1
        if level.is_list and len(self._levels) == 2 and level.commas == self._shape.max_inputs:
            message = f"a request may have {self._shape.max_inputs} inputs"
            raise APIError(ErrorCode.TOO_MANY_INPUTS, message, param=self._shape.items)

    def _name(self) -> None:
        level, name = self._levels[-1], _text(self._last)
        known = self._shape.fields if len(self._levels) == 1 else self._shape.item_fields
        if name not in known:
            raise invalid("Extra inputs are not permitted", *self._place(), name)
        if name in level.keys:
            raise invalid("this is given twice", *self._place(), name)
        level.keys.add(name)
        level.key = name

    def _place(self) -> list[str | int]:
        """Where the innermost level is."""
        return [each.commas if each.is_list else each.key for each in self._levels[:-1]]


def _text(raw: bytes) -> str:
    if b"\\" in raw:
        try:
            return str(from_json(b'"' + raw + b'"'))
        except ValueError:
            pass
    return raw.decode(errors="replace")


class LongStrings:
    """The long strings of a body, put aside. A text may have `longest` characters."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._token = secrets.token_hex(16)  # nobody can write what stands for a string
        self._strings: list[bytearray] = []

    def put_aside(self, string: bytearray) -> bytes:
        """Keep a string; what stands for it meanwhile."""
        self._strings.append(string)
        return b"%s.%d" % (self._token.encode(), len(self._strings) - 1)

    def take(self, value: str) -> str:
        """The string that this stands for, once; or this, where it stands for nothing else.

        Of a text that is too long in any case no more than one character too many is kept.

        Raises:
            APIError: `invalid_request`, if it is not JSON.
        """
        token, _, number = value.partition(".")
        if token != self._token:
            return value
        place = int(number)
        string, self._strings[place] = self._strings[place], bytearray()
        if len(string) > _ESCAPED_BYTES * self._longest:
            # Too long for a text: it is base64 or nothing, so any other byte may become any other letter.
            written = bytes(string)  # which is copied only for what is found in it, unlike a bytearray
            for escape, letter in _BASE64_ESCAPES.items() if b"\\" in written else ():
                written = written.replace(escape, letter)
            return written.decode("latin-1")
        try:
            text = str(from_json(b'"' + string + b'"'))
        except ValueError as error:
            raise invalid(f"Invalid JSON: {error}") from error
        return text if text.isascii() else text[: self._longest + 1]


@dataclass(frozen=True)
class ReadJson:
    """A body that was read: what is left to be parsed, what was put aside, the hash of the whole."""

    rest: bytearray
    long: LongStrings
    body_hash: str


class JsonBody:
    """Takes a body block by block. A text may have `longest_text` characters."""

    def __init__(self, shape: Shape, longest_text: int) -> None:
        self._check = ShapeCheck(shape)
        self._most_outside = _OUTSIDE_BYTES + _OUTSIDE_BYTES_AN_INPUT * shape.max_inputs
        self._most_rest = _REST_BYTES + _REST_BYTES_AN_INPUT * shape.max_inputs
        self._hash = hashlib.sha256()
        self._rest = bytearray()
        self._long = LongStrings(longest_text)
        self._strings_left = _STRINGS + _STRINGS_AN_INPUT * shape.max_inputs
        self._outside = 0
        self._string: bytearray | None = None  # that has begun and not ended
        self._escape = b""

    def feed(self, block: bytes) -> None:
        """Take the next bytes.

        Raises:
            APIError: `invalid_request` or `too_many_inputs`.
        """
        self._hash.update(block)
        raw = self._escape + block
        # Escapes are made unlike quotes, at the same length. Outside of strings there are none in JSON.
        seen = raw.replace(rb"\\", b"\0\0").replace(rb"\"", b"\0\0")
        self._escape = b"\\" if seen.endswith(b"\\") else b""
        place, end = 0, len(raw) - len(self._escape)
        view = memoryview(raw)
        while place < end:
            quote = seen.find(b'"', place, end)
            stop = end if quote < 0 else quote
            if self._string is None:
                self._take_outside(raw[place:stop])
            else:
                self._string += view[place:stop]
            if quote >= 0:
                self._turn()
            place = stop + 1

    def finish(self) -> ReadJson:
        """The body that was read."""
        if self._string is not None:  # cut off, which the parser is to say
            self._rest += b'"'
        return ReadJson(self._rest, self._long, self._hash.hexdigest())

    def _take_outside(self, content: bytes) -> None:
        self._outside += len(content) + 1  # a quote, or the end of the block
        if self._outside > self._most_outside:
            raise invalid(f"the JSON has more than {self._most_outside} bytes outside of its strings")
        for mark in _MARKS.findall(content):
            self._check.mark(mark[0])
        self._add(content)

    def _turn(self) -> None:
        if self._string is None:
            self._string = bytearray()
            return
        string, self._string = self._string, None
        self._strings_left -= 1
        if self._strings_left < 0:
            raise invalid("the JSON has too many values")
        if len(string) > _LONG_STRING:
            self._check.string(None)
            self._add(b'"%s"' % self._long.put_aside(string))
        else:
            self._check.string(bytes(string))
            self._add(b'"%s"' % bytes(string))

    def _add(self, content: bytes) -> None:
        self._rest += content
        if len(self._rest) > self._most_rest:
            raise invalid("the JSON has too many values")
