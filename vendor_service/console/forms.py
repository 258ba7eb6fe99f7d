"""Forms as browsers send them, and what people write into their fields."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from urllib.parse import parse_qsl

from starlette.requests import Request

from shared.errors import APIError, ErrorCode
from vendor_service.amounts import Amount, read_amount
from vendor_service.errors import UsageError
from vendor_service.terms import MAX_NUMBER

_MOST_FIELDS = 64
_LONGEST_NUMBER = 24
# Commas between thousands, as in 1,234.5. A 0 before the first comma, as in 0,500, is of a decimal comma.
_THOUSANDS = re.compile(r"[-+]?[1-9][0-9]{0,2}(,[0-9]{3})+(\.[0-9]*)?")


class WrongFields(UsageError):
    """Some fields of a form make no sense: what is `wrong`, by the name of the field."""

    def __init__(self, wrong: Mapping[str, str], labels: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{labels[name]}: {said}" for name, said in wrong.items()))
        self.wrong = wrong


@dataclass(frozen=True)
class Fields:
    """The fields of a form or of a URL's query, by name; one that is not there is empty."""

    pairs: Sequence[tuple[str, str]] = ()
    _by_name: Mapping[str, list[str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        named: dict[str, list[str]] = {}
        for name, value in self.pairs:
            named.setdefault(name, []).append(value)
        object.__setattr__(self, "_by_name", named)

    def get(self, name: str) -> str:
        """The text of a field, without spaces around it."""
        return self._by_name.get(name, [""])[-1].strip()

    def all(self, name: str) -> list[str]:
        """All that was ticked under that name."""
        return list(self._by_name.get(name, []))

    def number(self, name: str) -> int | None:
        """A whole number; `None` where nothing was written.

        Raises:
            UsageError: it is something else.
        """
        written = _without_thousands(self.get(name)).replace("_", "")
        if not written:
            return None
        try:
            if len(written) > _LONGEST_NUMBER or abs(number := int(written)) > MAX_NUMBER:
                raise ValueError
            return number
        except ValueError as error:
            raise UsageError(f"{name.replace('_', ' ')}: write a whole number, as in 1000") from error

    def money(self, name: str) -> Amount | None:
        """An amount as it was written; `None` where nothing was.

        Raises:
            UsageError: it is none.
        """
        if not (written := self.get(name)):
            return None
        try:
            return read_amount(written)
        except UsageError as error:
            raise UsageError(f"{name.replace('_', ' ')}: {error}") from error

    def day(self, name: str) -> date | None:
        """A day as 2026-11-15; `None` where nothing was written.

        Raises:
            UsageError: it is something else.
        """
        written = self.get(name)
        try:
            day = date.fromisoformat(written) if written else None
            if day == date.max:
                raise ValueError  # there must be a day after it
            return day
        except ValueError as error:
            raise UsageError(f"{name.replace('_', ' ')}: write a day as in 2026-11-15") from error

    def moment(self, name: str) -> datetime | None:
        """A moment as 2026-11-15T12:00, in UTC unless it names a zone; `None` where nothing was written.

        Raises:
            UsageError: it is something else.
        """
        written = self.get(name)
        try:
            if written.isdigit():
                raise ValueError
            return datetime.fromisoformat(written) if written else None
        except ValueError as error:
            message = "write a moment in UTC as in 2026-12-01T00:00"
            raise UsageError(f"{name.replace('_', ' ')}: {message}") from error

    def has(self, name: str) -> bool:
        """Whether there is such a field, even an empty one."""
        return name in self._by_name

    def required(self, name: str) -> str:
        """The text of a field that has to be there.

        Raises:
            UsageError: nothing was.
        """
        if not (written := self.get(name)):
            raise UsageError(f"{name.replace('_', ' ')} is empty")
        return written


async def read_form(request: Request) -> Fields:
    """The form that a request brings.

    Raises:
        APIError: it is larger than a form, or none.
    """
    try:
        return Fields(_parsed((await request.body()).decode()))
    except (ValueError, UnicodeDecodeError) as error:
        raise APIError(ErrorCode.INVALID_REQUEST, "this form cannot be read") from error


def read_query(request: Request) -> Fields:
    """The fields of a request's URL."""
    return Fields(tuple(request.query_params.multi_items()))


def _without_thousands(written: str) -> str:
    """A number without the commas between its thousands; with them, where they are anything else."""
    return written.replace(",", "") if _THOUSANDS.fullmatch(written) else written


def _parsed(written: str) -> tuple[tuple[str, str], ...]:
    pairs = tuple(parse_qsl(written, keep_blank_values=True, max_num_fields=_MOST_FIELDS))
    if any("\0" in text for pair in pairs for text in pair):
        raise ValueError("PostgreSQL takes no text with the character NUL")
    return pairs
