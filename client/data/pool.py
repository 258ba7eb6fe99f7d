"""Pools of unlabelled images, without copies, exact or near, of images that are learnt or tested on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Self

import numpy as np

from client.data.examples import UNLABELLED, Example, read_files, thumbnails
from client.data.file_memory import FileFacts, FileMemory
from client.data.finder import COPY, FoundFiles, Skipped, counted, described, find_images
from client.data.near_copies import Pictures
from client.data.sources.source import Kept
from client.data.tables import Columns, images_in_table, is_table
from client.errors import DataError
from client.paths import is_file
from client.progress import Display

REPEATED = f"{COPY}another unlabelled image"
_ROWS_AT_ONCE = 4096  # what is known of all files would take a kilobyte each


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
    columns: Sequence[str] = (),
) -> Pool:
    """Find and read unlabelled images, and leave out copies of each other and of other images.

    Args:
        words: folders, files, patterns and tables (`find_pool`), as a person names them.
        known: images that may not be in the pool, by what they are ("a labelled image").
        memory: what is known of files already.
        display: is told how far reading is.
        given: the words with their options, as an error names them.
        columns: of tables, other names of columns (`Columns.of`).

    Raises:
        DataError: a word means no image, or no image is left.
        UsageError: there is nothing of such a name.
    """
    files: dict[Path, str] = {}
    left_out: list[Skipped] = []
    for word in words:
        found = find_pool(word, columns)
        left_out += found.left_out
        for path in found.images:
            files.setdefault(path.absolute(), word)
    copies = _Copies([_Known.of(what, others) for what, others in known.items()])
    examples: list[Example] = []
    unreadable: list[Skipped] = []
    repeated: list[Skipped] = []
    with display.track("Reading images", len(files)) as advance:
        read = zip(files, read_files(list(files), memory, lambda done: advance(done, "")), strict=True)
        while some := list(islice(read, _ROWS_AT_ONCE)):
            readable = [(path, facts) for path, facts in some if not facts.reason]
            unreadable += [Skipped(path, facts.reason, facts.kind) for path, facts in some if facts.reason]
            reasons = copies.among(readable)
            repeated += [Skipped(path, reason) for path, reason in reasons.items()]
            examples += [
                Example.of(path, facts, domain=files[path], label=UNLABELLED)
                for path, facts in readable
                if path not in reasons
            ]
    left_out += unreadable + repeated
    if not examples:
        reasons_told = f" Left out: {described(counted(left_out))}." if left_out else ""
        raise DataError(f"{given}: there is no image left to learn from.{reasons_told}")
    return Pool(tuple(examples), tuple(left_out))


def find_pool(word: str, columns: Sequence[str] = ()) -> FoundFiles:
    """The files that may be unlabelled images: of a source, of a table's column `path`, or by `find_images`.

    Raises:
        DataError: a table cannot be read, or a folder.
        UsageError: there is nothing of such a name.
    """
    if (kept := Kept.of(word)) is not None:
        rows, left_out = kept.images(Columns.of(columns), labelled=False)
        return FoundFiles(tuple(row.path for row in rows), tuple(left_out))
    if not (is_table(Path(word)) and is_file(word)):
        return find_images(word)
    rows, left_out = images_in_table(Path(word), labelled=False, columns=Columns.of(columns))
    return FoundFiles(tuple(row.path for row in rows), tuple(left_out))


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
        pictures = Pictures.of(thumbnails([facts for _, facts in files]))
        for known in self._known:
            for (path, facts), is_near in zip(files, pictures.near_copies_of(known.pictures), strict=True):
                if facts.digest in known.digests or facts.file_digest in known.digests:
                    found[path] = f"{COPY}{known.what}"
                elif is_near:
                    found[path] = f"nearly {COPY}{known.what}"
        return found


@dataclass(frozen=True)
class _Known:
    """Images of which copies are told: what they are, digests of their files and of what is sent of them."""

    what: str
    digests: frozenset[str]
    pictures: Pictures

    @classmethod
    def of(cls, what: str, files: Iterable[FileFacts]) -> Self:
        digests: set[str] = set()
        parts = [thumbnails([])]
        files = iter(files)
        while some := list(islice(files, _ROWS_AT_ONCE)):
            digests.update(each.digest for each in some)
            digests.update(each.file_digest for each in some)
            parts.append(thumbnails(some))
        return cls(what, frozenset(digests), Pictures.of(np.concatenate(parts)))
