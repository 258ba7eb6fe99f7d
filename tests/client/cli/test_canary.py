"""`client canary --evidence`: what was found is told, whatever becomes of the file."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from client.api import canary as api
from client.cli.main import main
from client.proofs.canary import CanaryResult, Difference
from client.proofs.swap import SwapEvidence

EVIDENCE = SwapEvidence(model_fingerprint="fp_1", tolerance=1e-4, keys=[], cards=[], pairs=[])
SAME = CanaryResult("fp_1", asked=8)
SWAPPED = CanaryResult(
    "fp_1",
    asked=8,
    differences=[Difference("a cat", 0.5, True)],
    evidence=EVIDENCE,
    stopped="The quota is spent.",
)


def _canary(monkeypatch: pytest.MonkeyPatch, found: CanaryResult | None, *words: str) -> int:
    def answer(*_: object, **__: object) -> CanaryResult:
        assert found is not None, "something was asked"
        return found

    monkeypatch.setattr(api, "canary", answer)
    with pytest.raises(SystemExit) as end:
        main(["canary", *words])
    return int(end.value.code or 0)


def test_evidence_that_could_not_be_written_is_refused_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _canary(monkeypatch, None, "--evidence", "nodir/swap.json") == 2
    assert "there is no folder nodir." in capsys.readouterr().err
    Path("nodir").mkdir()
    assert _canary(monkeypatch, None, "--evidence", "nodir") == 2
    assert "nodir is a folder." in capsys.readouterr().err
    monkeypatch.setattr(os, "access", lambda *_: False)  # what a read-only mount says, to root as well
    assert _canary(monkeypatch, None, "--evidence", "nodir/swap.json") == 2
    assert "no file can be made in the folder nodir." in capsys.readouterr().err


@pytest.mark.parametrize("as_json", [False, True])
def test_a_swap_is_told_although_its_evidence_cannot_be_written(
    as_json: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", refuse)
    words = ["--evidence", str(tmp_path / "swap.json"), *(["--json"] if as_json else [])]
    assert _canary(monkeypatch, SWAPPED, *words) == 1
    shown = capsys.readouterr()
    assert "the disk is full" in " ".join(shown.err.split())
    if as_json:
        told = json.loads(shown.out)
        assert (told["evidence"], told["differences"][0]["name"]) == (None, "a cat")
    else:
        assert "Not all were asked: The quota is spent." in shown.out
        assert "Another model is sold" in shown.out


def test_what_an_earlier_canary_wrote_stays_where_the_disk_is_full(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = small_disk / "swap.json"
    file.write_text("old")
    found = replace(SWAPPED, evidence=EVIDENCE.model_copy(update={"cards": ["card " * 1_000_000]}))
    assert _canary(monkeypatch, found, "--evidence", str(file)) == 1
    assert "the disk is full" in " ".join(capsys.readouterr().err.split())
    assert file.read_text() == "old"


def test_json_names_the_file_that_was_written_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "swap.json"
    words = ["--evidence", str(file), "--json"]
    assert _canary(monkeypatch, SAME, *words) == 0
    assert json.loads(capsys.readouterr().out)["evidence"] is None
    assert not file.exists()
    assert _canary(monkeypatch, SWAPPED, *words) == 1
    assert json.loads(capsys.readouterr().out)["evidence"] == str(file)
    assert SwapEvidence.model_validate_json(file.read_text()) == EVIDENCE
    assert _canary(monkeypatch, SWAPPED, "--json") == 1
    assert json.loads(capsys.readouterr().out)["evidence"] is None
