"""Tables: the rows that a page has written, finished by what its columns are.

A column is named by a text. One that ends with `#` has numbers, which stand at the right with equal decimals.
One in parentheses has what can be done with a row. An empty one is left out.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

_ROW = re.compile(r"<tr\b.*?</tr>", re.DOTALL)
_CELL = re.compile(r"<(td|th)\b([^>]*)>(.*?)</\1>", re.DOTALL)
_SPAN = re.compile(r'colspan="(\d+)"')
_TAG = re.compile(r"(<[^>]*>)")
_DECIMAL = re.compile(r"(?<![\w.,])(\d[\d,]*\.)(\d+)(?![\w.])")


@dataclass(frozen=True)
class Column:
    """A column: its title, and whether it has numbers, or acts."""

    title: str
    numbers: bool = False
    acts: bool = False


def columns_of(names: Sequence[str | Column]) -> list[Column]:
    """The columns by their names; one whose title others wrote is given as it is."""
    return [
        each
        if isinstance(each, Column)
        else Column(each.strip("()").removesuffix("#"), each.endswith("#"), each.startswith("("))
        for each in names
        if each
    ]


def finished(rows: Markup, columns: Sequence[Column]) -> Markup:
    """Rows of `td` and `th` with the title of each cell, its alignment, and numbers with equal decimals.

    The title is for where a row is too narrow for a line, and shown as a list.
    """
    written = str(rows)
    places = [0] * len(columns)
    for row in _ROW.findall(written):
        for at, (_, _, content) in _cells(row):
            if at < len(columns) and columns[at].numbers:
                found = [len(each[2]) for text in _texts(content) for each in _DECIMAL.finditer(text)]
                places[at] = max([places[at], *found])
    return Markup(_ROW.sub(lambda row: _row(row[0], columns, places), written))  # noqa: S704 (it was markup)


def _cells(row: str) -> Iterator[tuple[int, tuple[str, str, str]]]:
    """The cells of a row, with the columns in which they are."""
    at = 0
    for tag, attributes, content in _CELL.findall(row):
        yield at, (tag, attributes, content)
        span = _SPAN.search(attributes)
        at += int(span[1]) if span else 1


def _row(row: str, columns: Sequence[Column], places: Sequence[int]) -> str:
    begin = row[: row.index(">") + 1]
    return f"{begin}{''.join(_cell(columns, places, *each) for each in _cells(row))}</tr>"


def _cell(columns: Sequence[Column], places: Sequence[int], at: int, cell: tuple[str, str, str]) -> str:
    tag, attributes, content = cell
    column = columns[at]
    if column.numbers:
        attributes += ' class="n"'
        content = "".join(
            text if text.startswith("<") else _DECIMAL.sub(lambda one: _padded(one, places[at]), text)
            for text in _TAG.split(content)
        )
    if column.acts:
        attributes += ' class="acts"'
        content = f'<div class="row">{content}</div>' if content else ""
    elif at:
        attributes += f' data-of="{escape(column.title)}"'
    return f"<{tag}{attributes}>{content}</{tag}>"


def _texts(content: str) -> list[str]:
    return [text for text in _TAG.split(content) if not text.startswith("<")]


def _padded(number: re.Match[str], places: int) -> str:
    return f"{number[1]}{number[2]:0<{places}}"
