"""How a batch is shared. tests/end_to_end/test_processes.py has real processes share a real run."""

import json
import os
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from unittest.mock import Mock

import pytest
import torch

from client.errors import UsageError
from client.learning.processes import SINGLE_PROCESS, chosen_device, even_shard
from tests.client.learning import two_shards
from tests.support.two_processes import two_processes


def test_every_row_is_some_process_s_and_no_row_is_two() -> None:
    shards = [list(range(12))[even_shard(12, rank, 3)] for rank in range(3)]
    assert shards == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    with pytest.raises(UsageError, match="divides 13"):
        even_shard(13, 0, 3)


def test_a_process_alone_does_everything() -> None:
    rows = torch.arange(5.0, requires_grad=True)
    assert SINGLE_PROCESS.all_gather(rows) is rows
    assert list(range(5))[SINGLE_PROCESS.shard(5)] == [0, 1, 2, 3, 4]
    assert SINGLE_PROCESS.broadcast(lambda: 7) == 7
    assert SINGLE_PROCESS.map_sharded([3, 1], lambda items: torch.tensor(items) * 2).tolist() == [6, 2]


@pytest.mark.slow  # it starts four programs that import PyTorch
def test_two_processes_take_the_steps_of_one() -> None:
    """The loss counts only rows that were bought, so it is not the mean of what each share would give."""
    with redirect_stdout(StringIO()) as printed:
        two_shards.main()
    alone = json.loads(printed.getvalue())
    done = subprocess.run(
        two_processes(two_shards.__name__),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    together = json.loads(done.stdout)
    assert together["losses"] == pytest.approx(alone["losses"], rel=1e-12)
    assert together["weights"] == pytest.approx(alone["weights"], abs=1e-12)


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_processes_of_a_launcher_take_no_memory_of_a_gpu_before_each_has_its_own(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr(torch, "empty", empty := Mock())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert chosen_device(device) == device
    assert empty.called
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    empty.reset_mock()
    assert chosen_device(device) == device
    assert not empty.called


def test_processes_of_a_launcher_are_refused_a_gpu_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cuda:99", "banana"):
        with pytest.raises(UsageError, match="cannot be used on this machine"):
            chosen_device(device)
