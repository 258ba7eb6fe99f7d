"""Terms: how a value that somebody gives is named, bounded and shown, wherever it is given.

A parameter of an act or a query carries its term in its annotation, and so does a field of a group of them:
`quota: Annotated[int | None, Term("Queries a period.", ...)]`. The command line, the routes, the forms and
the reference are made from it; see `vendor_service.acts.declaration`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Annotated, Any

from vendor_service.clock import to_datetime

# Larger numbers than this cannot be told apart in JavaScript and other JSON readers.
MAX_NUMBER = 2**53 - 1
_MICROS = 1_000_000
_MINUS = "\u2212"


class Unit(Enum):
    """The unit of a value, which says how people write and read it."""

    PLAIN = auto()
    MONEY = auto()  # micro-units on the wire, and in the currency wherever people write and read it
    PRICE = auto()  # money, but for bulk jobs a percentage
    MOMENT = auto()  # microseconds since the epoch, ISO 8601 wherever it is written


@dataclass(frozen=True)
class Term:
    """The name, bounds and unit of a value, for all faces.

    `typed` is its place on the command line: `NAME` is an argument and `--quota` an option; there may be
    several spellings. Without it the value is on the wire alone. `none` says what no value means.

    `wire` and `form` are its names on the wire and in forms, where they differ. A value that is in neither
    the path of a route nor `in_query` is in the body. `choices` are values with their meaning, or the name
    of a list that a page finds in the books; where it `is_open`, others may be written too. `example` stands
    in an empty field, or is chosen at first. What `is_file` is read from a file that a command names.
    `id_of` finds the id in a whole secret, which belongs neither in a path nor on a command line.
    """

    help: str = ""
    label: str = ""
    typed: str = ""
    unit: Unit = Unit.PLAIN
    none: str = ""
    least: int | None = None
    most: int | None = None
    longest: int | None = None
    pattern: str | None = None
    wire: str = ""
    form: str = ""
    in_query: bool = False
    choices: str | Mapping[Any, str] = field(default="", hash=False)
    is_open: bool = False
    is_file: bool = False
    example: str = ""
    id_of: Callable[[str], str | None] | None = None

    @property
    def is_argument(self) -> bool:
        """Whether it is typed by its place alone."""
        return bool(self.typed) and not self.typed.startswith("-")


Quota = Annotated[int | None, Term("Queries a period.", label="Quota, in queries", typed="--quota")]
SpendLimit = Annotated[
    int | None,
    Term("Money a period, as in 50EUR.", label="Spend limit", typed="--spend-limit", unit=Unit.MONEY),
]
Rate = Annotated[
    int | None,
    Term(
        "Queries a second; ten seconds of it may be asked at once.",
        label="Queries a second",
        typed="--rate --rate-limit",
        form="rate",
    ),
]
Micros = Annotated[
    int,
    Term(
        "An amount in the currency, as in 5.00 or 5EUR; or in millionths of it, as in 5000000micros.",
        label="Amount",
        typed="AMOUNT",
        wire="amount_micros",
        form="amount",
        unit=Unit.MONEY,
    ),
]


def money(micros: int) -> str:
    """An amount in units of the currency, exact, with two digits at least behind the point."""
    sign, size = _MINUS if micros < 0 else "", abs(micros)
    digits = f"{size % _MICROS:06d}".rstrip("0")
    return f"{sign}{size // _MICROS:,}.{digits:0<2}"


def shown(value: Any, unit: Unit = Unit.PLAIN, none: str = "none") -> str:  # noqa: ANN401 - any term's value
    """A value as people read it."""
    if value is None or value == "":
        return none
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        if unit in (Unit.MONEY, Unit.PRICE):
            return money(value)
        return f"{to_datetime(value):%Y-%m-%d %H:%M} UTC" if unit is Unit.MOMENT else f"{value:,}"
    if isinstance(value, list | tuple | frozenset | set):
        return ", ".join(sorted(map(str, value))) or none
    return str(value)
