"""benchmarks/runs.csv: what was measured once is taken from there, and only while it holds."""

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from itertools import dropwhile, takewhile
from pathlib import Path
from zipfile import ZipFile

import pytest

from benchmarks import accuracy, records, runs
from benchmarks.records import TOGETHER, Record, made_with, record, recorded
from benchmarks.runs import measured, parser_of_runs
from client.data.bundled_set import ICONS
from client.data.listing import list_folder
from client.data.pool import find_pool
from client.learning.recipe import Recipe, Variant
from client.options.vendor import VendorOptions
from client.progress import Display
from client.results.run_result import RunResult
from client.runs import comparison, dataset
from client.runs.cells import Cell
from client.runs.comparison import ComparisonConfig, ComparisonRunner
from client.runs.connection import Connection
from tests.client.toy import draw, make_folder, run_config

RESULT = RunResult(
    "erm",
    "red",
    1,
    2 / 3,
    0.1 + 0.2,
    0,
    0,
    12.34,
    over_classes=1 / 3,
    over_twins=0.7,
    in_domain_cross_fitted=0.6,
)


def _config(data: Path, *methods: str, recipe: Recipe | None = None, seed: int = 1) -> ComparisonConfig:
    variants = [Variant(method, method, recipe or Recipe()) for method in methods]
    return ComparisonConfig(
        run_config(data, student="tf_efficientnet_lite0", image_size=64), variants, ["red"], [seed]
    )


def _cells(config: ComparisonConfig) -> Sequence[Cell]:
    nobody = Connection(VendorOptions(vendor="http://vendor"), Display())
    return ComparisonRunner(config, Path("never-made"), nobody, device="cpu").cells


def test_a_line_says_what_was_measured(tmp_path: Path) -> None:
    file = tmp_path / "runs.csv"
    assert recorded(file) == {}
    first = Record("0a", "table", "", RESULT)
    second = Record("0b", "table", "icon-clip (fp_1)", replace(RESULT, queries=7, is_teacher=True))
    third = replace(first, made_with="0c", result=replace(RESULT, in_domain=None, labels=0, budget=54))
    record([first], file)
    record([second, replace(third, result=replace(third.result, out_of_domain_interval=(0.1, 0.5)))], file)
    assert len({line.count(",") for line in file.read_text().splitlines()}) == 1  # an interval follows
    assert list(recorded(file).values()) == [
        replace(each, result=replace(each.result, seconds=12.3)) for each in (first, second, third)
    ]


def test_a_line_that_is_shorter_than_the_first_lacks_what_was_not_yet_measured(tmp_path: Path) -> None:
    file = tmp_path / "runs.csv"
    record([Record("0a", "table", "", RESULT), Record("0b", "table", "", RESULT)], file)
    header, first, second = file.read_text().splitlines()
    file.write_text("\n".join([header, first, *second.rsplit(",", 4)[:1], ""]))
    assert [each.result.over_twins for each in recorded(file).values()] == [0.7, None]
    for line in recorded().values():  # nothing of a line stands under no name
        assert line.result.over_twins is None or 0 < line.result.over_twins < 1
    assert max(map(len, (line.split(",") for line in records.RECORD.read_text().splitlines()[1:]))) <= len(
        records.RECORD.read_text().partition("\n")[0].split(",")
    )


def test_a_run_is_known_by_all_that_decides_it(tmp_path: Path) -> None:
    here, there = (make_folder(tmp_path / name, images=1) for name in ("here", "there"))
    recipe = Recipe()
    configs = [
        _config(here, "erm"),
        _config(here, "erm", seed=0),
        _config(here, "erm+swad"),
        _config(here, "erm", recipe=replace(recipe, steps=1201)),
        _config(here, "erm", recipe=replace(recipe, augmentation=replace(recipe.augmentation, style=0.3))),
        *(
            replace(_config(here, "erm"), run=_config(here, "erm").run.changed(**{name: value}))
            for name, value in {"student": "resnet18", "use_at_most": 9, "select": "random"}.items()
        ),
    ]
    keys = [made_with(cell) for config in configs for cell in _cells(config)]
    assert len(set(keys)) == len(configs)
    assert [made_with(cell) for cell in _cells(_config(there, "erm"))] == keys[:1]
    (there / "light").rename(there / TOGETHER)
    assert [made_with(cell) for cell in _cells(_config(there, "erm"))] != keys[:1]
    renamed = replace(configs[0], variants=[Variant("fine-tuning", "erm", recipe)])
    assert [made_with(cell) for cell in _cells(renamed)] == keys[:1]


def test_a_run_with_fewer_labels_is_known_by_how_many_wherever_its_images_lie(tmp_path: Path) -> None:
    def keys(name: str, labels: list[int | None]) -> list[str]:
        data = make_folder(tmp_path / name, images=3)
        (pool := tmp_path / name / "more" / "pool").mkdir(parents=True)
        draw("circle", "white", "red", seed=1).save(pool / "1.png")
        config = _config(data, "vl2v-adip")
        run = config.run.changed(unlabelled=(str(pool),))
        nobody = Connection(VendorOptions(vendor="http://vendor", cache=tmp_path / name / "c.db"), Display())
        made = replace(config, run=run, labels=labels)
        return [made_with(cell) for cell in ComparisonRunner(made, Path("none"), nobody, device="cpu").cells]

    here = keys("here", [1, 2, 3, None])
    assert len(set(here)) == 4
    assert keys("there", [1, 2, 3, None]) == here


def test_what_is_on_record_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> None:
        raise AssertionError("a vendor was asked for")

    file = tmp_path / "runs.csv"
    monkeypatch.setattr(records, "RECORD", file)
    monkeypatch.setattr(runs, "customer", nobody)
    config = _config(make_folder(tmp_path / "toy", images=1), "erm", "erm+swad")
    first, second = (made_with(cell) for cell in _cells(config))
    record([Record(first, "table", "", RESULT)])
    with pytest.raises(AssertionError, match="a vendor"):
        measured([config])
    record([Record(second, "table", "", RESULT)])
    renamed = replace(config, variants=[replace(each, name=f"my {each.name}") for each in config.variants])
    assert [each.result.method for each in measured([renamed])] == ["my erm", "my erm+swad"]


def test_a_former_student_is_printed_from_the_record_and_not_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "RECORD", tmp_path / "runs.csv")
    config = _config(make_folder(tmp_path / "toy", images=1), "erm")
    config = replace(config, run=config.run.changed(student="efficientnet_lite0"))
    with pytest.raises(SystemExit, match="loads other weights today"):
        measured([config])
    record([Record(made_with(cell), "table", "", RESULT) for cell in _cells(config)])
    assert [each.result.method for each in measured([config])] == ["erm"]
    with pytest.raises(SystemExit):
        parser_of_runs(None, targets=["red"], seeds=[0]).parse_args(["--student", "efficientnet_lite0"])


def test_rows_of_a_former_student_that_lack_a_run_are_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(records, "RECORD", tmp_path / "runs.csv")
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    whole = _config(make_folder(tmp_path / "toy", images=1), "erm", "lp-ft", "kd")
    former = whole.run.changed(student="efficientnet_lite0")
    config = replace(whole, run=former, targets=["dark", "red"])
    known = [cell for cell in _cells(config) if (cell.variant.name, cell.target) != ("lp-ft", "red")]
    record(
        Record(made_with(cell), "table", "", replace(RESULT, target=cell.target, method=cell.variant.name))
        for cell in known
        if cell.variant.name != "kd"
    )
    assert [each.result.method for each in measured([config])] == ["erm", "erm"]
    assert "Left out, for 1 of its runs are not on record: lp-ft\n" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="loads other weights today"):
        measured([replace(config, variants=config.variants[1:])])


def test_what_lies_of_a_run_without_a_line_is_deleted_before_it_is_measured_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finished(comparison: ComparisonRunner) -> list[RunResult]:
        return [
            replace(RESULT, method=cell.variant.name, out_of_domain=float(cell.run.path.exists()))
            for cell in comparison.cells
        ]

    monkeypatch.setattr(records, "RECORD", tmp_path / "runs.csv")
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    nobody = Connection(VendorOptions(vendor="http://vendor"), Display())
    monkeypatch.setattr(runs, "customer", lambda: nullcontext(nobody))
    monkeypatch.setattr(ComparisonRunner, "execute", finished)
    config = _config(make_folder(tmp_path / "toy", images=1), "erm", "erm+swad")
    kept, forgotten = _cells(config)
    record([Record(made_with(kept), "table", "", RESULT)])
    folder = runs._folder_of(config) / "runs"
    for cell in (kept, forgotten):
        summary = folder / cell.run.path.name / "summary.json"
        summary.parent.mkdir(parents=True)
        summary.write_text("{}")
    found = {each.result.method: each.result.out_of_domain for each in measured([config])}
    assert found == {"erm": RESULT.out_of_domain, "erm+swad": 0.0}
    assert [each.name for each in folder.iterdir()] == [kept.run.path.name]


def test_runs_of_which_the_images_have_changed_are_measured_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finished(comparison: ComparisonRunner) -> list[RunResult]:
        """As a comparison begins; what it would train is said to be done."""
        comparison._begin()
        return [replace(RESULT, method=cell.variant.name) for cell in comparison.cells]

    monkeypatch.setattr(records, "RECORD", tmp_path / "runs.csv")
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    nobody = Connection(VendorOptions(vendor="http://vendor"), Display())
    monkeypatch.setattr(runs, "customer", lambda: nullcontext(nobody))
    monkeypatch.setattr(ComparisonRunner, "execute", finished)
    data = make_folder(tmp_path / "toy", images=1)
    config = _config(data, "erm")
    identity = runs._folder_of(config) / "comparison.json"
    measured([config])
    before = json.loads(identity.read_text())
    image = next(data.rglob("*.png"))
    image.write_bytes(image.read_bytes() + b"more")
    for seeds in ([1], [2]):  # one that lies there, and one that does not
        assert len(measured([replace(config, seeds=seeds)])) == 1
    now = json.loads(identity.read_text())
    assert now["run_id"] == before["run_id"]
    assert now["images"] != before["images"]


def test_what_was_unpacked_from_another_archive_is_not_taken_for_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "RUNS", tmp_path / "runs")
    archives = [tmp_path / name / "icons.zip" for name in ("before", "now")]
    for file in archives:
        file.parent.mkdir()
        with ZipFile(file, "w") as archive:
            archive.writestr(f"icons/{file.parent.name}.txt", "")
    for file in (*archives, archives[0]):
        folder = runs.unpacked(file)
        assert folder.name == "icons"
        assert [each.stem for each in folder.iterdir()] == [file.parent.name]
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_tables_of_the_results_are_what_their_commands_print(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the record: no vendor is asked, and nothing is trained. Folders of thousands are read once."""
    monkeypatch.setattr(dataset, "list_folder", cache(list_folder))
    monkeypatch.setattr(comparison, "find_pool", cache(find_pool))
    monkeypatch.setattr(runs, "customer", None)
    page = (records.ROOT / "docs" / "results.md").read_text()
    commands = list(re.finditer(r"^python -m benchmarks\.accuracy (--image-size.*)$", page, re.MULTILINE))
    assert len(commands) == 2
    for command in commands:
        monkeypatch.setattr("sys.argv", ["accuracy", *command[1].split()])
        accuracy.main()
        printed = _table_of(capsys.readouterr().out)
        assert _table_of(page[command.end() :]) == [
            {name: row[name] for name in written}
            for row, written in zip(printed, _table_of(page[command.end() :]), strict=True)
        ]


def _table_of(text: str) -> list[dict[str, str]]:
    """The first table's rows, by the names of their columns; a large number may have commas."""
    lines = dropwhile(lambda line: "|" not in line, text.splitlines())
    head, _, *rows = map(_cells_of, takewhile(lambda line: "|" in line, lines))
    return [dict(zip(head, row, strict=True)) for row in rows]


def _cells_of(line: str) -> list[str]:
    return [cell.strip(" *").replace("\\@", "@").replace(",", "") for cell in line.split("|")[1:-1]]


def test_no_line_is_out_of_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever changes images, teacher or recipe deletes the lines that no longer hold.

    Lines of what cannot be run any more stay: they say why it is gone.
    """
    monkeypatch.setattr(dataset, "list_folder", cache(list_folder))
    with ZipFile(ICONS) as archive:  # an image of each class and domain: the digest is of the archive
        first = {name.rpartition("/")[0]: name for name in reversed(archive.namelist())}
        archive.extractall(tmp_path, members=first.values())
    cells: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for each in recorded().values():
        found = re.fullmatch(r"accuracy-(.+)-(\d+)px-(\d+)", each.comparison)
        if found and "+wise" not in each.result.method and ":" not in each.result.method:
            cells[*found.groups(), each.result.target, str(each.result.seed)].append(each)
    assert cells
    for (student, size, steps, target, seed), lines in cells.items():
        recipe = Recipe().with_steps(int(steps))
        config = _config(tmp_path / "icons", "erm", seed=int(seed))
        student = student.replace("open_clip-", "open_clip:")
        config = replace(
            config,
            run=config.run.changed(student=student, image_size=int(size)),
            variants=[Variant(each.result.method, each.result.method, recipe) for each in lines],
            targets=[target],
        )
        assert [made_with(cell) for cell in _cells(config)] == [each.made_with for each in lines]
