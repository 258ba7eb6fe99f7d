"""Names from outside in tables and pages: they stay names, whatever Markdown or a spreadsheet makes of them.

HTML is escaped by its templates (`shared.pages`).
"""

import re
from collections.abc import Iterable
from typing import TypeVar

from shared.text import BLANK, visible

T = TypeVar("T")

# What means something in Markdown wherever in a line it stands; HTML, mentions and addresses among it.
_MARKS = re.compile(r"[\\`*_\[\]<>|&~#@!]")
# Names of hosts and schemes of addresses, of which some readers make links.
_ADDRESSES = re.compile(r"(?i)(www)\.|([a-z])://")
# A cell that begins so is run as a formula by spreadsheets.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
# A character that is written as its code.
_CODE = re.compile(r"\\(x[0-9a-f]{2}|u[0-9a-f]{4})")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def in_markdown(text: object) -> str:
    """Text within a line of Markdown, which shows it as it is; control characters as their codes."""
    return _ADDRESSES.sub(_unlinked, _MARKS.sub(r"\\\g<0>", visible(str(text))))


def _unlinked(match: "re.Match[str]") -> str:
    host, scheme = match.groups()
    return f"{host}\\." if host else f"{scheme}\\://"


def in_code(text: object) -> str:
    """Text as code in a line of Markdown, between more backticks than it has in a row."""
    plain = visible(str(text)).replace("|", "\u2223")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", plain)), default=0))
    space = " " if "`" in plain else ""
    return f"{fence}{space}{plain}{space}{fence}"


def in_csv(cell: T) -> T | str:
    """A cell of a CSV file. Text that a spreadsheet would run begins with an apostrophe; numbers do not.

    Control characters are written as their codes, and a backslash that would look like one as its own.
    """
    if not isinstance(cell, str):
        return cell
    text = visible(_CODE.sub(r"\\x5c\1", cell), keep=BLANK)
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def csv_line(cells: Iterable[object]) -> str:
    """A line of a CSV file; `None` is an empty cell.

    Python's writer leaves a carriage return in a name unquoted where lines end without one.
    """
    return ",".join(_quoted("" if cell is None else str(in_csv(cell))) for cell in cells) + "\n"


def _quoted(text: str) -> str:
    return '"{}"'.format(text.replace('"', '""')) if set(text) & set(',"\r\n') else text


def from_csv(cell: str) -> str:
    """Undo `in_csv`."""
    text = cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
    return _CODE.sub(lambda code: chr(int(code[1][1:], 16)), text)
