"""Labelled sets that are tables or folders of one domain, and what is wrong with a table."""

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from client.data import finder, images, tables
from client.data.domains import ImageFolder
from client.data.examples import Example
from client.data.inspection import inspect
from client.data.listing import list_folder
from client.data.pool import find_pool
from client.data.splits import Split, split
from client.data.tables import read_table
from client.errors import DataError, UsageError
from tests.client.toy import CLASSES, draw, make_folder

Row = dict[str, Any]


def _csv(file: Path, rows: list[Row]) -> None:
    lines = [",".join(rows[0]), *(",".join(str(cell) for cell in row.values()) for row in rows)]
    file.write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")


def _jsonl(file: Path, rows: list[Row]) -> None:
    file.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")


def _parquet(file: Path, rows: list[Row]) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)


WRITERS: dict[str, Callable[[Path, list[Row]], None]] = {"csv": _csv, "jsonl": _jsonl, "parquet": _parquet}


def _rows(root: Path) -> list[Row]:
    """The toy pictures, by names that are no part of their folders."""
    return [
        {
            "path": file.relative_to(root.parent).as_posix(),
            "label": f"a {file.parts[-2]}",
            "domain": file.parts[-3],
        }
        for file in sorted(root.glob("*/*/*.png"))
    ]


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "toy", images=3)


def _read(folder: ImageFolder) -> list[tuple[str, str, str]]:
    examples, skipped = folder.read(folder.domains)
    assert not skipped
    return [(example.path.name, example.domain, folder.classes[example.label]) for example in examples]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_table_is_a_labelled_set(toy: Path, kind: str) -> None:
    table = toy.parent / f"mine.{kind}"
    rows = [{**row, "Taken": 2026} for row in _rows(toy)]
    WRITERS[kind](table, rows)
    found = list_folder(table)
    assert (found.domains, found.classes) == (
        ("dark", "light", "red"),
        tuple(f"a {name}" for name in CLASSES),
    )
    expected = [(file, domain, f"a {name}") for file, domain, name in _read(list_folder(toy))]
    assert _read(found) == expected
    assert found.source_domains("red") == ("dark", "light")
    assert len(found.digest()) == 64
    assert found.deeper == 0


def test_a_name_that_is_too_long_is_left_out_as_a_missing_file_is(toy: Path) -> None:
    table = toy.parent / "mine.csv"
    long = {"path": f"{'x' * 300}.png", "label": "a circle", "domain": "dark"}
    _csv(table, [*_rows(toy), long, {**long, "path": "missing.png"}])
    found = list_folder(table)
    assert [(file.path.name, file.reason) for file in found.ignored] == [
        (long["path"], "not a file"),
        ("missing.png", "not a file"),
    ]
    assert _read(found) == [(*each[:2], f"a {each[2]}") for each in _read(list_folder(toy))]
    assert [file.path.name for file in find_pool(str(table)).left_out] == [long["path"], "missing.png"]


def test_without_a_domain_there_is_one_with_the_tables_name(toy: Path) -> None:
    table = toy.parent / "mine.csv"
    _csv(table, [{"path": row["path"], "label": row["label"]} for row in _rows(toy)])
    assert list_folder(table).source_domains(None) == ("mine",)


def test_a_table_may_tell_the_split(toy: Path) -> None:
    sides = ["train", "holdout", "val", ""]
    rows = [{**row, "split": sides[n % 4]} for n, row in enumerate(_rows(toy))]
    table = toy.parent / "mine.jsonl"
    _jsonl(table, rows)
    folder = list_folder(table)
    examples, _ = folder.read(folder.domains)
    train, held = split(examples, holdout=0.2, seed=0, fixed_splits=folder.splits)
    side = {examples[i].path.relative_to(toy.parent).as_posix(): "train" for i in train}
    side |= {examples[i].path.relative_to(toy.parent).as_posix(): "holdout" for i in held}
    for row in rows:
        assert row["split"] == "" or side[row["path"]] == row["split"].replace("val", "holdout")


def test_the_digest_tells_another_split_and_is_what_it_was_without_one(toy: Path) -> None:
    table = toy.parent / "mine.csv"
    rows = _rows(toy)
    digests = []
    for sides in ([""], ["train"], ["train", "val"], ["val", "train"]):
        _csv(table, [{**row, "split": sides[n % len(sides)]} for n, row in enumerate(rows)])
        digests.append(list_folder(table).digest())
    assert len(set(digests)) == 4
    _csv(table, rows)
    assert list_folder(table).digest() == digests[0]


@pytest.mark.parametrize("seed", range(5))
def test_what_a_table_holds_out_counts_among_the_share_and_no_class_loses_its_last_image(seed: int) -> None:
    labels = [0] * 98 + [1] * 2
    examples = [Example(f"{n}.png", "d", label, f"{n}", f"{n}", 1) for n, label in enumerate(labels)]
    paths = [example.path for example in examples]
    fixed: dict[Path, Split] = dict.fromkeys([*paths[:9], paths[99]], "holdout")
    train, held = split(examples, holdout=0.2, seed=seed, fixed_splits=fixed)
    assert {*range(9), 99} < set(held)
    assert len(held) == 20
    assert 98 in train  # the other image of its class

    fixed |= dict.fromkeys(paths[9:19], "holdout")
    # Nothing is missing.
    assert split(examples, holdout=0.2, seed=seed, fixed_splits=fixed)[1] == [*range(19), 99]
    fixed |= dict.fromkeys(paths[98:], "holdout")
    assert split(examples, holdout=0.2, seed=seed, fixed_splits=fixed)[1] == [*range(19), 98, 99]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"file": "a.png", "label": "x"}], "row 1: there is no `path`. The columns are: file, label"),
        ([{"path": "a.png"}], "row 1: there is no `label`"),
        ([{"path": "a.png", "label": "x"}, {"path": "./a.png", "label": "y"}], "row 2: .* is there already"),
        ([{"path": "a.png", "label": "x", "split": "tets"}], "`split` is 'tets'. It takes train, holdout"),
        (
            [{"path": "a.png", "label": "x"}, {"path": "b.png", "label": math.nan}],
            "row 2: there is no `label`",
        ),
        ([{"path": math.nan, "label": "x"}], "row 1: there is no `path`"),
        ([{"path": "a.png", "label": ["x"]}], r"row 1: `label` is \['x'\]. It takes text"),
        ([{"path": "a.png", "label": {"a": 1}}], "row 1: `label` is {'a': 1}. It takes text"),
        ([{"path": "a.png", "label": "x", "domain": []}], r"row 1: `domain` is \[\]. It takes text"),
        ([{"path": "a.png", "label": "\ud83d"}], "row 1: `label` is not UTF-8"),
        ([{"path": "a.png", "label": "x", "domain": "\udce9"}], "row 1: `domain` is not UTF-8"),
        ([{"path": "\ud83d.png", "label": "x"}], "row 1: `path` is not UTF-8"),
        ([{"path": "gone.png", "label": "x"}], "none of its files is an image. Left out: 1 not a file"),
        ([{"path": "mine.jsonl", "label": "x"}], "Left out: 1 not an image by name"),
    ],
)
def test_a_table_that_is_wrong_is_refused_with_the_row(tmp_path: Path, rows: list[Row], said: str) -> None:
    table = tmp_path / "mine.jsonl"
    _jsonl(table, rows)
    with pytest.raises(DataError, match=said):
        list_folder(table)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{path: 1}", r"Expecting property name .* \(line 3, column 2\)\.$"),
        ('{"path": "b.png"', r"Expecting ',' delimiter \(line 3, column 17\)\.$"),
    ],
)
def test_a_broken_line_is_named_by_its_place_in_the_file(tmp_path: Path, line: str, said: str) -> None:
    table = tmp_path / "mine.jsonl"
    table.write_text(f'{{"path": "a.png", "label": "x"}}\n\n{line}\n')
    with pytest.raises(DataError, match=f"mine.jsonl cannot be read: {said}"):
        list_folder(table)


def test_without_a_path_all_columns_of_parquet_are_named(tmp_path: Path) -> None:
    _parquet(tmp_path / "mine.parquet", [{"file": "a.png", "label": "x"}])
    with pytest.raises(DataError, match=r"there is no `path`\. The columns are: file, label"):
        list_folder(tmp_path / "mine.parquet")


def test_nothing_in_parquet_is_no_label(tmp_path: Path) -> None:
    table = tmp_path / "mine.parquet"
    for labels, said in (
        ([1.0, math.nan], "row 2: there is no `label`"),
        ([["x"], ["y"]], "`label` is of the type list<.*>. It takes text"),
        ([{"a": 1}, {"a": 2}], "`label` is of the type struct<.*>. It takes text"),
    ):
        _parquet(table, [{"path": f"{n}.png", "label": label} for n, label in enumerate(labels)])
        with pytest.raises(DataError, match=said):
            read_table(table, labelled=True)


def test_bytes_in_parquet_are_text(toy: Path) -> None:
    table = toy.parent / "mine.parquet"
    rows = [{**row, "domain": f"caf\u00e9 {row['domain']}"} for row in _rows(toy)]
    _parquet(table, rows)
    expected = list_folder(table)
    encoded = [{name: text.encode() for name, text in row.items()} for row in rows]
    _parquet(table, encoded)
    assert list_folder(table) == expected
    _parquet(table, [{**encoded[0], "taken": b"\xff"}, {**encoded[1], "label": b"\xff"}])
    with pytest.raises(DataError, match="row 2: `label` is not UTF-8"):
        list_folder(table)


def test_the_name_of_a_file_need_not_be_utf_8(toy: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    shutil.copy(toy / "red" / "circle" / "00.png", toy / name)
    _jsonl(toy / "mine.jsonl", [{"path": name, "label": "circle", "note": "\ud83d"}])
    assert _read(list_folder(toy / "mine.jsonl")) == [(name, "mine", "circle")]


def test_files_whose_names_are_not_utf_8_may_be_grouped_by_them(toy: Path) -> None:
    names = [os.fsdecode(b"set-%d__caf\xe9.png" % number) for number in range(2)]
    for name, file in zip(names, sorted((toy / "red" / "circle").iterdir()), strict=False):
        shutil.copy(file, toy / name)
    _jsonl(toy / "mine.jsonl", [{"path": name, "label": "circle"} for name in names])
    folder = list_folder(toy / "mine.jsonl", group_by_name=True)
    examples, _ = folder.read(folder.domains)
    assert [example.drawing for example in examples] == [name.removesuffix(".png") for name in names]
    assert [len(side) for side in split(examples, holdout=0.5, seed=0)] == [1, 1]


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[1]", b"{", b"[" * 100_000])
def test_what_is_no_table_is_refused(tmp_path: Path, kind: str, content: bytes) -> None:
    table = tmp_path / f"mine.{kind}"
    table.write_bytes(content)
    with pytest.raises(
        DataError, match=r"cannot be read|has no rows|there is no `path`|is not a JSON object"
    ):
        list_folder(table)


def test_a_table_has_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "mine.csv"
    _csv(table, [{"path": f"{n}.png", "label": "x"} for n in range(9)])
    monkeypatch.setattr(tables, "MAX_ROWS", 8)
    with pytest.raises(DataError, match="more than 8 rows"):
        read_table(table, labelled=True)
    monkeypatch.setattr(tables, "MAX_BYTES", 10)
    with pytest.raises(DataError, match="is larger than"):
        read_table(table, labelled=True)


def test_an_error_about_domains_names_the_table(toy: Path) -> None:
    table = toy.parent / "mine.csv"
    _csv(table, _rows(toy))
    with pytest.raises(DataError, match=r"mine\.csv has no domain named 'nope'\. It has: dark, light, red"):
        list_folder(table).source_domains("nope")
    _csv(table, [{"path": row["path"], "label": row["label"]} for row in _rows(toy)])
    with pytest.raises(DataError, match=r"mine\.csv has one domain only .* or give its rows a `domain`"):
        list_folder(table).source_domains("mine")


def test_files_that_are_gone_are_left_out_and_told(toy: Path) -> None:
    table = toy.parent / "mine.csv"
    rows = _rows(toy)
    _csv(table, rows)
    (toy.parent / rows[0]["path"]).unlink()
    found = list_folder(table)
    assert [(file.reason, file.domain) for file in found.ignored] == [("not a file", "dark")]


def test_a_table_is_inspected_as_a_folder_is(toy: Path) -> None:
    table = toy.parent / "mine.csv"
    rows = [row for row in _rows(toy) if (row["domain"], row["label"]) != ("dark", "a circle")]
    _csv(table, rows)
    found = inspect(list_folder(table))
    assert found.is_sound
    assert found.counts["dark", "a circle"] == 0
    assert sum(found.counts.values()) == len(rows)


def test_a_table_that_loses_pictures_is_not_sound(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finder, "suffixes", lambda: images.suffixes() - images.HEIC_SUFFIXES)
    table = toy.parent / "mine.csv"
    others = ["a.jp2", "b.svg", "c.heic", "d.txt"]
    for name in others:
        (toy / name).write_text("")
    further = [{"path": f"toy/{name}", "label": "a circle", "domain": "dark"} for name in others]
    _csv(table, [*_rows(toy), *further])
    found = inspect(list_folder(table))
    assert not found.is_sound
    assert [file.path.name for file in found.misplaced] == others[:3]
    assert {file.domain for file in found.folder.ignored} == {"dark"}
    reasons = [file.reason for file in found.folder.ignored]
    assert reasons == [
        "unsupported format (.jp2)",
        "unsupported format (.svg)",
        images.HEIC_MISSING,
        "not an image by name",
    ]
    assert [file.reason for file in find_pool(str(table)).left_out] == reasons


def test_a_file_of_a_table_needs_no_ending(toy: Path) -> None:
    table = toy.parent / "mine.csv"
    rows = _rows(toy)
    (toy.parent / rows[0]["path"]).rename(toy / "0f3a")
    _csv(table, [{**rows[0], "path": "toy/0f3a"}, *rows[1:]])
    found = inspect(list_folder(table))
    assert (found.is_sound, sum(found.counts.values())) == (True, len(rows))
    assert toy / "0f3a" in find_pool(str(table)).images
    (toy / "0f3a").write_text("no picture")
    found = inspect(list_folder(table))
    assert [(file.path.name, file.reason) for file in found.unreadable] == [
        ("0f3a", "not a readable picture")
    ]
    assert not found.is_sound


def test_a_folder_of_classes_is_one_domain(toy: Path) -> None:
    photos = toy.parent / "photos"
    shutil.copytree(toy / "dark", photos)
    (photos / "loose.png").write_bytes((photos / "circle" / "00.png").read_bytes())
    (photos / "read-me.txt").write_text("mine")
    (photos / "circle" / "note.txt").write_text("mine")
    found = list_folder(photos)
    assert (found.domains, found.classes, found.source_domains(None)) == (("photos",), CLASSES, ("photos",))
    assert _read(found) == [(f, "photos", name) for f, d, name in _read(list_folder(toy)) if d == "dark"]
    assert {(file.path.name, file.reason) for file in found.ignored} == {
        ("loose.png", "loose in the root"),
        ("note.txt", "not an image by name"),
    }


@pytest.mark.parametrize(
    "again", ["two/../one/a.png", "link/a.png", "{folder}/one/a.png", "link/../one/a.png"]
)
def test_an_image_has_one_row_however_its_folder_is_spelled(tmp_path: Path, again: str) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        draw("circle", "black", "white", 0).save(tmp_path / name / "a.png")
    (tmp_path / "link").symlink_to("one")
    table = tmp_path / "table.csv"
    rows = ["path,label", "one/a.png,x", "two/a.png,y"]
    table.write_text("\n".join(rows))
    assert [row.path for row in read_table(table, labelled=True)] == [
        tmp_path / "one" / "a.png", tmp_path / "two" / "a.png",
    ]  # fmt: skip
    table.write_text("\n".join([*rows, f"{again.format(folder=tmp_path)},y"]))
    with pytest.raises(DataError, match=r"row 3: .*a\.png is there already"):
        read_table(table, labelled=True)


def test_class_names_alone_are_a_set_without_images(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("\ufeffdog\n\n  tall bar \ncafe\u0301\n", encoding="utf-8")
    found = list_folder(names)
    assert (found.domains, found.classes, found.files) == ((), ("caf\u00e9", "dog", "tall bar"), {})


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"dog\ncat\ndog", "names 'dog' twice"), (b"dog", "fewer than two"), (b"\xff\xff", "cannot be read")],
)
def test_class_names_that_are_wrong_are_refused(tmp_path: Path, content: bytes, said: str) -> None:
    names = tmp_path / "names.txt"
    names.write_bytes(content)
    with pytest.raises(DataError, match=said):
        list_folder(names)


@pytest.mark.parametrize("suffix", WRITERS)
def test_columns_may_have_other_names(toy: Path, suffix: str) -> None:
    table = toy.parent / f"mine.{suffix}"
    names = {"path": "File Name", "label": "Kind", "domain": "domain"}
    WRITERS[suffix](table, [{names[key]: cell for key, cell in row.items()} for row in _rows(toy)])
    found = list_folder(table, columns=["path=file name", " label = kind"])
    assert _read(found) == [(*each[:2], f"a {each[2]}") for each in _read(list_folder(toy))]
    with pytest.raises(DataError, match=r"there is no `path`\. The columns are: "):
        list_folder(table)
    assert len(find_pool(str(table), ["path=file name"]).images) == 27


@pytest.mark.parametrize("part", [";", "\t"])
def test_a_spreadsheet_may_part_cells_otherwise(toy: Path, part: str) -> None:
    table = toy.parent / "mine.csv"
    rows = _rows(toy)
    table.write_text("\n".join([part.join(rows[0]), *(part.join(row.values()) for row in rows)]))
    assert _read(list_folder(table)) == [(*each[:2], f"a {each[2]}") for each in _read(list_folder(toy))]


@pytest.mark.parametrize("columns", ["file=path", "path", "path=", "=x"])
def test_what_is_no_name_of_a_column_is_refused(toy: Path, columns: str) -> None:
    table = toy.parent / "mine.csv"
    _csv(table, _rows(toy))
    with pytest.raises(UsageError, match="is not a pair COLUMN=NAME"):
        list_folder(table, columns=[columns])
