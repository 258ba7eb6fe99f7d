"""Pools of unlabelled images, without copies, exact or near, of images that are learnt or tested on."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from client.data.examples import UNLABELLED, Example, read_files, thumbnails
from client.data.file_memory import FileFacts, FileMemory
from client.data.finder import COPY, FoundFiles, Skipped, counted, described, find_images
from client.data.tables import images_in_table, is_table
from client.errors import DataError
from client.paths import is_file
from client.progress import Display

REPEATED = f"{COPY}another unlabelled image"
# Two pictures are near copies from this correlation of their thumbnails on (docs/method.md).
NEAR = 0.98
# Thumbnails whose correlation is surely below this are not compared any further; the rest is for rounding.
_ROUGHLY = NEAR - 0.001
_ROWS_AT_ONCE = 4096
_PAIRS_AT_ONCE = 2**24  # 64 MiB of likenesses
_WHOLE_AT_ONCE = 2**14  # 54 MiB of pictures


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
    known: Mapping[str, Iterable[FileFacts]],
    memory: FileMemory,
    display: Display,
    *,
    given: str,
) -> Pool:
    """Find and read unlabelled images, and leave out copies of each other and of other images.

    Args:
        words: folders, files, patterns and tables (`find_pool`), as a person names them.
        known: images that may not be in the pool, by what they are ("a labelled image").
        memory: what is known of files already.
        display: is told how far reading is.
        given: the words with their options, as an error names them.

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
    examples: list[Example] = []
    unreadable: list[Skipped] = []
    copies: list[Skipped] = []
    copies_of = _Copies([_Known.of(what, others) for what, others in known.items()])
    with display.track("Reading images", len(files)) as advance:
        read = zip(files, read_files(list(files), memory, lambda done: advance(done, "")), strict=True)
        while some := list(islice(read, _ROWS_AT_ONCE)):  # what is known of all would take a kilobyte a file
            readable = [(path, facts) for path, facts in some if not facts.reason]
            unreadable += [Skipped(path, facts.reason, facts.kind) for path, facts in some if facts.reason]
            reasons = copies_of.among(readable)
            copies += [Skipped(path, reason) for path, reason in reasons.items()]
            examples += [
                Example(
                    file=str(path),
                    domain=files[path],
                    label=UNLABELLED,
                    digest=facts.digest,
                    drawing=facts.file_digest,
                    side=facts.side,
                    file_digest=facts.file_digest,
                )
                for path, facts in readable
                if path not in reasons
            ]
    left_out += unreadable + copies
    if not examples:
        raise DataError(_nothing_left(given, left_out))
    return Pool(tuple(examples), tuple(left_out))


def find_pool(word: str) -> FoundFiles:
    """The files that may be unlabelled images: those of a table's column `path`, or as by `find_images`.

    Raises:
        DataError: a table cannot be read, or a folder.
        UsageError: there is nothing of such a name.
    """
    if not (is_table(Path(word)) and is_file(word)):
        return find_images(word)
    rows, left_out = images_in_table(Path(word), labelled=False)
    return FoundFiles(tuple(row.path for row in rows), tuple(left_out))


def _nothing_left(given: str, left_out: Sequence[Skipped]) -> str:
    reasons = f" Left out: {described(counted(left_out))}." if left_out else ""
    return f"{given}: there is no image left to learn from.{reasons}"


class _Copies:
    """Finds copies of images that are known, and of those that it was asked about before."""

    def __init__(self, known: Sequence["_Known"]) -> None:
        self._known = known
        self._seen: set[str] = set()

    def among(self, files: Sequence[tuple[Path, FileFacts]]) -> dict[Path, str]:
        """Which of some further files are copies, and of what."""
        found: dict[Path, str] = {}
        for path, facts in files:
            if facts.digest in self._seen:
                found[path] = REPEATED
            self._seen.add(facts.digest)
        pictures = _Pictures.of(thumbnails([facts for _, facts in files]))
        for known in self._known:
            for (path, facts), is_near in zip(files, pictures.near_copies_of(known.pictures), strict=True):
                if facts.digest in known.digests or facts.file_digest in known.digests:
                    found[path] = f"{COPY}{known.what}"
                elif is_near:
                    found[path] = f"nearly {COPY}{known.what}"
        return found


@dataclass(frozen=True)
class _Pictures:
    """Thumbnails (n, side, side, 3), and what they are compared by first, as vectors of length 1 (n, d)."""

    whole: NDArray[np.uint8]
    rough: NDArray[np.float32]

    @classmethod
    def of(cls, whole: NDArray[np.uint8]) -> Self:
        starts = range(0, max(1, len(whole)), _WHOLE_AT_ONCE)
        parts = [_rough(_centred(whole[start : start + _WHOLE_AT_ONCE])) for start in starts]
        return cls(whole, np.concatenate(parts))

    def near_copies_of(self, others: Self) -> NDArray[np.bool_]:
        """Which of these are near copies of one of the others, shape (n,)."""
        near = np.zeros(len(self.whole), np.bool_)
        at_once = max(1, _PAIRS_AT_ONCE // max(1, len(others.whole)))
        for start in range(0, len(near), at_once):
            rows, columns = np.nonzero(self.rough[start : start + at_once] @ others.rough.T > _ROUGHLY)
            for first in range(0, len(rows), _WHOLE_AT_ONCE):
                some = slice(first, first + _WHOLE_AT_ONCE)
                mine, theirs = self.whole[start + rows[some]], others.whole[columns[some]]
                alike = np.einsum("nd,nd->n", _centred(mine), _centred(theirs))
                near[start + rows[some][alike > NEAR]] = True
        return near


@dataclass(frozen=True)
class _Known:
    """Images of which copies are told: what they are, digests of their files and of what is sent of them."""

    what: str
    digests: frozenset[str]
    pictures: _Pictures

    @classmethod
    def of(cls, what: str, files: Iterable[FileFacts]) -> Self:
        digests: set[str] = set()
        parts = [thumbnails([])]
        files = iter(files)
        while some := list(islice(files, _ROWS_AT_ONCE)):
            digests.update(each.digest for each in some)
            digests.update(each.file_digest for each in some)
            parts.append(thumbnails(some))
        return cls(what, frozenset(digests), _Pictures.of(np.concatenate(parts)))


def _centred(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Thumbnails as vectors whose products are correlations, shape (n, d); zero for one plain colour."""
    rows = pictures.reshape(len(pictures), math.prod(pictures.shape[1:])).astype(np.float32)
    return _unit(rows - rows.mean(axis=1, keepdims=True))


def _rough(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same at a third of the size, and behind it the length of what is lost there, shape (n, d / 9 + 1).

    No correlation is above the product of these (the inequality of Cauchy and Schwarz). Of two pictures that
    lose nearly all, the product is near 1, and so they are compared in full.
    """
    side = round((images.shape[1] / 3) ** 0.5) // 3
    thirds = np.kron(np.eye(side), np.ones((3, 1)))
    rows = images @ (np.kron(np.kron(thirds, thirds), np.eye(3)) / 3).astype(np.float32)
    lost = np.einsum("nd,nd->n", images, images) - np.einsum("nd,nd->n", rows, rows)
    return np.column_stack([rows, np.sqrt(np.maximum(lost, 0))])


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float32] = rows / np.maximum(lengths, np.float32(1e-3))
    return unit
