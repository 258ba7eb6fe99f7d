"""The shape of a JSON request, checked as it streams in: nothing is made of what is refused anyway."""

from dataclasses import dataclass, field

from pydantic_core import from_json

from shared.errors import APIError, ErrorCode
from shared.http.parsing import invalid

_OPENING, _CLOSING, _COLON, _COMMA = b"[{", b"]}", b":"[0], b","[0]
_DEEPEST = 4  # a list of token ids, which is refused in words of its own, in the list of inputs of a request


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
