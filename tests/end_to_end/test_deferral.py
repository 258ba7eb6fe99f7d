"""`client predict --ask-vendor`: unsure images are asked about once, within a budget that processes share."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from client.api.students import load_student
from client.learning.rejection import sureness
from client.learning.student_metadata import StudentMetadata
from client.learning.tensor_file import load_tensors, save_tensors
from client.results.predictions import read_predictions
from tests.client.toy import CLASSES, make_folder
from tests.end_to_end.command import TINY, Command
from tests.support.vendor_process import VendorProcess

_TEXTS = len(CLASSES) - 1  # one class the teacher knows by its images, and the student has that name
_IMAGES = 20


@pytest.fixture(scope="module")
def trained(vendor_process: VendorProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over toy pictures, which this module's tests copy nothing of and change nothing in."""
    folder = tmp_path_factory.mktemp("deferral")
    make_folder(folder / "toy", images=5)
    client = Command(folder, vendor_process.url, vendor_process.create_key(quota=1000))
    client(
        "distill", "--data", "toy", *TINY, "--image-size", "32", "--steps", "4", "--out", "run", "--budget",
        "100",
    )  # fmt: skip
    client("export", "run", "--out", "run/student.onnx")
    _, metadata = load_tensors(folder / "run" / "student.safetensors")
    assert len(json.loads(metadata["teacher_names"])) == len(CLASSES) - _TEXTS
    return folder / "run"


@pytest.fixture
def client(vendor_process: VendorProcess, tmp_path: Path) -> Command:
    """A customer with another cache and key than whoever trained the student, and with new images."""
    (tmp_path / "new").mkdir()
    rng = np.random.default_rng(1)
    for n in range(_IMAGES):
        noise = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((40, 40))
        noise.save(tmp_path / "new" / f"{n:02}.png")
    return Command(tmp_path, vendor_process.url, vendor_process.create_key(quota=1000))


def _rows(client: Command, student: Path, *more: str) -> tuple[list[dict[str, Any]], str]:
    said = client("predict", str(student), "new", "--json", *more)
    rows: list[dict[str, Any]] = json.loads(said.stdout)
    return rows, said.stderr


def _ask(client: Command, *more: str) -> tuple[str, ...]:
    return ("--ask-vendor", client.url, *more)


@pytest.mark.parametrize("file", ["", "student.onnx"])
def test_the_least_sure_share_is_asked_about_and_never_twice(
    client: Command, trained: Path, vendor_process: VendorProcess, file: str
) -> None:
    alone, _ = _rows(client, trained / file)
    assert "answered_by" not in alone[0]
    confidence = {row["image"]: max(row["classes"].values()) for row in alone}
    unsure = set(sorted(confidence, key=lambda name: confidence[name])[:5])

    rows, _ = _rows(client, trained / file, *_ask(client, "--ask-share", "0.25"))
    assert {row["image"] for row in rows if row["answered_by"] == "vendor"} == unsure
    assert vendor_process.charges(client.api_key).queries == _TEXTS + 5
    for row, before in zip(rows, alone, strict=True):
        assert (row["classes"] == before["classes"]) == (row["image"] not in unsure)
        assert sum(row["classes"].values()) == pytest.approx(1, abs=1e-3)

    again, _ = _rows(client, trained / file, *_ask(client, "--ask-share", "0.25"))
    assert {row["image"] for row in again if row["answered_by"] == "cache"} == unsure
    assert [row["classes"] for row in again] == [row["classes"] for row in rows]
    assert vendor_process.charges(client.api_key).queries == _TEXTS + 5


def test_a_budget_ends_and_the_student_answers_the_rest(
    client: Command, trained: Path, vendor_process: VendorProcess
) -> None:
    budget = ("--ask-share", "1", "--ask-budget", str(_TEXTS + 3))
    rows, said = _rows(client, trained, *_ask(client, *budget))
    assert [row["answered_by"] for row in rows].count("vendor") == 3
    assert (
        f"alone answered about {_IMAGES - 3} of {_IMAGES} images: the budget of {_TEXTS + 3} queries" in said
    )
    rows, _ = _rows(client, trained, *_ask(client, *budget))  # a restart does not fill it up
    assert [row["answered_by"] for row in rows].count("cache") == 3
    assert vendor_process.charges(client.api_key).queries == _TEXTS + 3
    _rows(client, trained, *_ask(client, *budget, "--ask-period", "day"))  # another period has its own
    assert vendor_process.charges(client.api_key).queries == 2 * (_TEXTS + 3)


def test_who_cannot_be_asked_is_told_of_the_options_that_there_are(
    client: Command, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client("embed", "--text", "a cat", "--out", "out.npy")
    monkeypatch.setattr("client.api.confirm.ASK_ABOVE_MICROS", -1)
    monkeypatch.setattr("sys.stdin", StringIO(""))
    asking = ("predict", str(trained), "new", *_ask(client, "--ask-share", "0.25"))
    for command in (asking, ("canary", "--text", "a cat")):
        assert "Add --yes to agree. Nothing was bought." in client(*command, code=2).stderr
    bought = ("embed", "--text", "a dog", "--out", "dog.npy")
    assert "or a cap with --max-spend" in client(*bought, code=2).stderr


def test_processes_at_once_pay_from_one_budget(
    client: Command, trained: Path, vendor_process: VendorProcess
) -> None:
    command = ("predict", str(trained / "student.onnx"), "--json", "--ask-vendor", client.url)
    halves = [[f"new/{n:02}.png" for n in range(start, _IMAGES, 3)] for start in range(3)]
    asking = (*command, "--ask-share", "1", "--ask-budget", str(_TEXTS + 10))
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        for process in [stack.enter_context(client.start(*asking, *half)) for half in halves]:
            out, err = process.communicate()
            assert process.returncode == 0, err
            rows += json.loads(out)
    assert [row["answered_by"] for row in rows].count("vendor") == 10
    assert vendor_process.charges(client.api_key).queries == _TEXTS + 10


def test_a_vendor_that_is_away_leaves_the_student_to_answer_and_another_model_is_refused(
    client: Command, trained: Path, vendor_process: VendorProcess
) -> None:
    alone, _ = _rows(client, trained)
    rows, said = _rows(client, trained, "--ask-vendor", "http://127.0.0.1:9")
    assert {row["answered_by"] for row in rows} == {"student"}
    assert [row["classes"] for row in rows] == [row["classes"] for row in alone]
    assert "alone answered about 4 of 4 images" in said
    assert "127.0.0.1:9" in said
    tensors, metadata = load_tensors(trained / "student.safetensors")
    other = client.folder / "other.safetensors"
    save_tensors(tensors, other, metadata | {"taught_by": "fp_other"})
    said = client("predict", str(other), "new", *_ask(client), code=1).stderr
    assert "The student learnt from the model fp_other" in said
    assert vendor_process.charges(client.api_key).queries == 0


def _sureness(classes: Mapping[str, float]) -> float:
    return float(sureness(np.array([[*classes.values()]]))[0])


@pytest.mark.parametrize("file", ["student.safetensors", "student.onnx"])
def test_a_run_fits_its_thresholds_on_its_hold_outs(client: Command, trained: Path, file: str) -> None:
    student = load_student(trained / file, device="cpu")
    paths = [trained.parent / "toy" / each.image for each in read_predictions(trained / "answers.csv")]
    held_out = sorted(_sureness(classes) for classes in student.predict(paths).classes.values())
    threshold = StudentMetadata.from_file(student.metadata).thresholds(0.3, asks=False).student
    assert threshold == pytest.approx(held_out[int(0.3 * (len(held_out) + 1)) - 1], abs=1e-4)
    rows, _ = _rows(client, trained / file, "--reject", "0.3")
    for row in rows:
        best = next(iter(row["classes"]))
        assert row["class"] == (None if _sureness(row["classes"]) < threshold else best)
    few = client("predict", str(trained / file), "new", "--reject", "0.01", code=2).stderr
    assert "The hold-outs were too few for a rate of false rejects below" in few


def test_the_vendor_decides_about_what_it_is_asked(client: Command, trained: Path) -> None:
    alone, _ = _rows(client, trained, "--reject", "0.3")
    rejected = [row["image"] for row in alone if row["class"] is None]
    share = len(rejected) / len(alone)  # what the student rejects is asked about first
    rows, _ = _rows(client, trained, "--reject", "0.3", *_ask(client, "--ask-share", str(share)))
    asked = [row for row in rows if row["answered_by"] == "vendor"]
    assert [row["image"] for row in asked] == rejected
    # Noise is not as near to a class text as most of the images that the teacher was asked about.
    assert {row["class"] for row in asked} == {None}


def test_bad_options_are_refused_before_anything_is_asked(client: Command, trained: Path) -> None:
    predict = ("predict", str(trained), "new")
    said = client(*predict, "--ask-share", "0.1", code=2).stderr
    assert "--ask-share counts only with --ask-vendor." in said
    assert "less than or equal to 1" in client(*predict, *_ask(client), "--ask-share", "1.5", code=2).stderr


def test_a_person_sees_who_answered_and_what_it_cost(client: Command, trained: Path) -> None:
    said = client("predict", str(trained), "new", "--top", "1", *_ask(client, "--ask-share", "0.1")).stdout
    assert "answered by" in said
    assert f"Answered {_IMAGES - 2} by student, 0 by cache, 2 by vendor; {_TEXTS + 2} queries paid" in said


def test_what_was_asked_is_kept_for_the_next_student_and_can_be_forgotten(
    client: Command, trained: Path, vendor_process: VendorProcess
) -> None:
    _rows(client, trained, *_ask(client, "--ask-share", "0.25", "--keep", "kept", "--keep-at-most", "4"))
    kept = list((client.folder / "kept").iterdir())
    assert len(kept) == 4
    paid = vendor_process.charges(client.api_key).queries
    distill = ("distill", "--from", str(trained), "--out", "next", "--adapt", "kept")
    plan = json.loads(client(*distill, "--dry-run", "--json").stdout)
    (pool,) = (each for each in plan["purchase"]["tranches"] if each["name"] == "unlabelled")
    assert (pool["queries"], pool["cached"], pool["to_buy"]) == (4, 4, 0)  # it was paid when it was asked

    assert json.loads(client("cache", "forget", "kept", "--older-than", "1", "--json").stdout) == {
        "images": 0, "embeddings": 0,
    }  # fmt: skip
    assert "Deleted 4 images and 4 embeddings." in client("cache", "forget", "kept").stdout
    assert not list((client.folder / "kept").iterdir())
    _rows(client, trained, *_ask(client, "--ask-share", "0.25"))
    assert vendor_process.charges(client.api_key).queries == paid + 4
    assert "No such file" in client("cache", "forget", "nowhere", code=2).stderr
