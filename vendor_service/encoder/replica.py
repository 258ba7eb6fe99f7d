"""One copy of the model on one device, and the batches that it is given."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any, cast

import numpy as np
import torch

from shared.embeddings import Kind
from vendor_service.encoder.batcher import DeviceLost
from vendor_service.encoder.batches import Buckets
from vendor_service.encoder.graph import Forward
from vendor_service.encoder.preprocessing import Preprocessing
from vendor_service.encoder.queries import PreparedText, Vectors
from vendor_service.encoder.short_texts import ShortTexts


class KernelCompileLock:
    """Lets only one thread at a time do a computation of a new kind. Thread-safe.

    oneDNN, which computes PyTorch's convolutions on CPUs, compiles a kernel for each shape when it first
    meets it, and keeps it. Where two threads compiled for one shape at once, some laid out the weights for
    the kernel of the other: its answer was wrong, once, without an error (oneDNN 3.12).
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: set[Hashable] = set()

    @contextmanager
    def alone(self, kind: Hashable) -> Iterator[None]:
        """Hold the lock for the block, if this kind of computation is new."""
        if kind in self._known:
            yield
            return
        with self._lock:
            yield
            self._known.add(kind)


# What CUDA raises once its context is broken; later batches fail as well. Older torch has no name for it.
_BROKEN: type[Exception] = getattr(torch, "AcceleratorError", torch.cuda.CudaError)

# Large enough to keep a device busy, small enough that nobody waits long behind it.
_CPU_SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32)
_CUDA_SIZES = (8, 16, 32, 64, 128, 192, 256)
# A pass of so many rows on one half of a CPU spends most of its time on them, and not on reading weights.
_WORTHWHILE_ROWS = 8


@contextmanager
def using_threads(threads: int) -> Iterator[None]:
    """Set the number of threads that this one computes with, itself included, as a replica does."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Staged:
    """A batch on its device, filled up to the size of a bucket; `copied` says when it has arrived."""

    batch: torch.Tensor
    queries: int
    copied: torch.cuda.Event | None = None


class Replica:
    """A model on a device. `stage` is for one thread, `encode` for another.

    Args:
        passes: the forward pass of each kind, on `device` and in `dtype`; replicas may share them.
        threads: how many threads a forward pass on the CPU takes; `None` elsewhere.
        compile_lock: of these passes, where other replicas share them.
    """

    def __init__(
        self,
        passes: Mapping[Kind, Forward],
        device: torch.device,
        dtype: torch.dtype,
        preprocessing: Preprocessing,
        *,
        threads: int | None = None,
        compile_lock: KernelCompileLock | None = None,
    ) -> None:
        self.device = device
        self.passes = passes
        self._dtype = dtype
        self._preprocessing = preprocessing
        self._compile_lock = compile_lock or KernelCompileLock()
        self._threads = threads
        self._all_threads = torch.get_num_threads()
        on_cuda = device.type == "cuda"
        self._copies = torch.cuda.Stream(device) if on_cuda else None  # type: ignore[no-untyped-call]
        self.buckets = (
            Buckets(_CUDA_SIZES, pads=True)
            if on_cuda
            else Buckets(_CPU_SIZES, pads=False, least=_WORTHWHILE_ROWS)
        )

    def stage(self, kind: Kind, items: Sequence[Any]) -> Staged:
        """Bring images (as `Preprocessing.resize` leaves them) or texts to the device, as one batch.

        Raises:
            DeviceLost: CUDA is broken, for this process at least.
        """
        rows = list(items) if kind == "image" else self._texts(items)
        rows += [rows[0]] * (self.buckets.padded(len(items)) - len(items))
        if self._copies is None:
            with using_threads(1):  # a team for this would have those of the passes wait asleep
                return Staged(torch.stack(rows), len(items))
        # From pinned memory, beside whatever the device computes meanwhile.
        with self._noticing_loss():
            pinned = torch.empty((len(rows), *rows[0].shape), dtype=rows[0].dtype, pin_memory=True)
            torch.stack(rows, out=pinned)
            with torch.cuda.stream(self._copies):
                batch = pinned.to(self.device, non_blocking=True)
                copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
                copied.record(self._copies)
        return Staged(batch, len(items), copied)

    @contextmanager
    def _noticing_loss(self) -> Iterator[None]:
        """Tell a broken CUDA from a bad batch."""
        try:
            yield
        except _BROKEN as error:
            raise DeviceLost(f"{self.device} has failed: {error}") from error

    def _texts(self, texts: Sequence[PreparedText]) -> list[torch.Tensor]:
        """Their tokens, as many as the forward pass takes of them."""
        tokens = torch.stack([cast(torch.Tensor, each.tokens) for each in texts])
        forward = self.passes["text"]
        return list(forward.cut(tokens) if isinstance(forward, ShortTexts) else tokens)

    @torch.inference_mode()
    def encode(self, kind: Kind, staged: Staged) -> Vectors:
        """Unit vectors, float32 of shape (queries, dimensions).

        Raises:
            DeviceLost: CUDA is broken, for this process at least.
        """
        with self._noticing_loss():
            features = self._features(kind, staged)
            rows: Vectors = torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()
        rows = rows[: staged.queries]
        if not np.isfinite(rows).all():
            raise FloatingPointError("the model answered with numbers that are not finite")
        return rows

    def _features(self, kind: Kind, staged: Staged) -> torch.Tensor:
        # Off the CPU, too: compiled code is for one count, and a model on the CPU may have set another since.
        torch.set_num_threads(self._threads or self._all_threads)
        inputs = self.inputs(kind, self.arrived(staged))
        if self._threads is None or kind == "text":  # texts have many shapes, and no convolutions
            return self.passes[kind](inputs)
        with self._compile_lock.alone((inputs.shape, self._threads)):
            return self.passes[kind](inputs)

    def inputs(self, kind: Kind, batch: torch.Tensor) -> torch.Tensor:
        """The inputs of the model for a batch on its device: tokens, or normalised pixels."""
        return self._preprocessing.normalise(batch).to(self._dtype) if kind == "image" else batch

    def arrived(self, staged: Staged) -> torch.Tensor:
        """The batch, for what this thread has its device compute from now on."""
        if staged.copied is not None:
            computing = torch.cuda.current_stream(self.device)
            computing.wait_event(staged.copied)
            staged.batch.record_stream(computing)  # its memory must not be reused before it is read
        return staged.batch

    def warm_up(self, pixels: torch.Tensor, text: PreparedText) -> None:
        """Run every size of batch once, so that no caller waits for what a device does the first time."""
        for size in self.buckets.sizes:
            self.encode("image", self.stage("image", [pixels] * size))
            self.encode("text", self.stage("text", [text] * size))
