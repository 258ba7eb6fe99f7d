"""A student's answers about images as a file that spreadsheets and pandas open."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from client.errors import UsageError, unwritable
from client.paths import obstacle, replace_text
from client.results.escaping import csv_line

_SUFFIX = ".csv"


def check_answers_file(file: Path) -> None:
    """Refuse, before anything is asked, a file that could not be written.

    Raises:
        UsageError: it has another ending, or its folder does not exist or takes no files.
    """
    if file.suffix.lower() != _SUFFIX:
        raise UsageError(f"--out takes a file that ends in {_SUFFIX}, not {file.name!r}; --json prints JSON.")
    if why := obstacle(file):
        raise UsageError(f"--out cannot be written: {why}.")


def write_answers(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of `Predictions.rows`: image, class, probability, further classes, and why one has none.

    An image that shows none of the classes, where such are rejected, has an empty class. See `csv_line` for
    names that a spreadsheet would run.

    Raises:
        UsageError: as `check_answers_file`.
        ClientError: it cannot be written.
    """
    check_answers_file(file)
    most = max((len(row["classes"]) for row in rows), default=0)
    further = [f"{what}_{place}" for place in range(2, most + 1) for what in ("class", "probability")]
    extra = [name for name in ("answered_by", "skipped") if any(name in row for row in rows)]
    lines = [csv_line(["image", "class", "probability", *further, *extra])]
    for row in rows:
        ranked = list(row["classes"].items())
        if "class" in row and row["class"] is None:
            ranked = [("", None), *ranked[: most - 1]]
        cells = [cell for pair in ranked for cell in pair]
        cells += [None] * (2 * max(1, most) - len(cells))
        lines.append(csv_line([row["image"], *cells, *(row.get(name) for name in extra)]))
    try:
        replace_text(file, "".join(lines))
    except OSError as error:
        raise unwritable(file, error) from error
