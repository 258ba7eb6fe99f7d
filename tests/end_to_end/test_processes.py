"""One run in two processes: the losses of one process, one purchase, one writer."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.client.toy import make_folder
from tests.end_to_end.command import Command
from tests.support.two_processes import two_processes
from tests.support.vendor_process import VendorProcess

STEPS = 6


@pytest.fixture
def client(vendor_process: VendorProcess, tmp_path: Path) -> Command:
    make_folder(tmp_path / "toy", images=6)
    return Command(tmp_path, vendor_process.url, vendor_process.create_key(quota=1000))


def _distill(out: str, *more: str) -> list[str]:
    words = ["distill", "--data", "toy", "--target-domain", "red", "--budget", "100", "--device", "cpu"]
    return [*words, "--image-size", "32", "--steps", str(STEPS), "--out", out, *more]


def _launched(client: Command, *arguments: str) -> str:
    """What the command says that a launcher starts twice."""
    done = subprocess.run(
        two_processes("client", *arguments),
        cwd=client.folder,
        env=client.environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def _rows(client: Command, run: str) -> list[dict[str, Any]]:
    lines = (client.folder / run / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if "step" in row]


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one_and_buy_once(
    client: Command, vendor_process: VendorProcess
) -> None:
    said = _launched(client, *_distill("two"))
    assert said.count("Student: tf_efficientnet_lite0") == 1
    charges = vendor_process.charges(client.api_key)
    assert (
        charges.queries == json.loads((client.folder / "two" / "summary.json").read_text())["queries_bought"]
    )

    client(*_distill("one"))
    assert vendor_process.charges(client.api_key) == charges
    alone, together = _rows(client, "one"), _rows(client, "two")
    assert [(row["stage"], row["step"]) for row in together] == [(row["stage"], row["step"]) for row in alone]
    for ours, theirs in zip(together, alone, strict=True):
        # what Adam makes of rounding, from step to step; tests/client/learning compares without rounding
        rounding = 1e-6 * 2 ** ours["step"] if ours["stage"] == "distill" else 1e-6
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=rounding)
        if "holdout_domain_mean_loss" in theirs:
            # a cross-entropy of 100 times what the loss is made of, and so are its differences
            assert ours["holdout_domain_mean_loss"] == pytest.approx(
                theirs["holdout_domain_mean_loss"], abs=100 * rounding
            )


def test_a_comparison_is_one_process(client: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    words = ("compare", "--data", "toy", "--methods", "erm", "--out", "table")
    assert "one process" in client(*words, code=2).stderr
