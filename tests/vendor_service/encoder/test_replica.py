"""One copy of the model on one device."""

from contextlib import closing
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from shared.errors import ErrorCode
from tests.support.vendor_process import wait_until
from vendor_service.encoder import replica as replica_module
from vendor_service.encoder.batcher import Batcher
from vendor_service.encoder.replica import Replica
from vendor_service.errors import APIError
from vendor_service.observability.metrics import Metrics


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
    batcher = Batcher([replica], replica.buckets, Metrics(), pause_seconds=0.01)
    batcher.start()
    with closing(batcher):
        asked = batcher.submit("a", "image", [torch.ones(2)])
        with pytest.raises(APIError) as refused:
            asked.result(20)
        assert refused.value.code == ErrorCode.NOT_READY
        wait_until(lambda: batcher.deaths == 1)
