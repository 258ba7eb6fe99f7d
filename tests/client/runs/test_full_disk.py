"""A disk that fills up is said to be full, whoever writes, and what was there stays."""

from io import BytesIO
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from client.errors import ClientError, unwritable
from client.learning.tensor_file import load_tensors, save_tensors
from client.runs.checkpoint import save_checkpoint
from client.runs.embedding import _write_whole
from client.runs.folder import RunFolder

LARGE = torch.zeros(1000, 1000)


def test_tensors(small_disk: Path) -> None:
    file = small_disk / "student.safetensors"
    save_tensors({"small": torch.ones(3)}, file, {})
    with pytest.raises(ClientError, match=r"student\.safetensors cannot be written: the disk is full"):
        save_tensors({"large": LARGE}, file, {})
    assert load_tensors(file)[0]["small"].tolist() == [1, 1, 1]
    assert [path.name for path in small_disk.iterdir()] == ["student.safetensors"]


def test_checkpoints(small_disk: Path) -> None:
    with pytest.raises(ClientError, match=r"checkpoint\.pt cannot be written: the disk is full"):
        save_checkpoint(cast(Any, {"model": LARGE}), "stamp", RunFolder(small_disk).checkpoint)
    assert not list(small_disk.iterdir())


def test_below_a_file_nothing_is_written_and_the_reason_is_said(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ClientError, match=r"checkpoint\.pt cannot be written: Not a directory"):
        save_checkpoint(cast(Any, {"model": 1}), "stamp", RunFolder(file).checkpoint)
    with pytest.raises(ClientError, match=r"x\.npy cannot be written: Not a directory"):
        _write_whole(file / "x.npy", lambda _: None)


def test_a_checkpoint_that_is_interrupted_is_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(BytesIO):
        def write(self, piece: Any) -> int:
            if not self.tell():
                return super().write(piece)
            raise KeyboardInterrupt

    file = RunFolder(tmp_path).checkpoint
    save_checkpoint(cast(Any, {"model": 1}), "stamp", file)
    before = file.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", lambda *_: Interrupted())
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(cast(Any, {"model": LARGE}), "stamp", file)
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [before]


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
