"""One run in several processes, each with its share of every batch, by Hugging Face Accelerate.

A launcher starts them: `torchrun --nproc-per-node 2 -m client distill ...`, or `accelerate launch`.
The batch of a step is the same however many there are, and so are loss and gradient, up to rounding: the loss
is computed in every process over the whole batch, of which only its own rows pass gradients on.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from client.errors import UsageError

T = TypeVar("T")

# How long processes wait for the first of them, which may be buying meanwhile.
_PATIENCE = timedelta(days=7)


class Processes(Protocol):
    """The processes that train one student together; a process on its own is a special case."""

    @property
    def first(self) -> bool:
        """Whether this is the process that buys, evaluates and writes."""

    def share(self, rows: int) -> slice:
        """Which of a batch's rows are this process's.

        Raises:
            UsageError: the rows cannot be shared evenly.
        """

    def once(self, work: Callable[[], T]) -> T:
        """The result of this work, done by the first process and told to the others."""

    def joined(self, module: nn.Module) -> nn.Module:
        """The module, with gradients that are summed over all processes before `backward` returns."""

    def whole(self, rows: Tensor) -> Tensor:
        """The whole batch, put together from every process's rows; gradients reach this one's alone."""

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of the loss of a whole batch."""

    def spread(self, items: Sequence[int], compute: Callable[[Sequence[int]], Tensor]) -> Tensor:
        """`compute(items)`, a row for each, on the CPU, with each process computing its share."""


class Alone:
    """The only process."""

    first = True

    def share(self, rows: int) -> slice:
        """All of them."""
        return slice(0, rows)

    def once(self, work: Callable[[], T]) -> T:
        """Do it."""
        return work()

    def joined(self, module: nn.Module) -> nn.Module:
        """The module as it is."""
        return module

    def whole(self, rows: Tensor) -> Tensor:
        """The rows as they are."""
        return rows

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients."""
        loss.backward()  # type: ignore[no-untyped-call]

    def spread(self, items: Sequence[int], compute: Callable[[Sequence[int]], Tensor]) -> Tensor:
        """Compute all of it."""
        return compute(items)


ALONE = Alone()


class Together:
    """One of several processes that a launcher has started."""

    def __init__(self, *, cpu: bool) -> None:
        """Meet the others.

        Args:
            cpu: whether to train on the CPU; otherwise each process takes a GPU of its own.
        """
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

        self._accelerator = Accelerator(
            cpu=cpu,
            kwargs_handlers=[
                InitProcessGroupKwargs(timeout=_PATIENCE),
                # Buffers never change: BatchNorm's statistics are frozen.
                DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
            ],
        )
        self._count, self._rank = self._accelerator.num_processes, self._accelerator.process_index
        self.first = self._rank == 0
        self.device = str(self._accelerator.device)

    def share(self, rows: int) -> slice:
        """An even part."""
        return even_share(rows, self._rank, self._count)

    def once(self, work: Callable[[], T]) -> T:
        """Do it, or wait for it. If it fails, the launcher ends all processes."""
        from accelerate.utils import broadcast_object_list

        result: list[Any] = [work() if self.first else None]
        broadcast_object_list(result)
        return cast(T, result[0])

    def joined(self, module: nn.Module) -> nn.Module:
        """The module in PyTorch's DistributedDataParallel."""
        return cast(nn.Module, self._accelerator.prepare_model(module, device_placement=False))

    def whole(self, rows: Tensor) -> Tensor:
        """Gather the rows, and put this process's own in their place."""
        parts = list(self._gathered(rows.detach()).chunk(self._count))
        parts[self._rank] = rows
        return torch.cat(parts)

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients; the factor undoes that they are averaged and not summed."""
        (loss * self._count).backward()

    def spread(self, items: Sequence[int], compute: Callable[[Sequence[int]], Tensor]) -> Tensor:
        """Compute a part, and gather; the last part is filled up with the first item."""
        filled = [*items, *list(items[:1]) * (-len(items) % self._count)]
        mine = compute(filled[self.share(len(filled))])
        return self._gathered(mine.to(self.device)).cpu()[: len(items)]

    def _gathered(self, rows: Tensor) -> Tensor:
        return cast(Tensor, self._accelerator.gather(rows.contiguous()))

    def close(self) -> None:
        """Part from the others."""
        self._accelerator.end_training()


def even_share(rows: int, rank: int, count: int) -> slice:
    """Which of so many rows are those of one of `count` processes.

    Raises:
        UsageError: the rows cannot be shared evenly.
    """
    size, left = divmod(rows, count)
    if left:
        raise UsageError(
            f"The {rows} images of a batch cannot be shared evenly by {count} processes; start a number of "
            f"processes that divides {rows}."
        )
    return slice(rank * size, (rank + 1) * size)


def several() -> bool:
    """Whether a launcher has started more processes than this one."""
    return "RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"


@contextmanager
def launched(device: str) -> Iterator[tuple[Processes, str]]:
    """The processes that a launcher has started this one among, and the device of this one.

    Args:
        device: where to train: "cpu", or a GPU, in whose place each process takes one of its own.
    """
    if not several():
        yield ALONE, device
        return
    together = Together(cpu=device == "cpu")
    try:
        yield together, together.device
    finally:
        together.close()
