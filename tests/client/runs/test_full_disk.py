"""A disk that fills up is said to be full, whoever writes, and what was there stays."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch

from client.errors import ClientError, unwritable
from client.learning.methods import METHODS
from client.learning.recipe import Recipe
from client.learning.student import load_tensors, save_tensors
from client.progress import Display
from client.runs.folder import RunConfig, RunFolder
from client.runs.memo import Memo
from client.runs.trainer import Trainer

LARGE = torch.zeros(1000, 1000)


def test_tensors(small_disk: Path) -> None:
    file = small_disk / "student.safetensors"
    save_tensors({"small": torch.ones(3)}, file, {})
    with pytest.raises(ClientError, match=r"student\.safetensors cannot be written: the disk is full"):
        save_tensors({"large": LARGE}, file, {})
    assert load_tensors(file)[0]["small"].tolist() == [1, 1, 1]
    assert [path.name for path in small_disk.iterdir()] == ["student.safetensors"]


def test_checkpoints(small_disk: Path) -> None:
    config = RunConfig("toy", "red", "erm", "none", 32, 0, "stratified", Recipe())
    run, display = RunFolder(small_disk), Display.of_nobody()
    trainer = Trainer(config, METHODS["erm"], run, display, device="cpu", memo=Memo())
    with pytest.raises(ClientError, match=r"checkpoint\.pt cannot be written: the disk is full"):
        trainer._save_checkpoint(cast(Any, {"model": LARGE}), "stamp")
    assert not list(small_disk.iterdir())


def test_texts(small_disk: Path) -> None:
    run = RunFolder(small_disk)
    run.write_text(run.report, "short")
    with pytest.raises(ClientError, match=r"report\.html cannot be written: the disk is full"):
        run.write_text(run.report, "long " * 1_000_000)
    assert run.report.read_text() == "short"


def test_other_reasons_are_told_as_they_are() -> None:
    path = Path("run/student.safetensors")
    assert "Permission denied" in str(unwritable(path, PermissionError(13, "Permission denied")))
    assert "cannot be written: odd." in str(unwritable(path, RuntimeError("odd")))
