"""A forward pass as one graph, which holds the interpreter's lock once a batch and not once an operator.

Between the operators of a Python module its thread waits for the lock again and again, behind the threads of
HTTP and of the books; on CPUs that cost small models half their rate. Tracing also folds batch normalisation
into convolutions. Where a model cannot be traced, or does not answer alike, its modules run as they are.
"""

import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

Forward = Callable[[torch.Tensor], torch.Tensor]

# The part of the tolerated difference between two answers that a graph may take.
_SHARE_OF_TOLERANCE = 0.1

_log = logging.getLogger(__name__)


class _Method(nn.Module):
    """One method of a model, as a module of its own: only those can be traced and frozen."""

    def __init__(self, model: nn.Module, name: str) -> None:
        super().__init__()
        self.model = model
        self._name = name

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Features of shape (rows, dimensions)."""
        features: torch.Tensor = getattr(self.model, self._name)(batch)
        return features


@torch.inference_mode()
def traced(model: Any, name: str, examples: Sequence[torch.Tensor], tolerance: float) -> Forward:  # noqa: ANN401
    """A method of a model as a graph, or the method itself where a graph would not do.

    Args:
        model: an open_clip model in evaluation.
        name: `encode_image` or `encode_text`.
        examples: batches of different sizes, on which both must answer alike.
        tolerance: the largest difference of one component between two answers to the same input.
    """
    method: Forward = getattr(model, name)
    try:
        with warnings.catch_warnings():
            # Tracing is called deprecated in favour of a compiler that a vendor may not have, and it warns
            # of what depends on the shape of its example, which is why other shapes are compared.
            warnings.simplefilter("ignore")
            trace: Callable[..., Any] = torch.jit.trace
            module = trace(_Method(model, name).eval(), examples[0], check_trace=False)
            graph: Forward = torch.jit.freeze(module)
            difference = max(_difference(graph(each), method(each)) for each in examples)
    except Exception as error:
        # Whatever a model does in Python may be more than a graph can hold, or than this torch can trace.
        _log.info("%s cannot be made a graph of, and runs as it is: %s", name, error)
        return method
    if difference <= _SHARE_OF_TOLERANCE * tolerance:
        return graph
    _log.info("%s runs as it is: as a graph, its vectors differ by %.1e", name, difference)
    return method


def _difference(some: torch.Tensor, others: torch.Tensor) -> float:
    rows = (nn.functional.normalize(each.float(), dim=-1) for each in (some, others))
    return float(torch.sub(*rows).abs().max())
