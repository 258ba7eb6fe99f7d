"""Text tables (CSV): rows with the number of their line, whatever a spreadsheet put between the cells."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# What may stand between cells: spreadsheets of many countries write semicolons.
_DELIMITERS = ",;\t"
_HEADER_BYTES = 2**16


def read_rows(table: Path) -> Iterator[tuple[int, dict[Any, Any]]]:
    """The rows of a CSV file in UTF-8, by the names in its first line, each with the line on which it ends.

    Cells are parted by what parts most names in the first line: commas, semicolons or tabs. A cell beyond
    those that are named stands under `None`, in a list, as `csv.DictReader` has it.

    Raises:
        OSError, ValueError, csv.Error: it cannot be read.
    """
    with table.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline(_HEADER_BYTES)
        file.seek(0)
        reader = csv.DictReader(file, delimiter=max(_DELIMITERS, key=header.count))
        for row in reader:
            yield reader.line_num, row
