"""The guide of docs/extending.md at work: its code is run, and trains students in one step each."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import client
from client.errors import UsageError
from tests.client.toy import draw, make_folder, tiny_student

PAGE = Path(__file__).parents[3] / "docs" / "extending.md"


@pytest.fixture(scope="module")
def guide() -> dict[str, Any]:
    """The names that the page's code defines."""
    names: dict[str, Any] = {"__name__": "guide"}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(block, names)
        assert block.count("\n") <= 30
    return names


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the options of a run of one step over toy pictures, and a teacher that knows colours."""
    make_folder(tmp_path / "toy", images=5)
    (tmp_path / "pool").mkdir()
    for number in range(4):
        draw("circle", "blue", "yellow", seed=number).save(tmp_path / "pool" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    tiny = tiny_student(tmp_path)

    def made(**given: Any) -> client.DistillOptions:
        usual = {**tiny, "data": "toy", "target_domain": "red", "cache": tmp_path / "cache.db", "out": "run"}
        return client.DistillOptions(**{**usual, "image_size": 32, "steps": 1, "budget": 100, **given})

    return made


def colours() -> client.Teacher:
    def images(pictures: list[Image.Image]) -> Any:
        return np.stack([np.asarray(each).mean((0, 1)) + 1 for each in pictures])

    def texts(words: list[str]) -> Any:
        return np.array([[len(word), 1.0, 1.0] for word in words])

    return client.Teacher.from_callable(images, texts, name="colours", fingerprint="1")


def test_methods_of_the_guide_train_students_and_an_edit_makes_them_outdated(
    guide: dict[str, Any], options: Any, tmp_path: Path
) -> None:
    run = client.distill(options(method=guide["near"], teacher=colours()))
    assert run.summary.method == "near"
    assert run.summary.queries_bought == 3 + run.summary.train_images
    stamp = run.student("cpu").metadata["stamp"]
    client.distill(options(method=guide["near"], teacher=colours()))
    assert client.load_student("run", device="cpu").metadata["stamp"] == stamp
    again: dict[str, Any] = {"__name__": "guide"}
    source = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
    exec(source.replace("1 - near", "2 - near"), again)
    with pytest.raises(UsageError, match="finished student of other images, answers, code or weights"):
        client.distill(options(method=again["near"], teacher=colours()))
    client.distill(options(method=again["near"], teacher=colours(), replace=True))
    assert client.load_student("run", device="cpu").metadata["stamp"] != stamp
    assert (
        json.loads((tmp_path / "run/purchase.json").read_text())["queries_bought"]
        == 3 + run.summary.train_images
    )


def test_an_averaged_teacher_of_the_guide_learns_of_images_without_labels_for_nothing(
    guide: dict[str, Any], options: Any
) -> None:
    torch.manual_seed(0)
    run = client.distill(options(method=guide["agreeing"], unlabelled=["pool"], budget=None))
    assert run.summary.unlabelled_images == 4
    assert run.summary.queries_bought == run.summary.queries_cached == 0
    assert run.plan.unlabelled_images == 4
