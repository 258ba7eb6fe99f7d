"""CSV that a spreadsheet can open without running anything that a stranger named."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import StringIO

from shared.text import BLANK, visible

# A text that begins like this may be taken for a formula, also behind spaces that an import strips.
_RUNS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def csv_lines(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> Iterator[str]:
    """The header, then a record for each row. Numbers stay numbers, negative ones too."""
    yield _record(columns)
    for row in rows:
        yield _record([_cell(row[column]) for column in columns])


def _cell(value: object) -> object:
    """A text that would run begins with an apostrophe, by which spreadsheets know a text."""
    if not isinstance(value, str):
        return value
    text = visible(value, keep=BLANK)
    return f"'{text}" if text.lstrip(" ").startswith(_RUNS) else text


def _record(cells: Sequence[object]) -> str:
    buffer = StringIO(newline="")
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)  # it quotes cells that hold one of the two
    return buffer.getvalue().removesuffix("\r\n")
