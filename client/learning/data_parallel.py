"""A batch in two halves, each on half of the processors: data parallelism within a process, on a CPU.

Threads that share an operation wait for the last of them before the next one, hundreds of times a step, so
whatever takes a processor from one of them holds up all. Two teams that have a half of the images each wait
for each other only twice a step: for the outputs, and for the gradients.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from client.learning.folding import is_folded
from shared.first_times import FirstTimes
from shared.memory import keep_freed

T = TypeVar("T")

_TEAMS = 2
# Up to this side, no tensor of half a batch outgrows a block of a thread's own heap: the largest of the
# default student has 1.6 MB an image.
_SMALL_SIDE = 128
# Of each module, what it has computed before.
_FIRST_TIMES: WeakKeyDictionary[nn.Module, FirstTimes] = WeakKeyDictionary()


def keep_activations(image_size: int) -> None:
    """Let the process keep the memory of a step for the next one, and each team its own while that fits."""
    keep_freed(heaps=1 + _TEAMS if image_size <= _SMALL_SIDE else 1)


def by_halves(compute: Callable[..., Tensor], *rows: Tensor, module: nn.Module | None = None) -> Tensor:
    """`compute(*rows)`, a row for each of these, which must follow from theirs alone; no gradients pass.

    The first of the tensors says whether they are where halves gain anything. `module` is what computes, if
    it has convolutions.
    """
    if not _divisible(rows[0]):
        return compute(*rows)
    halves = list(zip(*(each.tensor_split(_TEAMS) for each in rows), strict=True))
    work: list[Callable[[], Tensor]] = [partial(compute, *half) for half in halves]
    if module is not None:
        way = module.training, is_folded(module)
        work = [
            _alone_at_first(module, ("answer", way, half[0].shape), each)
            for half, each in zip(halves, work, strict=True)
        ]
    return torch.cat(_at_once(work))


class DataParallel(nn.Module):
    """A module whose steps of training are taken by halves on a CPU; elsewhere, the module.

    Outputs and gradients are its own but for rounding. Whole batches are seen by a module whose BatchNorm
    takes statistics, for they would be those of a half, and by one that draws random numbers, for two halves
    would draw in no fixed order.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._divides: bool | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """The module's outputs, a row for each of the inputs, to which no gradient goes."""
        if not (torch.is_grad_enabled() and _divisible(inputs)):
            return cast(Tensor, self.module(inputs))
        if self._divides is None:
            self._divides = not (_takes_statistics(self.module) or _draws(self.module, inputs[:1]))
        if not self._divides:
            return cast(Tensor, self.module(inputs))
        trained = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        return cast(Callable[..., Tensor], _Halves.apply)(self.module, inputs, *trained)


class _Halves(Function):
    @staticmethod
    def forward(ctx: Any, module: nn.Module, inputs: Tensor, *trained: nn.Parameter) -> Tensor:  # noqa: ANN401
        with torch.enable_grad():
            outputs = _at_once(
                [
                    _alone_at_first(module, ("forward", half.shape), partial(module, half))
                    for half in inputs.tensor_split(_TEAMS)
                ]
            )
        ctx.module, ctx.inputs_shape = module, inputs.shape[1:]
        ctx.outputs, ctx.trained = outputs, trained
        return torch.cat([output.detach() for output in outputs])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        halves = zip(ctx.outputs, gradient.tensor_split(_TEAMS), strict=True)
        of_halves = _at_once(
            [
                _alone_at_first(
                    ctx.module,
                    ("backward", len(half), ctx.inputs_shape),
                    partial(torch.autograd.grad, output, ctx.trained, half, allow_unused=True),
                )
                for output, half in halves
            ]
        )
        return None, None, *(None if a is None else a + b for a, b in zip(*of_halves, strict=True))


@contextmanager
def using_threads(count: int) -> Iterator[None]:
    """Have this thread compute with so many, itself among them."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _divisible(rows: Tensor) -> bool:
    """Whether the rows are on a CPU, and they and its threads are enough for two; no thread is left out."""
    return rows.device.type == "cpu" and len(rows) >= _TEAMS and torch.get_num_threads() % _TEAMS == 0


def _takes_statistics(module: nn.Module) -> bool:
    return any(isinstance(each, _BatchNorm) and each.training for each in module.modules())


def _draws(module: nn.Module, row: Tensor) -> bool:
    """Whether a module draws random numbers for its answer; those that follow stay the same."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        before = torch.get_rng_state()
        module(row)
        return not torch.equal(before, torch.get_rng_state())


def _alone_at_first(module: nn.Module, kind: Hashable, compute: Callable[[], T]) -> Callable[[], T]:
    """The same, done while no other team computes something for the first time, if it is new itself."""
    first_times = _FIRST_TIMES.setdefault(module, FirstTimes())

    def done() -> T:
        with first_times.alone((kind, torch.get_num_threads())):
            return compute()

    return done


def _at_once(work: Sequence[Callable[[], T]]) -> list[T]:
    """The result of each piece of work, a team each, with gradients or without as in this thread."""
    gradients, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def done(piece: Callable[[], T]) -> T:
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            return piece()

    return list(_teams(torch.get_num_threads()).map(done, work))


@cache
def _teams(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_TEAMS, "team", torch.set_num_threads, (threads // _TEAMS,))
