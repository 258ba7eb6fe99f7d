"""Tables of images: CSV, JSON lines or Parquet, a row an image."""

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from math import isnan
from pathlib import Path
from typing import Any, Literal

from client.data.delimited import read_rows
from client.data.finder import NO_FILE, Skipped, counted, described, why_left_out
from client.data.splits import Split
from client.errors import DataError, UsageError
from client.parquet import ForeignParquet, column_values
from client.paths import is_file

TABLES = (".csv", ".jsonl", ".parquet")
COLUMNS = ("path", "label", "domain", "split")
MAX_BYTES = 2**30
MAX_ROWS = 20_000_000
_GROUP_BYTES = 2**28  # of a group of Parquet's rows, unpacked
_BATCH_ROWS = 2**14
# The words for each side of a split.
_SPLITS: dict[str, Split] = {
    "train": "train",
    "holdout": "holdout",
    "val": "holdout",
    "validation": "holdout",
}


@dataclass(frozen=True)
class TableRow:
    """An image of a table.

    Attributes:
        path: its file; a relative path is below the table's folder.
        label: its class; empty where the table has none.
        domain: empty where the table has none.
        split: "train" or "holdout"; empty where the table does not say.
    """

    path: Path
    label: str = ""
    domain: str = ""
    split: Split | Literal[""] = ""


@dataclass(frozen=True)
class Columns:
    """The names of a table's columns, by those that they would have otherwise; in small letters."""

    named: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, words: Sequence[str]) -> "Columns":
        """As they are typed: `path=filename`, `label=class`.

        Raises:
            UsageError: one is no such pair.
        """
        named = {}
        for word in words:
            column, _, name = (part.strip().lower() for part in word.partition("="))
            if column not in COLUMNS or not name:
                raise UsageError(
                    f"--columns {word!r} is not a pair COLUMN=NAME. COLUMN is one of {', '.join(COLUMNS)}, "
                    "and "
                    "NAME what the table calls it: --columns path=filename,label=class."
                )
            named[column] = name
        return cls(named)

    def __getitem__(self, column: str) -> str:
        return self.named.get(column, column)


AS_NAMED = Columns()


def is_table(path: Path) -> bool:
    """Whether a file is a table by its name."""
    return path.suffix.lower() in TABLES


def read_table(table: Path, *, labelled: bool, columns: Columns = AS_NAMED) -> list[TableRow]:
    """The rows of a table, by the columns `path`, `label`, `domain` and `split`; others are passed over.

    `columns` says what they are called, where that is something else.

    Raises:
        DataError: it cannot be read, has not the columns, a row without a path or a label, or a path twice.
    """
    rows: dict[str, TableRow] = {}
    real = cache(os.path.realpath)  # of folders, of which there are few: a link or `..` may spell them anew
    for number, cells in enumerate(_cells(table, columns), start=1):
        row = _row(table, number, cells, columns)
        if labelled and not row.label:
            raise DataError(_lacks(table, number, cells, columns["label"]))
        folder, name = os.path.split(row.path)
        file = os.path.join(real(folder), name)  # noqa: PTH118 (a Path for each takes far longer)
        if file in rows:
            raise DataError(f"{table}, row {number}: {row.path} is there already. An image has one row.")
        rows[file] = row
        if number > MAX_ROWS:
            raise DataError(f"{table} has more than {MAX_ROWS} rows.")
    if not rows:
        raise DataError(f"{table} has no rows.")
    return list(rows.values())


def images_in_table(
    table: Path, *, labelled: bool, columns: Columns = AS_NAMED
) -> tuple[list[TableRow], list[Skipped]]:
    """The rows of a table whose files are there and images by name, and the files of the others.

    A file whose name has no ending is taken as well, as one that is named itself: reading it tells.

    Raises:
        DataError: as by `read_table`; or none of its files is an image.
    """
    images: list[TableRow] = []
    left_out: list[Skipped] = []
    for row in read_table(table, labelled=labelled, columns=columns):
        reason: Skipped | None = None
        if not is_file(row.path):
            reason = Skipped(row.path, NO_FILE)
        elif row.path.suffix:
            reason = why_left_out(str(row.path), known=True)
        if reason is None:
            images.append(row)
        else:
            left_out.append(replace(reason, domain=row.domain or None))
    if not images:
        raise DataError(
            f"{table}: none of its files is an image. Left out: {described(counted(left_out))}, the first "
            f"{left_out[0].path}. Paths in it are relative to its folder."
        )
    return images, left_out


def _lacks(table: Path, number: int, cells: Mapping[str, object], column: str) -> str:
    """The message about a row without something."""
    hint = (
        ""
        if column in cells
        else " --columns says what they are called: --columns path=filename,label=class."
    )
    return f"{table}, row {number}: there is no `{column}`. The columns are: {', '.join(cells)}.{hint}"


def _row(table: Path, number: int, cells: Mapping[str, object], columns: Columns) -> TableRow:
    path, label, domain, split = (
        _text(table, number, cells, columns[column], is_path=column == "path") for column in COLUMNS
    )
    split = split.lower()
    if not path or "\0" in path:
        raise DataError(_lacks(table, number, cells, columns["path"]))
    if split and split not in _SPLITS:
        raise DataError(
            f"{table}, row {number}: `{columns['split']}` is {split!r}. It takes {', '.join(_SPLITS)}, or "
            "nothing."
        )
    # A label that a million rows share is kept once, however their cells were written.
    return TableRow(table.parent / path, sys.intern(label), sys.intern(domain), _SPLITS.get(split, ""))


def _text(
    table: Path, number: int, cells: Mapping[str, object], column: str, *, is_path: bool = False
) -> str:
    """A cell as text: Parquet may hold bytes, JSON half a character, and both a NaN where a cell is empty."""
    cell = cells.get(column)
    if cell is None or (isinstance(cell, float) and isnan(cell)):
        return ""
    if isinstance(cell, list | dict):
        raise DataError(f"{table}, row {number}: `{column}` is {cell!r:.80}. It takes text.")
    try:
        text = cell.decode() if isinstance(cell, bytes) else str(cell)
        # What the disk calls a file may be other bytes, which Python gives as what no UTF-8 holds.
        text.encode(errors="surrogateescape" if is_path else "strict")
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise DataError(f"{table}, row {number}: `{column}` is not UTF-8 ({error.reason}).") from error
    return text.strip()


def _cells(table: Path, columns: Columns) -> Iterator[dict[str, object]]:
    """The cells of each row by the names of their columns, which may be written in capitals."""
    readers: dict[str, Callable[[Path], Iterator[dict[Any, Any]]]] = {
        ".csv": _from_csv,
        ".jsonl": _from_json_lines,
        ".parquet": partial(_from_parquet, columns),
    }
    try:
        if table.stat().st_size > MAX_BYTES:
            raise DataError(f"{table} is larger than {MAX_BYTES // 2**20} MiB.")
        for row in readers[table.suffix.lower()](table):
            yield {str(name).strip().lower(): cell for name, cell in row.items() if name is not None}
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise DataError(f"{table} cannot be read: {error}.") from error


def _from_csv(table: Path) -> Iterator[dict[Any, Any]]:
    return (row for _, row in read_rows(table))


def _from_json_lines(table: Path) -> Iterator[dict[str, Any]]:
    with table.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    row = json.loads(line.rstrip())
                except json.JSONDecodeError as error:
                    where = f"line {number}, column {error.colno}"
                    raise DataError(f"{table} cannot be read: {error.msg} ({where}).") from error
                if not isinstance(row, dict):
                    raise DataError(f"{table}, line {number} is not a JSON object.")
                yield row


def _from_parquet(names: Columns, table: Path) -> Iterator[dict[str, Any]]:
    needed = {names[column] for column in COLUMNS}
    with table.open("rb") as file:
        opened = ForeignParquet(file)
        wanted = [name for name in opened.types if name.strip().lower() in needed]
        if (path := names["path"]) not in (name.strip().lower() for name in wanted):
            raise DataError(f"{table}: there is no `{path}`. The columns are: {', '.join(opened.types)}.")
        opened.check_types(wanted)
        opened.check_size(wanted, group_bytes=_GROUP_BYTES)
        for columns in opened.batches(wanted, _BATCH_ROWS):
            values = [column_values(name, column) for name, column in columns.items()]
            for row in zip(*values, strict=True):
                yield dict(zip(columns, row, strict=True))
