"""Pools of unlabelled images, without copies, exact or near, of images that are learnt or tested on."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from client.data.examples import UNLABELLED, Example, read_files, thumbnails
from client.data.file_memory import FileFacts, FileMemory
from client.data.finder import COPY, FoundFiles, Skipped, counted, described, find_images
from client.data.tables import images_in_table, is_table
from client.errors import DataError
from client.progress import Display

REPEATED = f"{COPY}another unlabelled image"
# Two pictures are near copies from this correlation of their thumbnails on (docs/experiments.md).
NEAR = 0.98
# Thumbnails that agree less than this in grey, at a third of the size, are not compared any further.
_ROUGHLY = 0.95
_ROWS_AT_ONCE = 4096
_PAIRS_AT_ONCE = 2**24  # 64 MiB of likenesses


@dataclass(frozen=True)
class Pool:
    """Unlabelled images.

    Attributes:
        examples: what may be learnt from; the domain of each is the word that it was found by.
        left_out: files that are not taken, copies of other images among them.
    """

    examples: tuple[Example, ...]
    left_out: tuple[Skipped, ...]


def read_pool(
    words: Sequence[str],
    known: Mapping[str, Sequence[FileFacts]],
    memory: FileMemory,
    display: Display,
) -> Pool:
    """Find and read unlabelled images, and leave out copies of each other and of other images.

    Args:
        words: folders, files, patterns and tables (`find_pool`), as a person names them.
        known: images that may not be in the pool, by what they are ("a labelled image").
        memory: what is known of files already.
        display: is told how far reading is.

    Raises:
        DataError: a word means no image, or no image is left.
        UsageError: there is nothing of such a name.
    """
    files: dict[Path, str] = {}
    left_out: list[Skipped] = []
    for word in words:
        found = find_pool(word)
        left_out += found.left_out
        for path in found.images:
            files.setdefault(path.absolute(), word)
    with display.track("Reading images", len(files)) as advance:
        facts = read_files(list(files), memory, lambda done: advance(done, ""))
    readable = [(path, each) for path, each in zip(files, facts, strict=True) if not each.reason]
    left_out += [
        Skipped(path, each.reason, each.kind) for path, each in zip(files, facts, strict=True) if each.reason
    ]
    copies = dict(_repeated(readable)) | dict(_copies(readable, known))
    examples = tuple(
        Example(path, files[path], UNLABELLED, each.digest, each.file, each.side)
        for path, each in readable
        if path not in copies
    )
    left_out += [Skipped(path, reason) for path, reason in copies.items()]
    if not examples:
        raise DataError(_nothing_left(words, left_out))
    return Pool(examples, tuple(left_out))


def find_pool(word: str) -> FoundFiles:
    """The files that may be unlabelled images: those of a table's column `path`, or as by `find_images`.

    Raises:
        DataError: a table cannot be read, or a folder.
        UsageError: there is nothing of such a name.
    """
    if not (is_table(Path(word)) and Path(word).is_file()):
        return find_images(word)
    rows, left_out = images_in_table(Path(word), labelled=False)
    return FoundFiles(tuple(row.path for row in rows), tuple(left_out))


def _nothing_left(words: Sequence[str], left_out: Sequence[Skipped]) -> str:
    reasons = f" Left out: {described(counted(left_out))}." if left_out else ""
    return f"--unlabelled {' '.join(words)}: there is no image left to learn from.{reasons}"


def _repeated(files: Iterable[tuple[Path, FileFacts]]) -> Iterator[tuple[Path, str]]:
    """Files whose image came before."""
    seen: set[str] = set()
    for path, facts in files:
        if facts.digest in seen:
            yield path, REPEATED
        seen.add(facts.digest)


def _copies(
    files: Sequence[tuple[Path, FileFacts]], known: Mapping[str, Sequence[FileFacts]]
) -> Iterator[tuple[Path, str]]:
    """Files that are a copy of an image that is known, and of which."""
    compared = [
        (what, {each.digest for each in others} | {each.file for each in others}, _Pictures.of(others))
        for what, others in known.items()
        if others
    ]
    for start in range(0, len(files), _ROWS_AT_ONCE):  # vectors of all files would take kilobytes a file
        chunk = files[start : start + _ROWS_AT_ONCE]
        pictures = _Pictures.of([facts for _, facts in chunk])
        for what, digests, others in compared:
            for (path, facts), is_near in zip(chunk, pictures.near_copies_of(others), strict=True):
                if facts.digest in digests or facts.file in digests:
                    yield path, f"{COPY}{what}"
                elif is_near:
                    yield path, f"nearly {COPY}{what}"


@dataclass(frozen=True)
class _Pictures:
    """Thumbnails as they are compared: whole, (n, d), and in grey at a third of the size, (n, d / 27)."""

    whole: NDArray[np.float32]
    rough: NDArray[np.float32]

    @classmethod
    def of(cls, files: Sequence[FileFacts]) -> Self:
        whole = _centred(thumbnails(files))
        return cls(whole, _rough(whole))

    def near_copies_of(self, others: Self) -> NDArray[np.bool_]:
        """Which of these are near copies of one of the others, shape (n,)."""
        near = np.zeros(len(self.whole), np.bool_)
        at_once = max(1, _PAIRS_AT_ONCE // len(others.whole))
        for start in range(0, len(near), at_once):
            rows, columns = np.nonzero(self.rough[start : start + at_once] @ others.rough.T > _ROUGHLY)
            alike = np.einsum("nd,nd->n", self.whole[start + rows], others.whole[columns])
            near[start + rows[alike > NEAR]] = True
        return near


def _centred(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Thumbnails as vectors whose products are correlations, shape (n, d); zero for one plain colour."""
    rows = pictures.reshape(len(pictures), -1).astype(np.float32)
    return _unit(rows - rows.mean(axis=1, keepdims=True))


def _rough(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same in grey at a third of the size, shape (n, d / 27)."""
    side = round((images.shape[1] / 3) ** 0.5)
    blocks = images.reshape(len(images), side // 3, 3, side // 3, 3, 3)
    rows = blocks.mean(axis=(2, 4, 5)).reshape(len(images), -1)
    return _unit(rows - rows.mean(axis=1, keepdims=True))


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float32] = rows / np.maximum(lengths, np.float32(1e-3))
    return unit
