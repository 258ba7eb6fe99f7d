"""Decoded images: kept on disk once for every run that needs them, and mapped into memory."""

import hashlib
import os
import re
import shutil
import weakref
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from client.data.examples import Example
from client.data.images import Pixels, UnreadableImage
from client.errors import DataError

# Decoded images take at most this much disk, and at most half of what is free: DomainNet fits at 256 px.
MAX_BYTES = 128 * 2**30
_SUFFIX = ".pixels"
# How a file of them is named: see `PixelStore._name`.
_NAMED = re.compile(rf"[0-9a-f]{{32}}-\d+{re.escape(_SUFFIX)}")


class PixelBatch(NamedTuple):
    """Images squeezed into squares, RGB of shape (n, side, side, 3); width / height of each, shape (n,)."""

    pixels: Pixels
    aspects: NDArray[np.float32]


class PixelStore:
    """Images by position, decoded once and kept in a folder that all runs share.

    Every domain is one file, named by the content of its images and their side. So a run with another target
    domain, seed or method finds them. Files that have not been used for longest make room for new ones.
    Whatever does not fit, or cannot be written, is decoded again whenever it is asked for.
    """

    def __init__(
        self, examples: Sequence[Example], folder: Path | None, *, max_bytes: int = MAX_BYTES
    ) -> None:
        """Take up images that have been read; without a folder, nothing is kept."""
        self._examples = examples
        self._folder = folder
        self._max_bytes = max_bytes
        domains: dict[str, list[int]] = {}
        for position, example in enumerate(examples):
            domains.setdefault(example.domain, []).append(position)
        self._domains = [np.asarray(members, dtype=np.int64) for members in domains.values()]
        # Of each position: its file, and its slot there.
        self._place = np.zeros((len(examples), 2), dtype=np.int64)
        for number, members in enumerate(self._domains):
            self._place[members, 0], self._place[members, 1] = number, np.arange(len(members))
        self._files: dict[int, list[_PixelFile]] = {}

    def load(self, positions: Sequence[int], side: int) -> PixelBatch:
        """The images at these positions, in order, decoding in parallel what has not been decoded.

        Raises:
            DataError: a file has changed since it was read, or is no longer an image.
        """
        files = self._files.get(side) or self._open(side)
        wanted = np.asarray(positions, dtype=np.int64)
        pictures = PixelBatch(
            np.empty((len(wanted), side, side, 3), np.uint8), np.empty(len(wanted), np.float32)
        )
        missing: list[int] = []
        for number, pack in enumerate(files):
            rows = np.flatnonzero(self._place[wanted, 0] == number)
            slots = self._place[wanted[rows], 1]
            ready = pack.ready(slots)
            if ready.any():
                pictures.pixels[rows[ready]], pictures.aspects[rows[ready]] = pack.read(slots[ready])
            missing += rows[~ready].tolist()
        if missing:
            with ThreadPoolExecutor() as pool:
                decoded = pool.map(lambda row: self._decode(int(wanted[row]), side), missing)
                for row, (pixels, aspect) in zip(missing, decoded, strict=True):
                    pictures.pixels[row], pictures.aspects[row] = pixels, aspect
        return pictures

    def _decode(self, position: int, side: int) -> tuple[Pixels, float]:
        example = self._examples[position]
        try:
            pixels, aspect = example.square(side)
        except UnreadableImage as error:
            raise DataError(
                f"{example.path} has changed since it was read: {error}. Put it back, or start a new run."
            ) from error
        number, slot = self._place[position]
        self._files[side][number].write(int(slot), pixels, aspect)
        return pixels, aspect

    def _open(self, side: int) -> "list[_PixelFile]":
        folder = self._folder or Path()
        paths = [folder / self._name(members, side) for members in self._domains]
        share = 0.0 if self._folder is None else self._fraction_kept(folder, paths, side)
        self._files[side] = [
            _PixelFile(path, len(members), int(share * len(members)), side)
            for path, members in zip(paths, self._domains, strict=True)
        ]
        return self._files[side]

    def _fraction_kept(self, folder: Path, paths: list[Path], side: int) -> float:
        """Which share of the images may be kept, once other files have made room."""
        needed = sum(_PixelFile.size(len(members), side) for members in self._domains)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            allowed = min(self._max_bytes, (shutil.disk_usage(folder).free + _total(_stats(paths))) // 2)
            share = min(1.0, allowed / needed)
            _make_room(folder, allowed - round(share * needed), keep=paths)
        except OSError:
            return 0.0
        return share

    def _name(self, members: NDArray[np.int64], side: int) -> str:
        digest = hashlib.sha256("".join(self._examples[i].digest for i in members).encode())
        return f"{digest.hexdigest()[:32]}-{side}{_SUFFIX}"


class _PixelFile:
    """The squares of one domain in one file: a checksum and an aspect an image, then the pixels.

    A slot is filled when its checksum is right. Several processes may fill one file at once, for they write
    the same; what a crash left half written is found out by its checksum and written again.
    """

    def __init__(self, path: Path, count: int, kept: int, side: int) -> None:
        """Open the file, or make it; of its `count` slots the first `kept` are used."""
        self._ready = np.zeros(count, dtype=bool)
        self._kept = kept
        self._start = 8 * count
        self._slot_bytes = 3 * side * side
        self._file: int | None = None
        if kept == 0:
            return
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            weakref.finalize(self, os.close, self._file)
            os.truncate(self._file, self.size(count, side))
            os.utime(path)
            memory = np.memmap(path, mode="r", dtype=np.uint8)
        except OSError:  # a folder that cannot be written, a full disk
            self._kept = 0
            return
        self._checksums = memory[: 4 * count].view(np.uint32)
        self._aspects = memory[4 * count : 8 * count].view(np.float32)
        self._pixels = memory[self._start :].reshape(count, side, side, 3)

    @staticmethod
    def size(count: int, side: int) -> int:
        """Bytes of a file of so many images; what has not been written takes no disk."""
        return count * (8 + 3 * side * side)

    def ready(self, slots: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which slots hold their image. Each is checked once."""
        for slot in slots[(slots < self._kept) & ~self._ready[slots]]:
            checksum = self._checksums[slot]
            self._ready[slot] = checksum and checksum == _checksum(self._pixels[slot], self._aspects[slot])
        return self._ready[slots]

    def read(self, slots: NDArray[np.int64]) -> PixelBatch:
        """Copies of the images in slots that are ready."""
        return PixelBatch(self._pixels[slots], self._aspects[slots])

    def write(self, slot: int, pixels: Pixels, aspect: float) -> None:
        """Keep an image, if there is room."""
        if slot >= self._kept or self._file is None:
            return
        number = np.float32(aspect)
        checksum = np.uint32(_checksum(pixels, number))
        try:
            os.pwrite(self._file, pixels.tobytes(), self._start + slot * self._slot_bytes)
            os.pwrite(self._file, number.tobytes(), 4 * len(self._ready) + 4 * slot)
            os.pwrite(self._file, checksum.tobytes(), 4 * slot)
        except OSError:  # the disk is full: what is there can be read, and no more is kept
            self._kept = 0


def delete_pixels(folder: Path) -> None:
    """Delete all decoded images; a run that uses them keeps its own hold of them until it ends.

    Raises:
        OSError: some cannot be deleted.
    """
    for path in folder.glob(f"*{_SUFFIX}"):
        if _NAMED.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _checksum(pixels: Pixels, aspect: np.float32) -> int:
    """A number that is not 0, which is what an empty slot holds."""
    return crc32(pixels.tobytes(), crc32(aspect.tobytes())) or 1


def _stats(paths: Iterable[Path]) -> dict[Path, os.stat_result]:
    """The system's facts of those files that are there; another process may delete any at any time."""
    found: dict[Path, os.stat_result] = {}
    for path in paths:
        with suppress(FileNotFoundError):
            found[path] = path.stat()
    return found


def _total(files: Mapping[Path, os.stat_result]) -> int:
    """Bytes of disk that these files take."""
    return sum(512 * file.st_blocks for file in files.values())


def _make_room(folder: Path, left: int, *, keep: Sequence[Path]) -> None:
    """Delete what has not been used for longest, until what is not to be kept takes no more than `left`."""
    others = _stats(set(folder.glob(f"*{_SUFFIX}")) - set(keep))
    for path in sorted(others, key=lambda path: others[path].st_mtime):
        if _total(others) <= left:
            break
        path.unlink(missing_ok=True)
        del others[path]
