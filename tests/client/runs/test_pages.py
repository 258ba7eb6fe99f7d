"""The pages of a run are made of its files, or it says which of them is none of this version."""

from pathlib import Path

import pytest

from client import load_run
from client.errors import ClientError
from client.results.predictions import LabelledPrediction, predictions_as_csv
from client.runs.folder import RunFolder
from tests.client.results.test_records import PLAN, SUMMARY
from tests.client.toy import run_config


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """What the pages are made of, some wrong answers aside."""
    run = RunFolder(tmp_path / "run")
    run.begin(run_config(method="vl2v-adip"))
    run.write(run.plan, PLAN)
    run.write(run.summary, {**SUMMARY, "leave_one_out": {}})  # a domain is held out
    answer = LabelledPrediction("red/circle/0.png", "red", False, "circle", "circle", 0.9)
    run.write_text(run.answers, predictions_as_csv([answer]))
    return run


def test_they_are_written_of_what_the_run_left(run: RunFolder) -> None:
    assert load_run(run.path).write_report().read_text().startswith("<!doctype html>")
    assert "held-out domain red" in run.model_card.read_text()


@pytest.mark.parametrize("name", ["plan", "review", "exports", "summary"])
def test_a_file_of_another_version_is_named(run: RunFolder, name: str) -> None:
    run.write(run.path / f"{name}.json", {"version": 7})
    with pytest.raises(ClientError, match=rf"{name}\.json is not what this version of Tuition writes"):
        load_run(run.path).write_report()
