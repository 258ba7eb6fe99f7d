"""What is refused before anything is written or bought."""

from unittest.mock import Mock

import pytest
import torch

from client.api.checks import chosen_device
from client.errors import UsageError


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
