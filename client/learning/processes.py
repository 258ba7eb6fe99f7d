"""One run in several processes, each with its shard of every batch, by Hugging Face Accelerate.

A launcher starts them: `torchrun --nproc-per-node 2 -m client distill ...`, or `accelerate launch`.
The batch of a step is the same however many there are, and so are loss and gradient, up to rounding: the loss
is computed in every process over the whole batch, of which only its own rows pass gradients on.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from client.errors import UsageError

T = TypeVar("T")

# How long processes wait for the first of them, which may be buying meanwhile.
_PATIENCE = timedelta(days=7)


class Processes:
    """The processes that train one student together. This class is a process on its own."""

    index = 0

    @property
    def is_main(self) -> bool:
        """Whether this is the process that buys, evaluates and writes."""
        return self.index == 0

    def shard(self, rows: int) -> slice:
        """Which of a batch's rows are this process's.

        Raises:
            UsageError: the rows cannot be divided evenly.
        """
        return slice(0, rows)

    def broadcast(self, work: Callable[[], T]) -> T:
        """The result of this work, done by the main process and sent to the others."""
        return work()

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module, with gradients that are summed over all processes before `backward` returns."""
        return module

    def all_gather(self, rows: Tensor) -> Tensor:
        """The whole batch, put together from every process's rows; gradients reach this one's alone."""
        return rows

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of the loss of a whole batch."""
        loss.backward()  # type: ignore[no-untyped-call]

    def map_sharded(self, items: Sequence[int], compute: Callable[[Sequence[int]], Tensor]) -> Tensor:
        """`compute(items)`, a row for each, on the CPU, each process computing its shard."""
        return compute(items)


SINGLE_PROCESS = Processes()


class DistributedProcesses(Processes):
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
        self._count, self.index = self._accelerator.num_processes, self._accelerator.process_index
        self.device = str(self._accelerator.device)

    def shard(self, rows: int) -> slice:
        """An even part."""
        return even_shard(rows, self.index, self._count)

    def broadcast(self, work: Callable[[], T]) -> T:
        """Do it, or wait for it. If it fails, the launcher ends all processes."""
        from accelerate.utils import broadcast_object_list

        result: list[Any] = [work() if self.is_main else None]
        broadcast_object_list(result)
        return cast(T, result[0])

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module in PyTorch's DistributedDataParallel."""
        return cast(nn.Module, self._accelerator.prepare_model(module, device_placement=False))

    def all_gather(self, rows: Tensor) -> Tensor:
        """Gather the rows, and put this process's own in their place."""
        parts = list(self._gather(rows.detach()).chunk(self._count))
        parts[self.index] = rows
        return torch.cat(parts)

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients; the factor undoes that they are averaged and not summed."""
        (loss * self._count).backward()

    def map_sharded(self, items: Sequence[int], compute: Callable[[Sequence[int]], Tensor]) -> Tensor:
        """Compute a part, and gather; the last part is filled up with the first item."""
        filled = [*items, *list(items[:1]) * (-len(items) % self._count)]
        mine = compute(filled[self.shard(len(filled))])
        return self._gather(mine.to(self.device)).cpu()[: len(items)]

    def _gather(self, rows: Tensor) -> Tensor:
        return cast(Tensor, self._accelerator.gather(rows.contiguous()))

    def close(self) -> None:
        """Part from the others."""
        self._accelerator.end_training()


def even_shard(rows: int, rank: int, count: int) -> slice:
    """Which of so many rows are those of one of `count` processes.

    Raises:
        UsageError: the rows cannot be divided evenly.
    """
    size, left = divmod(rows, count)
    if left:
        raise UsageError(
            f"The {rows} images of a batch cannot be shared evenly by {count} processes; start a number of "
            f"processes that divides {rows}."
        )
    return slice(rank * size, (rank + 1) * size)


def is_distributed() -> bool:
    """Whether a launcher has started more processes than this one."""
    return "RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"


def chosen_device(name: str) -> str:
    """The device of this name; for "auto" a GPU if there is one.

    Processes that a launcher has started each take a GPU of their own, whichever is named.

    Raises:
        UsageError: there is none of this name here.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if is_distributed() and torch.device(name).type == "cuda" and torch.cuda.is_available():
            return name  # a tensor on the one that is named would take memory there for every process
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(
            f"--device {name!r} cannot be used on this machine; auto takes what is available."
        ) from error
    return name


@contextmanager
def launched(device: str) -> Iterator[tuple[Processes, str]]:
    """The processes that a launcher has started this one among, and the device of this one.

    Args:
        device: where to train, as `chosen_device` takes it. Instead of the GPU that is named, each of several
            processes takes one of its own.

    Raises:
        UsageError: there is no such device here.
    """
    device = chosen_device(device)
    if not is_distributed():
        yield SINGLE_PROCESS, device
        return
    processes = DistributedProcesses(cpu=device == "cpu")
    try:
        yield processes, processes.device
    finally:
        processes.close()
