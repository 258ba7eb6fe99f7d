"""The weights that the first of some generations began with."""

import shutil
from pathlib import Path

import torch

from client.learning.recipe import Recipe
from client.learning.student import save_tensors
from client.runs.folder import RunConfig, RunFolder
from client.runs.generations import first_weights


def _run(path: Path, weights: Path | None) -> Path:
    """A run that began with these weights; its student's file."""
    begun_with = None if weights is None else str(weights)
    config = RunConfig("toy", None, "erm", "none", 32, 0, "stratified", Recipe(), student_weights=begun_with)
    run = RunFolder(path)
    run.begin(config)
    save_tensors({"weight": torch.zeros(1)}, run.student, {"classes": "[]"})
    return run.student


def test_generations_lead_back_to_the_weights_that_the_first_one_began_with(tmp_path: Path) -> None:
    backbone = tmp_path / "backbone.safetensors"
    save_tensors({"weight": torch.zeros(1)}, backbone, {})
    assert first_weights(None) is None
    assert first_weights(str(backbone)) == str(backbone)
    for start, begun_with in (("named", None), ("own", backbone)):
        first = _run(tmp_path / start, begun_with)
        second = _run(tmp_path / f"{start}-2", first)
        assert first_weights(str(second)) == first_weights(str(first)) == (begun_with and str(begun_with))
    backbone.unlink()
    assert first_weights(str(second)) is None


def test_weights_that_may_have_seen_the_images_are_not_begun_with(tmp_path: Path) -> None:
    first = _run(tmp_path / "run", None)
    second = _run(tmp_path / "run-2", first)
    copy = tmp_path / "student.safetensors"
    shutil.copy(second, copy)
    assert first_weights(str(copy)) is None
    shutil.rmtree(first.parent)
    assert first_weights(str(second)) is None
    second.parent.rename(first.parent)  # now it says that it began with its own student
    assert first_weights(str(first)) is None
