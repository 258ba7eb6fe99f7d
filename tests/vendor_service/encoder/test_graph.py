"""A model as a graph: the same features for every size of batch, or the model as it is."""

import pytest
import torch
from torch import nn

from vendor_service.encoder.clip import ClipModel, choose_devices
from vendor_service.encoder.graph import traced
from vendor_service.encoder.sources import find_model

TOLERANCE = 1e-3
EXAMPLES = [torch.rand(size, 3, generator=torch.Generator().manual_seed(size)) for size in (2, 1, 5)]


class Linear(nn.Module):
    """A model whose texts are what it makes of three numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def encode_text(self, batch: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.layer(batch)
        return features


class OfItsBatch(Linear):
    """One that decides in Python, by the size of the batch."""

    def encode_text(self, batch: torch.Tensor) -> torch.Tensor:
        return super().encode_text(batch) * (-1 if len(batch) == EXAMPLES[0].shape[0] else 1)


class OfPython(Linear):
    """One that answers with what no graph can hold."""

    def encode_text(self, batch: torch.Tensor) -> torch.Tensor:
        self.seen = {"rows": len(batch)}
        return self.seen  # type: ignore[return-value]


def test_a_graph_answers_as_its_model_does() -> None:
    model = Linear().eval()
    graph = traced(model, "encode_text", EXAMPLES, TOLERANCE)
    assert isinstance(graph, torch.jit.ScriptModule)
    batch = torch.rand(7, 3)
    assert torch.allclose(graph(batch), model.encode_text(batch))


@pytest.mark.parametrize("kind", [OfItsBatch, OfPython])
def test_a_model_that_is_more_than_a_graph_runs_as_it_is(kind: type[Linear]) -> None:
    model = kind().eval()
    assert traced(model, "encode_text", EXAMPLES, TOLERANCE) == model.encode_text


def test_what_the_vendor_sells_are_graphs() -> None:
    (replica,) = ClipModel(find_model("icon-clip", None), [torch.device("cpu")]).replicas
    assert all(isinstance(each, torch.jit.ScriptModule) for each in replica.passes.values())


@pytest.mark.parametrize(("threads", "replicas"), [(1, 1), (2, 2), (16, 2)])
def test_a_cpu_of_several_cores_runs_two_batches_at_once(
    threads: int, replicas: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_devices("auto") == [torch.device("cpu")] * replicas


def test_replicas_on_one_device_share_the_weights() -> None:
    first, second = ClipModel(find_model("icon-clip", None), [torch.device("cpu")] * 2).replicas
    assert first.passes is second.passes
