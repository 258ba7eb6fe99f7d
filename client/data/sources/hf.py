"""Hugging Face's `datasets`: folders that `save_to_disk` wrote, its cache, and folders of Parquet files.

Both formats tell the features of the columns in their schema (`ClassLabel` with the names of classes, `Image`
as bytes or a path); as `datasets` 5 writes them, and https://huggingface.co/docs/datasets/about_arrow says
(read 2026-12-02). So pyarrow alone reads them, and `datasets` need not be installed.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

from client.data.finder import Skipped
from client.data.rows_file import ARROW, PARQUET, RowsFile, open_rows
from client.data.sources.source import Row, Source, part_below, read_json, usual_part
from client.data.tables import Columns
from client.errors import DataError
from client.paths import absence, is_file

# How `datasets` numbers the files of a part: `train-00000-of-00002.parquet`.
_NUMBERED = re.compile(r"(.+?)-\d{5}-of-\d{5}")
# What it leaves in its cache besides.
_LEFTOVERS = ("cache-", "tmp")


class HuggingFace(Source):
    """`hf:FOLDER`, or one Arrow or Parquet file."""

    def rows(self, where: str, columns: Columns, *, labelled: bool) -> Iterator[Row | Skipped]:
        """As `Source.rows`."""
        for file, part in _files(Path(where)):
            try:
                opened = open_rows(file)
                yield from _rows(file, opened, _Meaning.of(file, opened, columns, labelled=labelled), part)
            except (OSError, ValueError) as error:
                raise DataError(f"{file} cannot be read: {error}.") from error

    def read(self, file: Path, name: str, most: int) -> bytes:
        """As `Source.read`."""
        column, _, row = name.rpartition("/")
        return open_rows(file).image(column, int(row), most)


SOURCE = HuggingFace()


@dataclass(frozen=True)
class _Meaning:
    """Which column of a file tells what, where one does, and the names of classes that are numbers."""

    image: str
    label: str | None
    domain: str | None
    part: str | None
    classes: tuple[str, ...]

    @classmethod
    def of(cls, file: Path, opened: RowsFile, columns: Columns, *, labelled: bool) -> "_Meaning":
        """By the names that somebody gives, the features, or the usual names.

        Raises:
            DataError: no column has images, or labels, or several have.
        """
        label = None
        if labelled:
            label = _column(
                file, opened, columns, "label", opened.of_feature("ClassLabel"), ("label", "labels")
            )
        return cls(
            image=_column(file, opened, columns, "path", opened.images(), ("image", "img")),
            label=label,
            domain=opened.named(columns["domain"]),
            part=opened.named(columns["split"]),
            classes=opened.class_names(label),
        )

    def label_of(self, file: Path, row: int, cells: Mapping[str, Any]) -> str:
        """The class of a row; empty where there is none, as -1 says too.

        Raises:
            DataError: it is a number without a name, or no label at all.
        """
        cell = None if self.label is None else cells[self.label]
        if cell is None or (isinstance(cell, float) and isnan(cell)) or (self.classes and cell == -1):
            return ""
        if not self.classes or isinstance(cell, str):
            return _text(file, row, self.label, cell)
        if not isinstance(cell, int) or not 0 <= cell < len(self.classes):
            raise DataError(
                f"{file}, row {row}: `{self.label}` is {cell!r:.80}, and the classes are 0 to "
                f"{len(self.classes) - 1}."
            )
        return self.classes[cell]


def _rows(file: Path, opened: RowsFile, meaning: _Meaning, part: str) -> Iterator[Row]:
    told = [name for name in (meaning.label, meaning.domain, meaning.part) if name is not None]
    for row, (cells, path) in enumerate(zip(opened.cells(told), opened.paths(meaning.image), strict=True)):
        domain = _text(file, row, meaning.domain, cells[meaning.domain]) if meaning.domain else ""
        own_part = _text(file, row, meaning.part, cells[meaning.part]) if meaning.part else part
        if path is not None and "\0" in path:
            raise DataError(f"{file}, row {row}: the path of the image has a null character.")
        image = file / meaning.image / str(row) if path is None else _named(file, path)
        yield Row(image, meaning.label_of(file, row, cells), domain, own_part)


def _named(file: Path, path: str) -> Path:
    """An image beside the file of rows, or where `datasets` looks for it: from the current folder."""
    beside, here = file.parent / path, Path(path).absolute()
    return here if not is_file(beside) and is_file(here) else beside


def _text(file: Path, row: int, column: str | None, cell: object) -> str:
    if cell is None:
        return ""
    if not isinstance(cell, str | int | float):
        raise DataError(f"{file}, row {row}: `{column}` is {cell!r:.80}. It takes text or a number.")
    return str(cell).strip()


def _column(
    file: Path, opened: RowsFile, columns: Columns, what: str, found: list[str], usual: tuple[str, ...]
) -> str:
    """The column that tells something: that which is given, is of the right kind, or has a usual name."""
    if what in columns.named:
        found = [name] if (name := opened.named(columns[what])) else []
    elif not found:
        found = [name for name in map(opened.named, usual) if name is not None][:1]
    if len(found) != 1:
        how = f"columns {', '.join(found)} might be it" if found else "no column for it"
        raise DataError(
            f"{file}: the {'image' if what == 'path' else what} is unclear, there is {how}. The columns are: "
            f"{', '.join(opened.types)}. Say which with --columns {what}=NAME."
        )
    return found[0]


def _files(where: Path) -> Iterator[tuple[Path, str]]:
    """The files of rows of a folder, each with the part of the data set that it belongs to."""
    if is_file(where):
        yield where, ""
    elif is_file(where / "dataset_dict.json"):
        for part in read_json(where / "dataset_dict.json").get("splits", []):
            yield from ((file, str(part)) for file in _saved(where / _plain(where, part)))
    elif is_file(where / "state.json"):
        yield from ((file, "") for file in _saved(where))
    else:
        yield from _found(where)


def _saved(folder: Path) -> list[Path]:
    """The files that `save_to_disk` wrote into a folder, by its `state.json`."""
    listed = read_json(folder / "state.json").get("_data_files")
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise DataError(f"{folder / 'state.json'} does not name the data's files: save the data set anew.")
    return [folder / _plain(folder, each.get("filename")) for each in listed]


def _plain(folder: Path, name: object) -> str:
    """A name of something in a folder, and nowhere else."""
    if not isinstance(name, str) or Path(name).name != name:
        raise DataError(f"{folder}: its files name {name!r:.80}, which is nothing in it.")
    return name


def _found(folder: Path) -> Iterator[tuple[Path, str]]:
    """The Parquet files below a folder, or its Arrow files."""
    for suffix in (PARQUET, ARROW):
        files = [f for f in sorted(folder.rglob(f"*{suffix}")) if not f.name.startswith((".", *_LEFTOVERS))]
        parts = _parts_of_cache(folder) if suffix == ARROW else ()
        yield from ((file, _part(folder, file, parts)) for file in files)
        if files:
            return
    what = "has no Parquet and no Arrow file" if folder.is_dir() else absence(folder)
    raise DataError(
        f"hf:{folder} {what}. It takes a folder that save_to_disk wrote, one of Parquet files, or a file. "
        "A data set on the Hub is fetched by `datasets` first: load_dataset(NAME).save_to_disk(FOLDER)."
    )


def _parts_of_cache(folder: Path) -> tuple[str, ...]:
    """The parts that a folder of the cache of `datasets` has, which its files are named after."""
    about = folder / "dataset_info.json"
    parts = read_json(about).get("splits") if is_file(about) else None
    return tuple(parts) if isinstance(parts, dict) else ()


def _part(folder: Path, file: Path, known: tuple[str, ...]) -> str:
    """The part of the data set that a file is of, by its name, or by the folder that it lies in."""
    numbered = _NUMBERED.fullmatch(file.stem)
    name = numbered[1] if numbered else file.stem
    if found := [part for part in known if name == part or name.endswith(f"-{part}")]:
        return max(found, key=len)
    usual = usual_part(re.split(r"[-._ \d]+", name))
    return usual or (name if numbered else part_below(folder, file.parent))
