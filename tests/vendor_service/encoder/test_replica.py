"""One copy of the model on one device."""

from contextlib import closing
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from shared.errors import ErrorCode
from tests.support.vendor_process import wait_until
from tests.vendor_service.encoder.running_batcher import RunningBatcher
from vendor_service.encoder import replica as replica_module
from vendor_service.encoder.replica import Replica, Staged, using_threads
from vendor_service.errors import APIError
from vendor_service.metrics import Metrics


class Broken(RuntimeError):
    """What CUDA raises of a context that is lost."""


def test_a_device_that_is_lost_while_a_batch_is_brought_to_it_is_the_fault_of_no_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any, **__: Any) -> torch.Tensor:
        raise Broken("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(replica_module, "_BROKEN", Broken)
    monkeypatch.setattr(torch.cuda, "Stream", Mock())
    replica = Replica({}, torch.device("cuda"), torch.float32, Mock())
    monkeypatch.setattr(torch, "empty", refuse)
    batcher = RunningBatcher([replica], replica.buckets, Metrics(), pause_seconds=0.01)
    batcher.start()
    with closing(batcher):
        asked = batcher.submit("a", "image", [torch.ones(2)])
        with pytest.raises(APIError) as refused:
            asked.result(20)
        assert refused.value.code == ErrorCode.NOT_READY
        wait_until(lambda: batcher.deaths == 1)


def test_a_pass_elsewhere_finds_the_threads_of_loading_whatever_a_model_on_the_cpu_has_set() -> None:
    """Compiled code is for one count: at another it is compiled anew, while somebody waits, or not used."""
    found: list[int] = []

    def note(batch: torch.Tensor) -> torch.Tensor:
        found.append(torch.get_num_threads())
        return batch

    with using_threads(3):
        replica = Replica({"text": note}, torch.device("cpu"), torch.float32, Mock(), threads=None)
    with using_threads(2):
        replica.encode("text", Staged(torch.ones(1, 2), 1))
    assert found == [3]
