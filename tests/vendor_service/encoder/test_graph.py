"""A model as a graph: the same features for every size of batch, or the model as it is."""

import gc
import math
import time
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.support.tiny_clip import write_tiny_clip
from vendor_service.encoder import graph
from vendor_service.encoder.clip import ClipModel
from vendor_service.encoder.graph import Forward, traced
from vendor_service.encoder.replica import using_threads
from vendor_service.encoder.sources import ModelSource, find_model

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

    encode_image = encode_text


class OfItsBatch(Linear):
    """One that decides in Python, by the size of the batch."""

    def encode_text(self, batch: torch.Tensor) -> torch.Tensor:
        return super().encode_text(batch) * (-1 if len(batch) == EXAMPLES[0].shape[0] else 1)


class OfPython(Linear):
    """One that answers with what no graph can hold."""

    def encode_text(self, batch: torch.Tensor) -> torch.Tensor:
        self.seen = {"rows": len(batch)}
        return self.seen  # type: ignore[return-value]


@pytest.fixture
def slow_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have graphs be the faster ones, as with a model of many operators."""
    monkeypatch.setattr(
        "vendor_service.encoder.graph._seconds",
        lambda forward, _: 1e-3 if isinstance(forward, torch.jit.ScriptModule) else 2e-3,
    )


@pytest.mark.usefixtures("slow_models")
def test_a_graph_answers_as_its_model_does() -> None:
    model = Linear().eval().requires_grad_(False)
    graph = traced(model, "encode_text", EXAMPLES, TOLERANCE)
    assert isinstance(graph, torch.jit.ScriptModule)
    batch = torch.rand(7, 3)
    assert torch.allclose(graph(batch), model.encode_text(batch))


@pytest.mark.usefixtures("slow_models")
@pytest.mark.parametrize("name", ["encode_text", "encode_image"])
def test_the_weights_of_a_graph_are_those_of_its_model_and_end_with_both(name: str) -> None:
    model = Linear().eval().requires_grad_(False)
    graph = traced(model, name, EXAMPLES, TOLERANCE)
    assert isinstance(graph, torch.jit.ScriptModule)
    model.layer.weight.mul_(2)
    batch = torch.rand(7, 3)
    assert name == "encode_image" or torch.allclose(graph(batch), model.encode_text(batch))
    weights = weakref.ref(model.layer.weight)
    del model
    assert weights() is not None
    del graph
    gc.collect()
    assert weights() is None


@pytest.mark.usefixtures("slow_models")
@pytest.mark.parametrize("kind", [OfItsBatch, OfPython])
def test_a_model_that_is_more_than_a_graph_runs_as_it_is(kind: type[Linear]) -> None:
    model = kind().eval().requires_grad_(False)
    assert traced(model, "encode_text", EXAMPLES, TOLERANCE) == model.encode_text


def test_a_large_model_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vendor_service.encoder.graph._LARGE_SECONDS", 0.0)
    model = Linear().eval().requires_grad_(False)
    assert traced(model, "encode_text", EXAMPLES, TOLERANCE) == model.encode_text


class Waiting(Linear):
    """One whose thread waits, as every thread does on a busy machine."""

    def encode_text(self, batch: torch.Tensor) -> torch.Tensor:
        time.sleep(0.06)
        return super().encode_text(batch)


def test_a_model_that_waits_for_a_processor_is_not_a_large_one() -> None:
    model = Waiting().eval()
    assert graph._seconds(model.encode_text, EXAMPLES[0]) < graph._LARGE_SECONDS


@pytest.mark.parametrize("graph_is_faster", [True, False])
def test_the_faster_of_both_runs(graph_is_faster: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Linear().eval().requires_grad_(False)

    def seconds(forward: Forward, _batch: torch.Tensor) -> float:
        return 1e-3 if isinstance(forward, torch.jit.ScriptModule) == graph_is_faster else 2e-3

    monkeypatch.setattr("vendor_service.encoder.graph._seconds", seconds)
    chosen = traced(model, "encode_text", EXAMPLES, TOLERANCE)
    assert isinstance(chosen, torch.jit.ScriptModule) == graph_is_faster


def test_images_are_seen_by_a_graph() -> None:
    (replica,) = ClipModel(find_model("icon-clip", None), [torch.device("cpu")]).replicas
    assert isinstance(replica.passes["image"], torch.jit.ScriptModule)


@pytest.fixture
def tiny(tmp_path: Path) -> ModelSource:
    """A whole model that is loaded in a moment."""
    return find_model(write_tiny_clip(tmp_path / "tiny", seed=1), None)


@pytest.mark.parametrize(
    ("threads", "large", "taken"), [(1, False, [1]), (4, False, [2, 2]), (4, True, [4])], ids=str
)
def test_a_small_model_has_a_replica_on_each_half_of_a_cpu_and_a_large_one_the_whole(
    threads: int, large: bool, taken: list[int], tiny: ModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vendor_service.encoder.graph._LARGE_SECONDS", -1.0 if large else math.inf)
    with using_threads(threads):
        model = ClipModel(tiny, [torch.device("cpu")], "float32", halves=True)
        image, found = model.canaries()[0], []
        for replica in model.replicas:
            replica.encode("image", replica.stage("image", [image]))
            found.append(torch.get_num_threads())
    assert found == taken
    assert len(model.devices) == len(taken)
    # A row takes a half twice as long, so its longest batch has half as many.
    assert {each.buckets.largest for each in model.replicas} == {32 // len(taken)}


def test_replicas_on_one_device_share_the_weights_and_the_choice_made_on_threads_of_one(
    tiny: ModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured_on = set()

    def seconds(forward: Forward, _batch: torch.Tensor) -> float:
        measured_on.add(torch.get_num_threads())
        return 0.0

    monkeypatch.setattr("vendor_service.encoder.graph._seconds", seconds)
    with using_threads(4):
        first, second = ClipModel(tiny, [torch.device("cpu")] * 2).replicas
    assert first.passes is second.passes
    assert measured_on == {2}


@pytest.mark.usefixtures("slow_models")
def test_texts_are_not_in_memory_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    laid_out: list[object] = []
    monkeypatch.setattr("torch.jit.optimize_for_inference", laid_out.append)
    model = Linear().eval().requires_grad_(False)
    assert isinstance(traced(model, "encode_text", EXAMPLES, TOLERANCE), torch.jit.ScriptModule)
    assert not laid_out
