"""Files and texts to queries, and their embeddings to a file or an array, a row an input."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from client.data.examples import sent_of
from client.data.finder import Skipped, counted, described
from client.data.images import UnreadableImage, read_image
from client.data.names import shown
from client.data.pool import find_pool
from client.data.sending import as_sent
from client.errors import BudgetExhausted, UsageError, unwritable
from client.parquet import Piece, require_pyarrow, write_parquet
from client.paths import obstacle, whole_file
from client.progress import Display
from client.purchase.buyer import Buyer
from client.purchase.result import PurchaseProgress, PurchaseResult
from client.vendors.query import Query

_PIECE = 4096


def check_output(out: Path) -> None:
    """Refuse, before anything is bought, a file that could not be written.

    Raises:
        UsageError: it has no known ending, its folder does not exist or takes no files, it is a folder, or
            pyarrow is missing.
    """
    if out.suffix not in _WRITERS:
        raise UsageError(f"--out takes a file that ends in {', '.join(_WRITERS)}, not {out.name!r}.")
    if out.suffix == ".parquet":
        require_pyarrow()
    if why := obstacle(out):
        raise UsageError(f"--out cannot be written: {why}.")


@dataclass(frozen=True)
class Unreadable:
    """An image that cannot be embedded: its path, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Inputs:
    """The texts and images to embed.

    Attributes:
        rows: each text and each image in the order given, one a row; images that cannot be read among them.
        left_out: what folders and patterns hold that is not taken.
    """

    rows: list[Query | Unreadable]
    left_out: list[Skipped]

    @property
    def queries(self) -> list[Query]:
        """The rows that are asked about."""
        return [row for row in self.rows if isinstance(row, Query)]

    @property
    def passed_over(self) -> list[Skipped]:
        """The files that are left out on purpose: hidden ones, say."""
        return [file for file in self.left_out if not file.is_loss]

    @property
    def unreadable(self) -> dict[str, str]:
        """Why images are not embedded, by name; those of which folders hold an unknown format among them."""
        rows = {row.name: row.reason for row in self.rows if isinstance(row, Unreadable)}
        return rows | {str(file.path): file.reason for file in self.left_out if file.is_loss}


def collect_inputs(texts: Sequence[str], paths: Sequence[str], display: Display) -> Inputs:
    """One row a text and an image; `find_pool` says which images a word means.

    Raises:
        UsageError: there is nothing to embed, a path does not exist, or a text is not Unicode.
    """
    try:
        rows: list[Query | Unreadable] = [Query.text(text) for text in texts]
    except UnicodeEncodeError as error:
        raise UsageError(f"A --text is not valid Unicode: {error.object!r}.") from error
    found = [find_pool(path) for path in paths]
    files = [file for each in found for file in each.images]
    with display.track("Reading", len(files)) as advance, ThreadPoolExecutor() as pool:
        for done, row in enumerate(pool.map(_read, files), start=1):
            rows.append(row)
            advance(done, "")
    inputs = Inputs(rows, [file for each in found for file in each.left_out])
    if not inputs.queries:
        reasons = Counter(inputs.unreadable.values()) + Counter(counted(inputs.passed_over))
        left_out = f" Left out: {described(reasons)}." if reasons else ""
        raise UsageError(
            f"Nothing to embed: give --text, or --images with image files or folders of them.{left_out}"
        )
    return inputs


def _read(file: Path) -> Query | Unreadable:
    """The query of a file, or why it cannot be read; whether it is a whole image is for the vendor to say."""
    try:
        content = read_image(file)
        sent = as_sent(content)
    except UnreadableImage as error:
        return Unreadable(str(file), str(error))
    digest = hashlib.sha256(sent).hexdigest()
    return Query("image", digest, str(file), lambda: sent_of(str(file), digest))


def run_id_of(queries: Sequence[Query]) -> str:
    """The same for the same inputs, so that budget and unanswered requests survive an interruption."""
    return "embed-" + hashlib.sha256("".join(query.digest for query in queries).encode()).hexdigest()[:16]


def embed_to_file(
    teacher: Buyer,
    rows: Sequence[Query | Unreadable],
    out: Path,
    on_progress: Callable[[PurchaseProgress], None],
) -> tuple[PurchaseResult, int, int]:
    """Buy what the cache lacks, and write all to `out`.

    `.npy` has a row for each of `rows`, NaN where there is no embedding, and `index_of(out)` names them.
    `.jsonl` has a line, and `.parquet` a row, (kind, name, embedding) for each that was embedded.

    Returns:
        What the purchase came to, how many rows the file has, and how many of them are embeddings.

    Raises:
        BudgetExhausted: the budget ended first; nothing is written.
        ClientError: buying failed, or the file cannot be written. What was bought is in the cache.
    """
    purchase = _buy_all(teacher, rows, on_progress, otherwise=f"{out} is not written")
    answers = _Answers(teacher, rows)
    _write_whole(out, lambda file: _WRITERS[out.suffix](file, answers))
    if out.suffix != ".npy":
        return purchase, answers.found, answers.found
    refused = {query.digest: reason for query, reason in purchase.refused.items()}
    _write_whole(index_of(out), lambda file: _write_index(file, rows, refused))
    return purchase, len(rows), answers.found


def embed_to_array(
    teacher: Buyer, rows: Sequence[Query | Unreadable], on_progress: Callable[[PurchaseProgress], None]
) -> tuple[PurchaseResult, NDArray[np.float32]]:
    """Buy what the cache lacks.

    Returns:
        What the purchase came to, and the embeddings, shape (rows, dimensions), NaN where there is none.

    Raises:
        BudgetExhausted: the budget ended first.
        ClientError: buying failed. What was bought is in the cache.
    """
    purchase = _buy_all(teacher, rows, on_progress, otherwise="nothing is returned")
    answers = _Answers(teacher, rows)
    return purchase, np.concatenate(list(answers.pieces()))


def _buy_all(
    teacher: Buyer,
    rows: Sequence[Query | Unreadable],
    on_progress: Callable[[PurchaseProgress], None],
    *,
    otherwise: str,
) -> PurchaseResult:
    queries = [row for row in rows if isinstance(row, Query)]
    purchase = teacher.buy(queries, on_progress)
    purchase.require_compared(teacher.budget)
    if purchase.out_of_budget:
        raise BudgetExhausted(
            f"The budget of {teacher.budget.described} does not suffice; {otherwise}. What was bought is "
            f"kept: the same command with {teacher.enough_for(queries)} continues from here."
        )
    return purchase


def index_of(out: Path) -> Path:
    """The file beside a .npy file that names its rows, a line each."""
    return out.with_suffix(".index.jsonl")


def _write_whole(out: Path, write: Callable[[BinaryIO], None]) -> None:
    """Replace a file whole, or leave it as it is."""
    try:
        with whole_file(out) as part, part.open("wb") as file:
            write(file)
    except OSError as error:
        raise unwritable(out, error) from error


class _Answers:
    """The embeddings of some rows in order, a few thousand at a time; `found` counts them."""

    def __init__(self, teacher: Buyer, rows: Sequence[Query | Unreadable]) -> None:
        self._teacher = teacher
        self._rows = rows
        self.shape = (len(rows), teacher.model.dimensions)
        self.found = 0

    def pieces(self) -> Iterator[NDArray[np.float32]]:
        """Rows (n, dimensions), NaN where there is none."""
        for is_asked, group in groupby(self._rows, lambda row: isinstance(row, Query)):
            if is_asked:
                yield from (vectors for _, vectors, _ in self._looked_up(list(group)))
            else:
                yield np.full((len(list(group)), self.shape[1]), np.nan, np.float32)

    def known(self) -> Iterator[tuple[list[Query], NDArray[np.float32]]]:
        """The queries that were answered, and their rows (n, dimensions)."""
        for queries, vectors, have in self._looked_up(self._rows):
            yield [query for query, known in zip(queries, have, strict=True) if known], vectors[have]

    def _looked_up(
        self, rows: Sequence[Query | Unreadable]
    ) -> Iterator[tuple[Sequence[Query], NDArray[np.float32], NDArray[np.bool_]]]:
        asked = [row for row in rows if isinstance(row, Query)]
        for start in range(0, len(asked), _PIECE):
            piece = asked[start : start + _PIECE]
            vectors, have = self._teacher.lookup(piece)
            self.found += int(have.sum())
            yield piece, vectors, have


def _write_npy(file: BinaryIO, answers: _Answers) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": answers.shape}
    np.lib.format.write_array_header_1_0(file, header)
    for vectors in answers.pieces():
        file.write(vectors.astype("<f4").tobytes())


def _write_index(file: BinaryIO, rows: Sequence[Query | Unreadable], refused: Mapping[str, str]) -> None:
    """A line a row: what it is of, and why it is NaN where it is."""
    for number, row in enumerate(rows):
        if isinstance(row, Query):
            about = {"kind": row.kind, "name": row.name, "skipped": refused.get(row.digest)}
        else:
            about = {"kind": "image", "name": row.name, "skipped": row.reason}
        file.write(json.dumps({"row": number, **about}).encode() + b"\n")


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
