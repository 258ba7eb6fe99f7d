"""How commands print what was found: JSON for scripts, columns for people."""

import json
import sys
from collections.abc import Mapping, Sequence
from shutil import get_terminal_size
from typing import Any

from shared.text import visible
from vendor_service.terms import money

_MICROS = "_micros"
Row = Mapping[str, Any]


def print_json(data: object) -> None:
    """Print JSON for scripts."""
    print(json.dumps(data, indent=2))


def print_row(row: Row) -> None:
    """Print one row for people: a line for each of its columns."""
    print(_block(_cells(row)))


def print_rows(rows: Sequence[Row]) -> None:
    """Print rows of the same columns for people.

    They are aligned, a row a line, and nothing is ever cut: what is printed can be copied. On a terminal that
    is too narrow for that, each row is a block of lines instead.
    """
    if rows:
        cells = [_cells(row) for row in rows]
        lines = _aligned(cells)
        too_wide = sys.stdout.isatty() and max(map(len, lines)) > get_terminal_size().columns
        print("\n\n".join(map(_block, cells)) if too_wide else "\n".join(lines))


def _cells(row: Row) -> dict[str, str]:
    unit = row.get("currency")
    return {
        name.removesuffix(_MICROS): _cell(_money(value, unit) if name.endswith(_MICROS) else value)
        for name, value in row.items()
    }


def _money(value: object, unit: object) -> object:
    """An amount of micro-units as people read it, with the row's currency."""
    if not isinstance(value, int):
        return value
    return f"{money(value)} {unit}" if unit else money(value)


def _cell(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(_cell, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {_cell(each)}" for name, each in value.items())
    return "-" if value is None or value == "" else visible(str(value))


def _aligned(rows: list[dict[str, str]]) -> list[str]:
    table = [dict(zip(rows[0], rows[0], strict=True)), *rows]
    widths = {name: max(len(row[name]) for row in table) for name in rows[0]}
    return ["  ".join(cell.ljust(widths[name]) for name, cell in row.items()).rstrip() for row in table]


def _block(row: dict[str, str]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in row.items())
