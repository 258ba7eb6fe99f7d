"""A comparison before it buys and trains: what it reads, what it refuses, and how its runs are named."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from client.data.kept_images import KeptImages
from client.errors import DataError, RunBusy, UsageError
from client.learning.recipe import Recipe, Variant
from client.options.vendor import VendorOptions
from client.progress import Display
from client.runs.comparison import ComparisonConfig, ComparisonRunner
from client.runs.connection import Connection
from client.runs.dataset import read_dataset
from client.runs.folder import RunFolder
from tests.client.toy import make_folder, run_config


def _comparison(
    data: Path,
    out: Path,
    *,
    targets: Sequence[str] = (),
    unlabelled: tuple[str, ...] = (),
    weights: Path | None = None,
    student: str = "tf_efficientnet_lite0",
) -> ComparisonRunner:
    """One that neither buys nor connects."""
    config = ComparisonConfig(
        run_config(data, student=student, student_weights=weights, unlabelled=unlabelled),
        [Variant("erm", "erm", Recipe())],
        targets=targets,
        seeds=[0],
    )
    connection = Connection(VendorOptions(vendor="", cache=out.parent / "cache.db"), Display())
    return ComparisonRunner(config, out, connection, device="cpu")


def test_a_link_to_nowhere_among_unlabelled_images_counts_by_its_name(tmp_path: Path) -> None:
    pool, out = make_folder(tmp_path / "pool", images=1), tmp_path / "table"
    link = pool / "red" / "circle" / "gone.png"
    link.symlink_to("nowhere.png")
    out.mkdir()
    (out / "comparison.json").write_text('{"run_id": "1", "images": "other ones"}')
    comparison = _comparison(make_folder(tmp_path / "toy", images=1), out, unlabelled=(str(pool),))
    with pytest.raises(UsageError, match="have changed since"):
        comparison.quote()


def test_kept_images_may_show_a_domain_that_is_held_out_and_are_refused(tmp_path: Path) -> None:
    data, kept = make_folder(tmp_path / "toy", images=1), tmp_path / "kept"
    assert KeptImages(kept, at_most=9).keep([(data / "red" / "circle" / "00.png").read_bytes()]) == ""
    with pytest.raises(UsageError, match=r"cannot tell whether they show a domain that it holds out"):
        _comparison(data, tmp_path / "table", unlabelled=(str(kept),))
    shutil.copy(data / "red" / "square" / "00.png", kept / "own.png")
    assert _comparison(data, tmp_path / "table", unlabelled=(str(kept),)).cells


def test_a_split_that_has_changed_is_refused_as_images_are(tmp_path: Path) -> None:
    data, table = make_folder(tmp_path / "toy", images=2), tmp_path / "mine.csv"
    files = sorted(data.rglob("*.png"))

    def write(*sides: str) -> None:
        rows = [
            f"{file},{file.parts[-2]},{file.parts[-3]},{sides[n % len(sides)]}"
            for n, file in enumerate(files)
        ]
        table.write_text("\n".join(["path,label,domain,split", *rows]))

    write("train", "val")
    _comparison(table, tmp_path / "table")._begin()
    _comparison(table, tmp_path / "table")._begin()
    for sides in (("val", "train"), ("",)):
        write(*sides)
        with pytest.raises(
            UsageError, match=r"or their split or their prompts have changed since .* choose another --out"
        ):
            _comparison(table, tmp_path / "table").quote()
        with pytest.raises(UsageError, match="have changed since"):
            _comparison(table, tmp_path / "table")._begin()


def test_weights_that_are_others_by_now_are_refused(tmp_path: Path) -> None:
    data, weights, out = make_folder(tmp_path / "toy", images=1), tmp_path / "weights", tmp_path / "table"
    identity = out / "comparison.json"
    weights.write_bytes(b"of the first student")
    _comparison(data, out, weights=weights)._begin()
    begun = json.loads(identity.read_text())
    _comparison(data, out, weights=weights)._begin()
    assert json.loads(identity.read_text()) == begun

    weights.write_bytes(b"of the student that replaced it")
    with pytest.raises(UsageError, match=r"are not those that .*table was begun with"):
        _comparison(data, out, weights=weights).quote()
    with pytest.raises(UsageError, match=r"are not those that .*table was begun with"):
        _comparison(data, out, weights=weights)._begin()

    del begun["weights"]  # as it was before they were kept
    identity.write_text(json.dumps(begun))
    _comparison(data, out, weights=weights)._begin()
    assert json.loads(identity.read_text()).items() > begun.items()
    weights.write_bytes(b"of yet another one")
    with pytest.raises(UsageError, match="was begun with"):
        _comparison(data, out, weights=weights)._begin()


def test_weights_in_a_students_folder_that_are_others_by_now_are_refused(tmp_path: Path) -> None:
    data, model, out = make_folder(tmp_path / "toy", images=1), tmp_path / "model", tmp_path / "table"
    model.mkdir()
    (model / "open_clip_config.json").write_text('{"model_cfg": {}}')
    (model / "open_clip_model.safetensors").write_bytes(b"weights")
    student = f"open_clip:{model}"
    for _ in range(2):
        _comparison(data, out, student=student)._begin()
    (model / "open_clip_model.safetensors").write_bytes(b"others")
    with pytest.raises(UsageError, match=rf"The weights of {student} are not those that .*table was begun"):
        _comparison(data, out, student=student).quote()


def test_a_row_that_freezes_all_that_its_method_trains_is_refused(tmp_path: Path) -> None:
    comparison = _comparison(make_folder(tmp_path / "toy", images=1), tmp_path / "table")
    cells = [
        replace(
            cell,
            variant=replace(cell.variant, method=method),
            config=cell.config.changed(recipe=replace(Recipe(), frozen=1.0)),
        )
        for cell in comparison.cells
        for method in ("erm", "text-only")
    ]
    comparison._require_students(cells[:1], None)
    with pytest.raises(UsageError, match="nothing is left for text-only to train"):
        comparison._require_students(cells, None)


def test_a_comparison_without_weights_has_none_on_record(tmp_path: Path) -> None:
    data, out = make_folder(tmp_path / "toy", images=1), tmp_path / "table"
    _comparison(data, out)._begin()
    assert set(json.loads((out / "comparison.json").read_text())) == {"run_id", "images"}


def test_a_comparison_that_two_processes_begin_at_once_has_one_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, identity = make_folder(tmp_path / "toy", images=1), tmp_path / "table" / "comparison.json"
    write, met = RunFolder.write, list[str]()

    def write_as_another_begins(run: RunFolder, file: Path, value: dict[str, Any]) -> None:
        if file == identity and not met:
            met.append(value["run_id"])
            with pytest.raises(RunBusy):
                _comparison(data, identity.parent)._begin()
        write(run, file, value)

    monkeypatch.setattr(RunFolder, "write", write_as_another_begins)
    _comparison(data, identity.parent)._begin()
    _comparison(data, identity.parent)._begin()
    assert [json.loads(identity.read_text())["run_id"]] == met


def test_a_comparison_that_was_killed_as_it_began_begins_anew(tmp_path: Path) -> None:
    data, out = make_folder(tmp_path / "toy", images=1), tmp_path / "table"
    out.mkdir()
    (out / "comparison.json.part").touch()
    (out / "config.json.lock").touch()
    _comparison(data, out)._begin()
    assert (out / "comparison.json").exists()


def test_a_table_behind_a_link_is_read_under_the_links_name(tmp_path: Path) -> None:
    data = make_folder(tmp_path / "toy", images=1)
    images = [path.relative_to(data) for path in sorted(data.rglob("*.png"))]
    rows = [f"{path},{path.parts[1]},{path.parts[0]}\n" for path in images]
    (tmp_path / "stored").write_text("path,label,domain\n" + "".join(rows))  # as DVC keeps it
    (data / "labels.csv").symlink_to("../stored")
    cells = _comparison(data / "labels.csv", tmp_path / "table").cells
    assert [cell.target for cell in cells] == ["dark", "light", "red"]
    assert {len(read_dataset(cell.config, Display()).examples) for cell in cells} == {6}


def _table(file: Path, images: Path) -> Path:
    """A table of the images in a folder, which tells where they are from the root."""
    parts = [(path, path.relative_to(images).parts) for path in sorted(images.rglob("*.png"))]
    rows = [f"{path},{label},{domain}\n" for path, (domain, label, _) in parts]
    file.write_text("path,label,domain\n" + "".join(rows))
    return file


def test_a_comparison_over_a_table_is_named_by_it(tmp_path: Path) -> None:
    images = make_folder(tmp_path / "toy", images=1)
    assert _comparison(_table(images / "v3.csv", images), tmp_path / "table").setting.data == "v3.csv"
    assert _comparison(images, tmp_path / "other").setting.data == "toy"


def test_images_that_a_table_in_a_linked_folder_tells_have_not_changed(tmp_path: Path) -> None:
    images = make_folder(tmp_path / "toy", images=1)
    (tmp_path / "below").mkdir()
    linked, out = tmp_path / "below" / "linked", tmp_path / "table"
    linked.symlink_to(images)
    table = _table(images / "mine.csv", images)
    _comparison(linked / table.name, out)._begin()
    _comparison(table, out)._begin()
    with next(images.rglob("*.png")).open("ab") as image:
        image.write(b"more")
    for data in (table, linked / table.name):
        with pytest.raises(UsageError, match="have changed since"):
            _comparison(data, out).quote()


def test_class_names_alone_are_nothing_to_compare_on(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\n")
    for targets in ((), ("red",)):
        with pytest.raises(DataError, match="there is no labelled image"):
            _comparison(names, tmp_path / "table", targets=targets)


def test_each_domain_of_a_table_has_a_folder_of_its_own_whatever_its_name(tmp_path: Path) -> None:
    names = {
        "red": "erm-red-0",
        "100% cotton": "erm-100% cotton-0",
        "2024/05": "erm-2024%2F05-0",
        "2024%2F05": "erm-2024%252F05-0",
        "2024%252F05": "erm-2024%25252F05-0",
        "a/../../../elsewhere": "erm-a%2F..%2F..%2F..%2Felsewhere-0",
        "a\0": "erm-a%00-0",
        "a%00": "erm-a%2500-0",
        "%2E": "erm-%252E-0",
    }
    table = tmp_path / "mine.jsonl"
    rows = [{"path": f"{n}.png", "label": "x", "domain": name} for n, name in enumerate(names)]
    for row in rows:
        (tmp_path / row["path"]).touch()
    table.write_text("\n".join(map(json.dumps, rows)))
    cells = _comparison(table, tmp_path / "table").cells
    assert {cell.target: cell.run.path for cell in cells} == {
        domain: tmp_path / "table" / "runs" / name for domain, name in names.items()
    }


def test_rows_are_repeated_with_fewer_labels_and_with_each_budget_that_reaches_their_texts(
    tmp_path: Path,
) -> None:
    """Of 3 classes in 3 domains with 4 images each; the target keeps its labels, the others share a few."""
    data = make_folder(tmp_path / "toy", images=4)
    config = ComparisonConfig(
        run_config(data),
        [Variant(name, name, Recipe()) for name in ("erm", "vl2v-adip")],
        targets=["red"],
        seeds=[0],
        labels=[0, 1, 3, None],
        budgets=[0, 2, 7, None],
    )
    connection = Connection(VendorOptions(vendor="", cache=tmp_path / "cache.db"), Display())
    cells = ComparisonRunner(config, tmp_path / "table", connection, device="cpu").cells
    rows = [(cell.variant.name, cell.labels, cell.budget, cell.config.use_at_most) for cell in cells]
    asking = [("vl2v-adip", budget, budget) for budget in (7, None)]  # 0 and 2 do not reach three class texts
    assert rows == [
        row
        for labels in (0, 1, 3, None)
        for row in (
            *([("erm", labels, None, None)] if labels != 0 else []),
            *((name, labels, *budgets) for name, *budgets in asking),
        )
    ]
    assert len({cell.run.path for cell in cells}) == len(cells)
    kept: dict[int | None, set[Path]] = {}
    for cell in cells:
        dataset = read_dataset(cell.config, Display())
        labelled = [*dataset.train, *dataset.holdout]
        assert len(labelled) == len(dataset.classes) * {0: 0, 1: 1, 3: 3, None: 8}[cell.labels]
        learns = cell.variant.name == "vl2v-adip"
        if cell.labels is not None:
            assert len(labelled) + len(dataset.unlabelled) == (24 if learns else len(labelled))
        assert dataset.folder.count("red") == 12
        kept[cell.labels] = {dataset.examples[position].path for position in labelled}
    assert kept[1] < kept[3]
    assert {path.parts[-3] for path in kept[3]} == {"dark", "light"}
