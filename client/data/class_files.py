"""Files that say how a teacher is asked about classes: names for codes, and prompts. Both are CSV files."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from client.data.delimited import read_rows
from client.data.domains import ImageFolder
from client.data.names import composed
from client.data.wording import PLACE, Wording
from client.errors import UsageError

# The file of names that is read where none is given, if it lies in the image folder or beside the table.
NAMES_FILE = "names.csv"
_MAX_BYTES = 2**24


def wording_of(
    folder: ImageFolder, *, templates: Sequence[str], prompts: Path | None, names: Path | None
) -> Wording:
    """How the classes of a folder are asked about.

    Args:
        folder: the folder; a `names.csv` in it counts where no other is given.
        templates: sentences about any class, with `{}` for its name.
        prompts: a file with the columns `class` and `prompt`; several rows of a class are averaged.
        names: a file with the columns `class` and `name`.

    Raises:
        UsageError: a file cannot be read or is not such a file (the message names the line), or a template
            has no place for a name.
        DataError: two classes would be asked about alike.
    """
    for template in templates:
        if PLACE not in template:
            raise UsageError(
                f"--prompt {template!r} has no {PLACE}, where the name of the class stands: 'a photo of a "
                f"{PLACE}', say."
            )
    names = names or beside(folder)
    wording = Wording(
        tuple(templates),
        {} if names is None else _read_names(names, folder.classes),
        {} if prompts is None else _read_prompts(prompts, folder.classes),
    )
    wording.require_distinct(folder.classes)
    return wording


def beside(folder: ImageFolder) -> Path | None:
    """The file of names in a folder, or beside a table, if there is one."""
    file = folder.base / NAMES_FILE
    return file if file.is_file() else None


def _read_names(file: Path, classes: Sequence[str]) -> dict[str, str]:
    """The names of those classes that the file has; others in it are passed over, as of a larger set."""
    named: dict[str, tuple[int, str]] = {}
    for line, name, word in _rows(file, "name"):
        before, known = named.setdefault(name, (line, word))
        if known != word:
            raise UsageError(
                f"{file}, line {line}: {name!r} is {word!r}, and {known!r} on line {before}. A class has one "
                "name."
            )
    found = {name: named[name][1] for name in classes if name in named}
    if not found:
        raise UsageError(
            f"{file} names none of the classes, which are {_some(classes)}. It names {_some(list(named))}."
        )
    return found


def _read_prompts(file: Path, classes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The prompts of each class; a class that is none may be in it if all that are have prompts."""
    prompts: dict[str, list[str]] = {}
    lines: dict[str, int] = {}
    for line, name, prompt in _rows(file, "prompt"):
        prompts.setdefault(name, []).append(prompt)
        lines.setdefault(name, line)
    lacking, known = [name for name in classes if name not in prompts], set(classes)
    unknown = [name for name in prompts if name not in known]
    if lacking and unknown:
        near = get_close_matches(unknown[0], lacking, n=1)
        raise UsageError(
            f"{file}, line {lines[unknown[0]]}: there is no class {unknown[0]!r}"
            f"{f' (is {near[0]!r} meant?)' if near else ''}. These have no prompt there: {_some(lacking)}."
        )
    return {name: tuple(prompts[name]) for name in classes if name in prompts}


def _rows(file: Path, column: str) -> Iterator[tuple[int, str, str]]:
    """The line, the class and the text of each row.

    Raises:
        UsageError: the file cannot be read, or a row has not both; the message names the line.
    """
    last = 1
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise UsageError(f"{file} is larger than {_MAX_BYTES // 2**20} MiB: it is not a list of classes.")
        for last, row in read_rows(file):
            yield (last, *_cells(file, last, row, column))
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"{file} cannot be read after line {last}: {error}.") from error
    if last == 1:
        raise UsageError(f"{file} has no rows. Its first line is `class,{column}`, and each row is a class.")


def _cells(file: Path, line: int, row: Mapping[str | None, object], column: str) -> tuple[str, str]:
    cells = {str(name).strip().lower(): cell for name, cell in row.items() if name is not None}
    if missing := {"class", column} - cells.keys():
        raise UsageError(
            f"{file}, line 1: there is no column `{min(missing)}`. It begins with `class,{column}`, and has "
            f"{', '.join(cells)}."
        )
    if None in row:
        raise UsageError(
            f"{file}, line {line}: there is more than a class and a {column}. Put a text that has a comma "
            f'into quotes: class,"a photo of a thing, a kind of tool".'
        )
    name, text = (str(cells[each] or "").strip() for each in ("class", column))
    if not name or not text:
        raise UsageError(f"{file}, line {line}: there is no `{column if name else 'class'}`.")
    return composed(name), text


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{', '.join(map(repr, names[:5]))}{more}"
