"""Tensors in a file take memory that the machine can have back, and a full disk costs nothing but memory."""

import os
import sys
from pathlib import Path

import pytest
import torch

from client.runs.mapped import mapped_zeros
from tests.support.vendor_process import resident_bytes


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells memory of a process's own")
def test_what_is_written_is_in_the_file_and_the_file_has_no_name(tmp_path: Path) -> None:
    grown, kept = [], []
    for _ in range(3):  # threads of other tests may take memory meanwhile, but hardly each time
        before = resident_bytes(os.getpid(), "RssAnon")
        rows = mapped_zeros(2**16, 256, folder=tmp_path)
        assert not rows.any()
        rows.copy_(torch.arange(256.0).expand(2**16, 256))
        assert rows.sum(dtype=torch.float64) == 2**16 * sum(range(256))
        grown.append(resident_bytes(os.getpid(), "RssAnon") - before)
        kept.append(rows)
    assert min(grown) < 16 * 2**20  # the rows are 64 MiB
    assert not list(tmp_path.iterdir())


def test_a_disk_without_room_leaves_them_in_memory(small_disk: Path) -> None:
    rows = mapped_zeros(1000, 1000, folder=small_disk)
    rows += 1
    assert rows.sum() == 1e6


@pytest.mark.parametrize("folder", [Path("no such folder"), None])
def test_without_a_folder_they_are_in_memory(folder: Path | None) -> None:
    rows = mapped_zeros(3, folder=folder, dtype=torch.int64)
    assert rows.tolist() == [0, 0, 0]


def test_there_may_be_none(tmp_path: Path) -> None:
    assert mapped_zeros(0, 4, folder=tmp_path).shape == (0, 4)
