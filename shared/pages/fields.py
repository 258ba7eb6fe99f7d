"""Fields of forms, as the component `field` draws them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

FieldKind = Literal[
    "text", "number", "money", "moment", "date", "month", "search", "select", "several", "flag"
]


@dataclass(frozen=True)
class Field:
    """A field: how it is entered, what stands in it, and the values to choose from with their meaning.

    An `error` says what was wrong with what stands there. Of a flag, any `value` is a tick. Texts with a
    `longest` get a wide place.
    """

    name: str
    label: str
    kind: FieldKind = "text"
    value: str = ""
    placeholder: str = ""
    choices: Sequence[tuple[str, str]] = ()
    chosen: Collection[str] = ()
    required: bool = False
    longest: int | None = None
    error: str = ""
