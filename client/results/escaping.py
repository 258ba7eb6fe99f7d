"""Names from outside in tables and pages: they stay names, whatever Markdown or a spreadsheet makes of them.

HTML is escaped by its templates.
"""

import re
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")

# What means something in Markdown wherever in a line it stands; HTML, mentions and addresses among it.
_MARKS = re.compile(r"[\\`*_\[\]<>|&~#@!]")
# Names of hosts and schemes of addresses, of which some readers make links.
_ADDRESSES = re.compile(r"(?i)(www)\.|([a-z])://")
# A cell that begins so is run as a formula by spreadsheets.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def in_markdown(text: object) -> str:
    """Text within a line of Markdown, which shows it as it is. What cannot be printed becomes a space."""
    plain = "".join(c if c.isprintable() else " " for c in str(text))
    return _ADDRESSES.sub(_unlinked, _MARKS.sub(r"\\\g<0>", plain))


def _unlinked(match: "re.Match[str]") -> str:
    host, scheme = match.groups()
    return f"{host}\\." if host else f"{scheme}\\://"


def in_code(text: object) -> str:
    """Text as code in a line of Markdown, between more backticks than it has in a row."""
    plain = "".join(c if c.isprintable() else " " for c in str(text)).replace("|", "\u2223")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", plain)), default=0))
    space = " " if "`" in plain else ""
    return f"{fence}{space}{plain}{space}{fence}"


def in_csv(cell: T) -> T | str:
    """A cell of a CSV file. Text that a spreadsheet would run begins with an apostrophe; numbers do not."""
    if not isinstance(cell, str) or _NUMBER.fullmatch(cell) or not _FORMULA.match(cell):
        return cell
    return f"'{cell}"


def csv_line(cells: Iterable[object]) -> str:
    """A line of a CSV file; `None` is an empty cell.

    Python's writer leaves a carriage return in a name unquoted where lines end without one.
    """
    return ",".join(_quoted("" if cell is None else str(in_csv(cell))) for cell in cells) + "\n"


def _quoted(text: str) -> str:
    return '"{}"'.format(text.replace('"', '""')) if set(text) & set(',"\r\n') else text


def from_csv(cell: str) -> str:
    """Undo `in_csv`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
