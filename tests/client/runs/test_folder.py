"""How a run begins, what it logs and forgets of it, and what it tells of its teacher."""

import json
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from client.errors import ClientError, RunBusy, UsageError
from client.learning.recipe import Recipe
from client.results.records import MetricsRow
from client.runs.folder import RunFolder
from tests.client.cards import MODEL
from tests.client.toy import run_config

CONFIG = run_config()


class _Overtaken(RunFolder):
    """A run that another process begins just before this one has it to itself."""

    def claimed(self) -> AbstractContextManager[None]:
        self.first_id = RunFolder(self.path).begin(CONFIG)
        return super().claimed()


class _Met(RunFolder):
    """A run that another process would begin at the moment when this one does."""

    def write(self, file: Path, value: dict[str, Any]) -> None:
        with pytest.raises(RunBusy):
            RunFolder(self.path).begin(CONFIG)
        super().write(file, value)


def test_processes_that_begin_one_run_at_once_know_it_by_one_id(tmp_path: Path) -> None:
    late, met = _Overtaken(tmp_path / "late"), _Met(tmp_path / "met")
    assert late.begin(CONFIG) == late.first_id == late.id_of(CONFIG)
    assert met.begin(CONFIG) == met.id_of(CONFIG)


def test_a_run_that_was_killed_as_it_began_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    run = RunFolder(tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        patched.setattr("client.paths.discard", lambda _: None)  # nobody tidies up after a kill
        with pytest.raises(KeyboardInterrupt):
            run.begin(CONFIG)
    assert {each.name for each in run.path.iterdir()} == {"config.json.lock", "config.json.part"}
    assert run.begin(CONFIG) == run.id_of(CONFIG)
    assert not run.config.with_name("config.json.part").exists()


def test_a_folder_of_something_else_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes.txt.part").touch()
    with pytest.raises(UsageError, match="exists and is not a run"):
        RunFolder(tmp_path).begin(CONFIG)
    assert [each.name for each in tmp_path.iterdir()] == ["notes.txt.part"]


@pytest.mark.parametrize("name", ["report.html", "report.html.part", "metrics.jsonl"])
def test_nothing_is_written_where_a_link_in_a_run_leads(tmp_path: Path, name: str) -> None:
    (tmp_path / "profile").write_text("")
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    (run.path / name).symlink_to(tmp_path / "profile")
    run.write_text(run.report, "a report")
    run.log(MetricsRow(stage="align", seconds=2.0))
    assert (tmp_path / "profile").read_text() == ""
    assert (run.report.read_text(), run.seconds()) == ("a report", {"align": 2.0})


def test_seconds_are_summed_over_interruptions_and_not_over_what_is_trained_anew(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.log(MetricsRow(stage="align", seconds=2.0))
    run.log(MetricsRow(stage="distill", step=1, loss=0.5))
    run.log(MetricsRow(stage="distill", step=2, loss=0.4))
    run.log(MetricsRow(stage="distill", seconds=5.0))
    run.forget("distill", after_step=1)  # it goes on after an interruption
    run.log(MetricsRow(stage="distill", step=2, loss=0.3))
    run.log(MetricsRow(stage="distill", seconds=1.0))
    assert run.seconds() == {"align": 2.0, "distill": 6.0}
    run.forget("distill", after_step=0)
    run.log(MetricsRow(stage="distill", step=1, loss=0.5))
    run.log(MetricsRow(stage="distill", seconds=4.0))
    assert run.seconds() == {"align": 2.0, "distill": 4.0}


def test_it_tells_of_the_model_that_it_began_with(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.began_with is None
    run.write(run.plan, {"model": None, "purchase": None})
    assert run.began_with is None
    run.write(run.plan, {"model": MODEL.model_dump(mode="json")})  # all that a comparison's plan has
    assert run.began_with == MODEL
    run.write(run.plan, {"model": {}})
    with pytest.raises(ClientError, match=r"plan\.json is not what this version of Tuition writes"):
        _ = run.began_with


def test_of_other_options_those_are_named_that_differ(tmp_path: Path) -> None:
    run, recipe = RunFolder(tmp_path), Recipe(steps=4)
    config = run_config(recipe=recipe)
    run.begin(config)
    run.metrics.touch()
    other = replace(recipe, steps=5, augmentation=replace(recipe.augmentation, jitter=0.5))
    with pytest.raises(UsageError) as refused:
        run.begin(config.changed(seed=1, recipe=other))
    assert "options (jitter: 0.3 -> 0.5; steps: 4 -> 5; seed: 0 -> 1). Choose" in str(refused.value)
    known = json.loads(run.config.read_text())
    known["recipe"]["momentum"] = 0.9
    run.write(run.config, known)
    with pytest.raises(UsageError, match=r"\(momentum: 0\.9 -> None\)"):
        run.begin(config)


def test_a_run_may_be_given_other_prompts_and_its_student_keeps_those_it_learnt_by(tmp_path: Path) -> None:
    run, other = RunFolder(tmp_path / "run"), CONFIG.changed(prompt=("the {}",))
    run_id = run.begin(CONFIG)
    run.log(MetricsRow(stage="align", seconds=2.0))
    assert run.begin(other) == run_id
    assert run.read_config() == other
    with pytest.raises(UsageError, match=r"other options \(seed: 0 -> 1\)"):
        run.begin(CONFIG.changed(seed=1))
    run.student.touch()
    assert run.begin(CONFIG) == run_id
    assert run.read_config() == other
    successor = run.begin_replacement(CONFIG)
    successor.student.touch()
    run.finish_replacement(whole=True)
    assert run.read_config() == CONFIG
    assert run.id_of(CONFIG) == run_id
