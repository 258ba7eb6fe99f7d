"""What a run logs is in TensorBoard once, however often its steps are taken."""

import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from client.results.records import MetricsRow
from client.runs.folder import RunFolder
from client.runs.tensorboard import mirrored


def _steps(folder: Path, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, round(event.value, 4)) for event in events.Scalars(name)]


def test_steps_that_are_taken_again_are_shown_once(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.log(MetricsRow(stage="distill", step=1, loss=0.5, holdout_domain_mean_accuracy=0.25))
    run.log(MetricsRow(stage="distill", step=2, loss=0.4))
    with mirrored(run):
        run.forget("distill", after_step=1)
        run.log(MetricsRow(stage="distill", step=2, loss=0.3))
        run.log(MetricsRow(stage="distill", seconds=1.5))
    run.log(MetricsRow(stage="distill", step=3, loss=0.2))
    assert _steps(run.tensorboard, "distill/loss") == [(1, 0.5), (2, 0.3)]
    assert _steps(run.tensorboard, "distill/holdout_domain_mean_accuracy") == [(1, 0.25)]


def test_without_it_a_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    run = RunFolder(tmp_path)
    with mirrored(run):
        run.log(MetricsRow(stage="distill", step=1, loss=0.5))
    assert run.rows()[0]["loss"] == 0.5
    assert not run.tensorboard.exists()
