"""`client export --int8`: a file of a quarter of the size, measured beside the other, or none at all."""

import csv
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.data.examples import Example
from client.data.images import Pixels
from client.learning.tensor_file import load_tensors
from client.results.onnx_quantization import write_int8
from client.results.records import ExportedFile
from client.runs.evaluation import answers_by
from client.runs.exports import _loss
from client.runs.generations import Seen
from tests.client.toy import CLASSES, draw, make_folder
from tests.end_to_end.command import TINY, Command
from tests.support.vendor_process import VendorProcess


@pytest.fixture(scope="module")
def client(vendor_process: VendorProcess, tmp_path_factory: pytest.TempPathFactory) -> Command:
    folder = tmp_path_factory.mktemp("exports")
    make_folder(folder / "toy", images=8)
    client = Command(folder, vendor_process.url, vendor_process.create_key(quota=1000))
    _distill(client, "run", *TINY)
    return client


def _distill(client: Command, out: str, *student: str) -> None:
    data = ("--data", "toy", "--target-domain", "red", "--budget", "100")
    client("distill", *data, *student, "--image-size", "32", "--steps", "8", "--out", out)


@pytest.mark.slow
def test_eight_bits_are_a_quarter_and_say_nearly_the_same(client: Command) -> None:
    _distill(client, "lite0")
    said = client("export", "lite0", "--out", "small.onnx", "--int8", "--allow-loss", "100", "--json").stdout
    whole, small = json.loads(said)["files"]
    assert (whole["kind"], small["kind"]) == ("float32", "int8")
    file = client.folder / "small.onnx"
    assert file.stat().st_size == small["size_bytes"] < whole["size_bytes"] / 3
    image = next((client.folder / "toy" / "red").glob("*/*.png"))
    (row,) = json.loads(client("predict", "small.onnx", str(image), "--json").stdout)
    assert sum(row["classes"].values()) == pytest.approx(1)
    summary = json.loads((client.folder / "lite0" / "summary.json").read_text())
    assert whole["out_of_domain"] == pytest.approx(summary["accuracy"]["out_of_domain"])
    assert whole["in_domain"] == pytest.approx(summary["accuracy"]["in_domain"])
    low, high = whole["out_of_domain_interval"]
    assert [low, high] == pytest.approx(summary["accuracy"]["out_of_domain_interval"])
    measured = json.loads(
        client("evaluate", "small.onnx", "--data", "toy", "--domain", "red", "--json").stdout
    )
    assert measured["red"]["accuracy"] == pytest.approx(small["out_of_domain"])
    assert json.loads((client.folder / "lite0" / "exports.json").read_text())["files"] == [whole, small]
    report = (client.folder / "lite0" / "report.html").read_text()
    assert "eight bits (int8)" in report
    assert f"({100 * low:.1f} to {100 * high:.1f})" in report
    assert f"{small['size_bytes'] / 2**20:.1f} MiB" in report


def test_a_file_that_loses_too_much_is_not_written(client: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.runs.exports._loss", lambda *_: 1.41)
    said = client("export", "run", "--out", "lossy.onnx", "--int8", code=2).stderr
    assert "loses 1.4 points of accuracy" in said
    assert "--allow-loss 1.5" in said
    assert not (client.folder / "lossy.onnx").exists()
    client("export", "run", "--out", "lossy.onnx", "--int8", "--allow-loss", "1.5")
    assert (client.folder / "lossy.onnx").exists()


@pytest.mark.parametrize(
    ("whole", "small", "lost"),
    [
        ((0.9, 0.8), (0.9, 0.75), 5.0),
        ((0.9, 0.8), (0.8, 0.8), 10.0),
        ((0.9, None), (0.85, None), 5.0),
        ((None, None), (None, None), 0.0),
    ],
)
def test_the_loss_is_the_larger_one_of_hold_outs_and_target_domain(
    whole: tuple[float | None, float | None], small: tuple[float | None, float | None], lost: float
) -> None:
    files = (
        ExportedFile(
            kind="any",
            size_bytes=1,
            milliseconds=1.0,
            images_per_second=1.0,
            in_domain=accuracy[0],
            out_of_domain=accuracy[1],
        )
        for accuracy in (whole, small)
    )
    assert _loss(*files) == pytest.approx(lost)


@pytest.mark.parametrize("count", [20, 100])
def test_the_ranges_are_told_by_images_of_every_domain(
    client: Command, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    shown: list[Pixels] = []

    def watched(whole: Path, small: Path, batches: Iterable[Pixels]) -> None:
        shown.extend(picture for batch in batches for picture in batch)
        write_int8(whole, small, [np.stack(shown)])

    monkeypatch.setattr("client.runs.exports.write_int8", watched)
    monkeypatch.setattr("client.runs.exports._CALIBRATED_ON", count)
    client("export", "run", "--out", "evenly.onnx", "--int8", "--allow-loss", "100")
    train = json.loads((client.folder / "run" / "summary.json").read_text())["train_images"]
    assert 20 < train < 40
    assert len(shown) == min(count, train)
    light = [picture[0, 0].mean() > 127 for picture in shown]  # the others are of the domain dark
    assert 0.3 < np.mean(light) < 0.7


def test_no_image_that_the_student_was_trained_on_measures_it(
    client: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images were added since, so that the split would be another; some lie in the target domain by now."""
    toy = client.folder / "whole"
    shutil.copytree(client.folder / "toy", toy)
    for number in range(24):
        picture = draw(CLASSES[number % 3], "black", "white", seed=5000 + number)
        picture.save(client.folder / "toy" / "dark" / CLASSES[number % 3] / f"new{number}.png")
    for file in (client.folder / "toy" / "light").glob("*/0[0-3].png"):
        shutil.copy(file, client.folder / "toy" / "red" / file.parent.name / f"light{file.name}")
    measured: list[Example] = []

    def watched(classifier: Any, folder: Any, examples: list[Example], *, seen: bool) -> Any:
        measured.extend(examples)
        return answers_by(classifier, folder, examples, seen=seen)

    monkeypatch.setattr("client.runs.exports.answers_by", watched)
    try:
        client("export", "run", "--out", "later.onnx", "--int8", "--allow-loss", "100")
    finally:
        shutil.rmtree(client.folder / "toy")
        toy.rename(client.folder / "toy")
    assert {each.domain for each in measured} == {"dark", "light", "red"}
    assert sum(each.domain == "red" for each in measured) >= 2 * 24  # its own, for both files
    trained = load_tensors(client.folder / "run" / "seen.safetensors")[0]["here"]
    assert not Seen(trained.numpy()).among(measured)


def test_a_target_domain_that_the_student_was_trained_on_by_now_is_not_measured(client: Command) -> None:
    red, whole = client.folder / "toy" / "red", client.folder / "red"
    red.rename(whole)
    answers = (client.folder / "run" / "answers.csv").read_text().splitlines()
    held = {row["image"] for row in csv.DictReader(answers)}
    try:
        for name in CLASSES:
            (red / name).mkdir(parents=True)
        for file in (client.folder / "toy" / "dark").glob("*/*.png"):
            if file.relative_to(client.folder / "toy").as_posix() not in held:
                shutil.copy(file, red / file.parent.name)
        client("export", "run", "--out", "later.onnx", "--int8", "--allow-loss", "100")
        files = json.loads((client.folder / "run" / "exports.json").read_text())["files"]
        assert [each["out_of_domain"] for each in files] == [None, None]
        assert (client.folder / "run" / "report.html").read_text().count(">not measured<") == 2
    finally:
        shutil.rmtree(red)
        whole.rename(red)


def test_the_report_and_the_files_are_measured_on_the_same_images(client: Command) -> None:
    """Of the target domain those that are no copies of images of another."""
    copied = client.folder / "copied"
    shutil.copytree(client.folder / "toy", copied)
    for file in (copied / "dark").glob("*/0[0-3].png"):
        shutil.copy(file, copied / "red" / file.parent.name / f"dark{file.name}")
    small = ("--method", "erm", *TINY, "--image-size", "32", "--steps", "2")
    run = ("distill", "--data", "copied", "--target-domain", "red", *small, "--out", "without-copies")
    shown = client(*run)
    assert "Left out: 12 a copy of an image of another domain" in shown.stdout
    where = client.folder / "without-copies"
    summary = json.loads((where / "summary.json").read_text())
    assert summary["left_out"] == {"a copy of an image of another domain": 12}
    assert summary["accuracy"]["images_by_domain"]["red"] == 24
    for page in ("report.html", "README.md"):
        told = "Images of red that are copies of images of other domains are left out (12)"
        assert told in (where / page).read_text()
    said = client("export", "without-copies", "--out", "a.onnx", "--int8", "--allow-loss", "100", "--json")
    whole = json.loads(said.stdout)["files"][0]
    assert whole["out_of_domain"] == pytest.approx(summary["accuracy"]["out_of_domain"])


def test_a_target_domain_of_copies_alone_measures_nothing(client: Command) -> None:
    alike = client.folder / "alike"
    shutil.copytree(client.folder / "toy", alike)
    shutil.rmtree(alike / "red")
    shutil.copytree(alike / "dark", alike / "red")
    small = ("--method", "erm", *TINY, "--image-size", "32", "--steps", "2")
    run = ("distill", "--data", "alike", "--target-domain", "red", *small, "--out", "alike-run")
    said = client(*run, code=2).stderr
    assert f"All images of red in {alike} are copies of images of other domains" in said
    assert not (client.folder / "alike-run" / "summary.json").exists()


def test_it_takes_a_run_with_its_images(client: Command, tmp_path: Path) -> None:
    said = client("export", "run/student.safetensors", "--out", "x.onnx", "--int8", code=2).stderr
    assert "--int8 takes the directory of a run" in said
    assert "--int8 takes" in client("export", "run", "--out", "x.safetensors", "--int8", code=2).stderr
    (client.folder / "toy").rename(tmp_path / "elsewhere")
    try:
        assert "does not exist" in client("export", "run", "--out", "x.onnx", "--int8", code=2).stderr
    finally:
        (tmp_path / "elsewhere").rename(client.folder / "toy")
    assert not (client.folder / "x.onnx").exists()


def test_a_page_in_the_runs_folder_is_linked_from_its_report(client: Command) -> None:
    report, web = client.folder / "run" / "report.html", client.folder / "run" / "web"
    assert "client export run --web run/web" in report.read_text()
    (client.folder / "nothing").mkdir()
    said = client("export", "run", "--web", "nothing", "--json").stdout
    assert json.loads(said)["labels_differ"] == 0
    client("report", "run")
    assert 'href="web/index.html"' not in report.read_text()
    client("export", "run", "--web", "run/web", "--int8", "--allow-loss", "100")
    small = json.loads((client.folder / "run" / "exports.json").read_text())["files"][1]
    assert (web / "student.onnx").stat().st_size == small["size_bytes"]
    facts = json.loads((web / "student.json").read_text())
    assert facts["name"] == "run"
    assert facts["expected_accuracy"]["in_domain"] == small["in_domain"]
    assert facts["expected_accuracy"]["out_of_domain"] == small["out_of_domain"]
    assert 'href="web/index.html"' in report.read_text()
    assert "client export run --web" not in report.read_text()


def test_the_page_of_an_earlier_student_is_not_linked(client: Command) -> None:
    client("export", "run", "--web", "run/web")
    facts = client.folder / "run" / "web" / "student.json"
    facts.write_text(json.dumps({**json.loads(facts.read_text()), "stamp": "of another"}))
    client("report", "run")
    assert 'href="web/index.html"' not in (client.folder / "run" / "report.html").read_text()


def test_a_page_that_cannot_be_made_leaves_no_folder(
    client: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.runs.exports._loss", lambda *_: 2.41)
    before = {path.name for path in client.folder.iterdir()}
    assert "loses 2.4 points" in client("export", "run", "--web", "page", "--int8", code=2).stderr
    assert "--int8 takes" in client("export", "small.onnx", "--web", "page", "--int8", code=2).stderr
    assert {path.name for path in client.folder.iterdir()} == before
