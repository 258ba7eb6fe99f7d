"""The stamp of a run: what training depends on, so that no artefact of other inputs is taken for its own."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from client.learning.recipe import Recipe
from client.progress import Display
from client.runs import distillation
from client.runs.distillation import Distillation
from client.runs.folder import RunConfig, RunFolder
from client.runs.sources import read_sources
from client.runs.targets import Lesson
from tests.client.toy import make_folder


def test_a_stamp_tells_targets_texts_and_the_choice_of_weights_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_folder(tmp_path / "toy", images=2)
    config = RunConfig(str(data), "red", "rise", "efficientnet_lite0", 32, 0, "stratified", Recipe())
    display = Display.of_nobody()
    run = Distillation(config, RunFolder(tmp_path), None, display, device="cpu", pixels=tmp_path)
    sources = read_sources(config, display)
    lesson = Lesson(torch.zeros(3, 5), [0, 1], torch.eye(3), outputs=3, texts=torch.zeros(3, 3, 4))
    stamps = [run._stamp(sources, lesson, None), run._stamp(sources, lesson, None)]
    assert stamps[0] == stamps[1]
    stamps.append(run._stamp(sources, replace(lesson, targets=torch.ones(3, 5)), None))
    stamps.append(run._stamp(sources, replace(lesson, texts=torch.ones(3, 3, 4)), None))
    stamps.append(run._stamp(sources, replace(lesson, texts=None), None))
    monkeypatch.setattr(distillation, "HOLDOUTS_AVERAGED_OVER", "images")
    stamps.append(run._stamp(sources, lesson, None))
    assert len(set(stamps)) == len(stamps) - 1
