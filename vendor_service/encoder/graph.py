"""A forward pass as one graph, which takes the interpreter's lock once a batch and not once an operator.

Between the operators of a Python module its thread waits for the lock again and again, behind the threads of
HTTP and of the books; on CPUs that cost small models half their rate. Freezing also folds batch normalisation
into convolutions. A large model spends its time in its operators, and runs as it is; so does one that cannot
be traced, that answers otherwise as a graph, or that is slower.
"""

import logging
import time
import warnings
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import torch
from torch import nn

Forward = Callable[[torch.Tensor], torch.Tensor]

# The part of the tolerated difference between two answers that a graph may take.
_SHARE_OF_TOLERANCE = 0.1

# A pass of two rows that takes longer is a large model's.
_LARGE_SECONDS = 0.05
# A graph may take so much longer, by a measurement on a busy machine: it waits for Python's lock once.
_WORTH = 1.3
# A pass is measured so often, but no longer than for so many seconds: a busy machine disturbs most of them.
_ROUNDS = 7
_MEASURED_SECONDS = 0.1

_log = logging.getLogger(__name__)


class _Method(nn.Module):
    """One method of a model, as a module of its own: only those can be traced and frozen.

    The model is no part of it, so its weights, which need no gradients, become constants of the graph as they
    are met. Traced so, icon-clip takes 0.6 s and not 1.5: none of its hundreds of modules is traced apart.
    """

    def __init__(self, model: nn.Module, name: str) -> None:
        super().__init__()
        self._method: Forward = getattr(model, name)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Features of shape (rows, dimensions)."""
        return self._method(batch)


@torch.inference_mode()
def traced(model: Any, name: str, examples: Sequence[torch.Tensor], tolerance: float) -> Forward:  # noqa: ANN401
    """A method of a model as a graph, or the method itself where a graph would not do or not pay.

    Args:
        model: an open_clip model in evaluation.
        name: `encode_image` or `encode_text`.
        examples: batches of different sizes on which both must answer alike, a small one first, and the
            largest last.
        tolerance: the largest difference of one component between two answers to the same input.
    """
    method: Forward = getattr(model, name)
    if _seconds(method, examples[0]) > _LARGE_SECONDS:
        return method
    return as_graph(model, name, examples, tolerance)


@torch.inference_mode()
def as_graph(model: Any, name: str, examples: Sequence[torch.Tensor], tolerance: float) -> Forward:  # noqa: ANN401
    """The same of a model of any size."""
    method: Forward = getattr(model, name)
    try:
        graphs = _graphs(model, name, examples[0])
        differences = [max(difference(graph(each), method(each)) for each in examples) for graph in graphs]
    except Exception as error:
        # Whatever a model does in Python may be more than a graph can hold, or than this torch can trace.
        _log.info("%s cannot be made a graph of, and runs as it is: %s", name, error)
        return method
    alike = [
        graph
        for graph, found in zip(graphs, differences, strict=True)
        if found <= _SHARE_OF_TOLERANCE * tolerance
    ]
    if not alike:
        _log.info("%s runs as it is: as a graph, its vectors differ by %.1e", name, min(differences))
        return method
    taken = {graph: _seconds(graph, examples[-1]) for graph in alike}
    fastest = min(taken, key=lambda graph: taken[graph])
    return fastest if taken[fastest] <= _WORTH * _seconds(method, examples[-1]) else method


def is_graph(forward: Forward) -> bool:
    """Whether a pass is one graph, as those of small models are."""
    return isinstance(forward, torch.jit.ScriptModule)


def _graphs(model: Any, name: str, example: torch.Tensor) -> list[Forward]:  # noqa: ANN401
    """A method of a model as a graph, and one of images also with weights laid out for the CPU's own library.

    Convolutions in float32 are two to four times as fast with those. The matrices of texts are not, and would
    be in memory twice.
    """
    with warnings.catch_warnings():
        # Tracing is called deprecated in favour of a compiler that a vendor may not have, and it warns
        # of what depends on the shape of its example, which is why other shapes are compared.
        warnings.simplefilter("ignore")
        trace: Callable[..., Any] = torch.jit.trace
        code = _Code(trace(_Method(model, name).eval(), example, check_trace=False))
        graphs: list[Forward] = [torch.jit.freeze(code.module())]
        if name == "encode_image":
            graphs.append(torch.jit.optimize_for_inference(code.module()))
        return graphs


class _Code:
    """Save a trace as code without weights: PyTorch frees a module that was loaded, but never a trace.

    A weight's place is held by its number.
    """

    def __init__(self, traced: Any) -> None:  # noqa: ANN401
        self._weights: list[torch.Tensor] = []
        for node in _constants(traced):
            self._weights.append(node.t("value"))
            node.t_("value", torch.tensor(len(self._weights) - 1))
        torch.jit.save(traced, file := BytesIO())
        self._file = file.getvalue()

    def module(self) -> Any:  # noqa: ANN401
        """The module anew, with the same weights."""
        load: Callable[..., Any] = torch.jit.load
        loaded = load(BytesIO(self._file))
        for node in _constants(loaded):
            weights = self._weights[int(node.t("value"))]
            node.t_("value", weights)
            node.output().inferTypeFrom(weights)
        return loaded.eval()


def _constants(module: Any) -> list[Any]:  # noqa: ANN401
    """The constants of a module's graph that are tensors."""
    found = module.graph.findAllNodes("prim::Constant")
    return [node for node in found if node.hasAttribute("value") and node.kindOf("value") == "t"]


def _seconds(forward: Forward, batch: torch.Tensor) -> float:
    """The least of a few measurements.

    It is this thread's time on a processor, so that a busy machine makes no model look large.
    """
    measured: list[float] = []
    while len(measured) < _ROUNDS and sum(measured) < _MEASURED_SECONDS:
        began = time.thread_time()
        forward(batch)
        measured.append(time.thread_time() - began)
    return min(measured)


def difference(some: torch.Tensor, others: torch.Tensor) -> float:
    """The largest difference of one component between features, once they have length 1."""
    rows = (nn.functional.normalize(each.float(), dim=-1) for each in (some, others))
    return float(torch.sub(*rows).abs().max())
