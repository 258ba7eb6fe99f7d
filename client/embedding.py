"""`client embed`: files and texts to queries, and their embeddings to a file."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from client.buying.parquet import Piece, require_pyarrow, write_parquet
from client.buying.purchase import Progress, Purchase
from client.buying.queries import Query
from client.buying.teacher import Teacher
from client.data.domains import shown
from client.data.images import UnreadableImage, find_images
from client.data.views import ORIGINAL
from client.display import Display
from client.errors import BudgetExhausted, ClientError, UsageError

_PIECE = 4096


def check_output(out: Path) -> None:
    """Refuse, before anything is bought, a file that could not be written.

    Raises:
        UsageError: it has no known ending, or its folder does not exist, or pyarrow is missing.
    """
    if out.suffix not in _WRITERS:
        raise UsageError(f"--out takes a file that ends in {', '.join(_WRITERS)}, not {out.name!r}.")
    if out.suffix == ".parquet":
        require_pyarrow()
    if not out.parent.is_dir():
        raise UsageError(f"--out cannot be written: there is no folder {out.parent}.")


def from_lines(
    texts: Sequence[str], images: Sequence[str], lines: Iterable[str]
) -> tuple[list[str], list[str]]:
    """The texts and images that are meant, where `-` among either stands for the lines, without empty ones.

    Raises:
        UsageError: `-` is given twice.
    """
    if [*texts, *images].count("-") > 1:
        raise UsageError(
            "Only one of --text and --images can be -, and only once: standard input is read once."
        )
    if "-" not in (*texts, *images):
        return list(texts), list(images)
    given = [line.rstrip("\r\n") for line in lines if line.strip()]
    text_list, image_list = (
        [item for word in words for item in (given if word == "-" else [word])] for words in (texts, images)
    )
    return text_list, image_list


def collect_queries(
    texts: Sequence[str], paths: Sequence[str], display: Display
) -> tuple[list[Query], dict[Path, str]]:
    """One query a text and an image file, and the files that cannot be read, with the reason.

    Folders are searched below, in order of name, for files that are named as images; so are the folders
    that a pattern such as `shots/**/*` matches.

    Raises:
        UsageError: there is nothing to embed, a path does not exist, or a text is not Unicode.
    """
    try:
        queries = [Query.text(text) for text in texts]
    except UnicodeEncodeError as error:
        raise UsageError(f"A --text is not valid Unicode: {error.object!r}.") from error
    unreadable: dict[Path, str] = {}
    files = [file for path in paths for file in find_images(path)]
    with display.track("Reading", len(files)) as advance, ThreadPoolExecutor() as pool:
        for done, (file, outcome) in enumerate(zip(files, pool.map(_read, files), strict=True), start=1):
            if isinstance(outcome, Query):
                queries.append(outcome)
            else:
                unreadable[file] = outcome
            advance(done, "")
    if not queries:
        raise UsageError("Nothing to embed: give --text, or --images with image files or folders of them.")
    return queries, unreadable


def _read(file: Path) -> Query | str:
    """The query of a file, or why it cannot be read; whether it is an image is for the vendor to say."""
    try:
        content = file.read_bytes()
    except OSError as error:
        return error.strerror or "cannot be read"
    try:
        sent = ORIGINAL.encode(content)
    except UnreadableImage:
        sent = content
    digest = hashlib.sha256(sent).hexdigest()
    if sent is content:
        return Query.image_file(file, digest)
    return Query("image", digest, str(file), lambda: ORIGINAL.encode(file.read_bytes()))


def run_id_of(queries: Sequence[Query]) -> str:
    """The same for the same inputs, so that budget and unanswered requests survive an interruption."""
    return "embed-" + hashlib.sha256("".join(query.digest for query in queries).encode()).hexdigest()[:16]


def embed_to_file(
    teacher: Teacher, queries: Sequence[Query], out: Path, on_progress: Callable[[Progress], None]
) -> tuple[Purchase, int]:
    """Buy what the cache lacks and write all to `out`: what the purchase came to, and how many there are.

    `.npy` has a row a query, NaN where one was refused; `.jsonl` a line, and `.parquet` a row, (kind, name,
    embedding) for each of the others.

    Raises:
        BudgetExhausted: the budget ended first; nothing is written.
        ClientError: buying failed, or the file cannot be written. What was bought is in the cache.
    """
    purchase = teacher.buy(queries, on_progress)
    if purchase.out_of_budget:
        raise BudgetExhausted(
            f"The budget of {teacher.budget.described} does not suffice; {out} is not written. "
            "What was bought is kept: the same command with a larger --budget goes on from here."
        )
    return purchase, _write(out, queries, teacher)


def _write(out: Path, queries: Sequence[Query], teacher: Teacher) -> int:
    """Write in pieces, so that memory holds a few thousand embeddings; returns how many there are."""
    part = out.with_name(f"{out.name}.part")
    answers = _Answers(teacher, queries)
    try:
        with part.open("wb") as file:
            _WRITERS[out.suffix](file, answers)
        part.replace(out)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ClientError(
            f"{out} cannot be written: {error.strerror}. What was bought is in the cache."
        ) from error
    return answers.found


class _Answers:
    """The embeddings of some queries in order, a few thousand at a time; `found` counts them."""

    def __init__(self, teacher: Teacher, queries: Sequence[Query]) -> None:
        self._teacher = teacher
        self._queries = queries
        self.shape = (len(queries), teacher.model.dimensions)
        self.found = 0

    def pieces(self) -> Iterator[NDArray[np.float32]]:
        """Rows (n, dimensions), NaN where there is none."""
        for _, vectors, _ in self._looked_up():
            yield vectors

    def known(self) -> Iterator[tuple[list[Query], NDArray[np.float32]]]:
        """The queries that were answered, and their rows (n, dimensions)."""
        for queries, vectors, have in self._looked_up():
            yield [query for query, known in zip(queries, have, strict=True) if known], vectors[have]

    def _looked_up(self) -> Iterator[tuple[Sequence[Query], NDArray[np.float32], NDArray[np.bool_]]]:
        for start in range(0, len(self._queries), _PIECE):
            piece = self._queries[start : start + _PIECE]
            vectors, have = self._teacher.lookup(piece)
            self.found += int(have.sum())
            yield piece, vectors, have


def _write_npy(file: BinaryIO, answers: _Answers) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": answers.shape}
    np.lib.format.write_array_header_1_0(file, header)
    for vectors in answers.pieces():
        file.write(vectors.astype("<f4").tobytes())


def _write_lines(file: BinaryIO, answers: _Answers) -> None:
    for queries, vectors in answers.known():
        for query, vector in zip(queries, vectors, strict=True):
            row = {"kind": query.kind, "name": query.name, "embedding": vector.tolist()}
            file.write(json.dumps(row).encode() + b"\n")


def _write_parquet(file: BinaryIO, answers: _Answers) -> None:
    pieces = (
        Piece(
            {"kind": [query.kind for query in queries], "name": [shown(query.name) for query in queries]},
            vectors,
        )
        for queries, vectors in answers.known()
    )
    types = {"kind": "string", "name": "string"}
    write_parquet(file, pieces, types=types, dimensions=answers.shape[1], dtype=np.dtype("<f4"))


_WRITERS: dict[str, Callable[[BinaryIO, _Answers], None]] = {
    ".npy": _write_npy,
    ".parquet": _write_parquet,
    ".jsonl": _write_lines,
}
