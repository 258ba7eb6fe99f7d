"""One copy of the model on one device, and the sizes of the batches that it is given."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any, cast

import numpy as np
import torch

from shared.embeddings import Kind
from vendor_service.encoder.graph import Forward
from vendor_service.encoder.queries import PreparedText, Vectors
from vendor_service.encoder.short_texts import ShortTexts


class DeviceLost(Exception):
    """The device itself has failed, not what it was asked to do."""


class Buckets:
    """The sizes that batches have, so that a device meets few shapes and can prepare for each of them.

    Where a device `pads`, a batch is filled up with rows that nobody asked for: on a GPU a forward pass of
    few costs as much as one of some more. Otherwise a batch is as many of those that wait as make one of the
    sizes, and the rest follows in the next: on a CPU every row costs its share, asked for or not.
    A second device is given no fewer than `least` at a time: a pass of fewer would cost more than it hastens.
    """

    def __init__(self, sizes: Iterable[int], *, pads: bool, least: int = 1) -> None:
        self.sizes = sorted(sizes)
        self.least = least
        self._pads = pads

    @property
    def largest(self) -> int:
        """The most queries in one batch."""
        return self.sizes[-1]

    @cached_property
    def background(self) -> "Buckets":
        """Those of batches that nobody waits for: short, since whoever does wait comes behind one of them."""
        most = max(self.shortest, self.largest // 4)
        return Buckets([each for each in self.sizes if each <= most], pads=self._pads, least=self.least)

    @property
    def shortest(self) -> int:
        """The size of such a batch where somebody is likely to come: as few as are worth a pass."""
        return self.sizes[bisect_left(self.sizes, min(self.least, self.largest))]

    def fit(self, waiting: int, free: int = 1) -> int:
        """The size of the next batch, if `waiting` queries (at least one) wait for `free` devices."""
        part = waiting if self._pads else max(-(-waiting // free), min(waiting, self.least))
        most = min(part, self.largest)
        return most if self._pads else self.sizes[max(0, bisect_right(self.sizes, most) - 1)]

    def padded(self, queries: int) -> int:
        """The size of the batch that holds this number."""
        return self.sizes[bisect_left(self.sizes, queries)]


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
# Where two replicas share a CPU, a row takes each of them twice as long.
_SHARED_CPU_SIZES = _CPU_SIZES[:-2]
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


class Normalisation:
    """Makes of an image's bytes the numbers that a model is given, by its configuration, on one device."""

    def __init__(self, config: Mapping[str, Any], device: torch.device) -> None:
        mean, std = (torch.tensor(config[each]).view(3, 1, 1) for each in ("mean", "std"))
        self._scale, self._shift = (1 / (255 * std)).to(device), (-mean / std).to(device)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Bytes of shape (images, height, width, 3) as float32 of shape (images, 3, height, width).

        It lies in memory as the bytes do, channels last, and so does what convolutions make of it: on CPUs
        a third faster in a small ViT, a tenth in a ResNet, and no slower in ViT-B-32.
        """
        return torch.addcmul(self._shift, pixels.permute(0, 3, 1, 2).float(), self._scale)


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
        normalise: makes of images, as `Preprocessing.resize` leaves them, what their pass takes, on `device`.
        threads: how many threads a forward pass on the CPU takes; `None` elsewhere.
        shares: whether it has the CPU together with other replicas.
        compile_lock: of these passes, where other replicas share them.
    """

    def __init__(
        self,
        passes: Mapping[Kind, Forward],
        device: torch.device,
        dtype: torch.dtype,
        normalise: Callable[[torch.Tensor], torch.Tensor],
        *,
        threads: int | None = None,
        shares: bool = False,
        compile_lock: KernelCompileLock | None = None,
    ) -> None:
        self.device = device
        self.passes = passes
        self._dtype = dtype
        self._normalise = normalise
        self._compile_lock = compile_lock or KernelCompileLock()
        self._threads = threads
        self._all_threads = torch.get_num_threads()
        on_cuda = device.type == "cuda"
        self._copies = torch.cuda.Stream(device) if on_cuda else None  # type: ignore[no-untyped-call]
        self.buckets = (
            Buckets(_CUDA_SIZES, pads=True)
            if on_cuda
            else Buckets(_SHARED_CPU_SIZES if shares else _CPU_SIZES, pads=False, least=_WORTHWHILE_ROWS)
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
        return self._normalise(batch).to(self._dtype) if kind == "image" else batch

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
