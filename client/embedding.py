"""`client embed`: files and texts to queries, and their embeddings to a file."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.buying.queries import Query
from client.data.images import SUFFIXES
from client.errors import ClientError, UsageError

FORMATS = (".npy", ".jsonl")


def collect_queries(texts: Sequence[str], paths: Sequence[Path], out: Path) -> list[Query]:
    """One query a text and an image file; folders are searched below, in order of name.

    Raises:
        UsageError: there is nothing to embed, a path does not exist, or `out` has no known ending.
    """
    if out.suffix not in FORMATS:
        raise UsageError(f"--out takes a file that ends in {' or '.join(FORMATS)}, not {out.name!r}.")
    queries = [Query.text(text) for text in texts]
    for path in paths:
        files = [path]
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        for file in files:
            try:
                queries.append(Query.image_file(file))
            except OSError as error:
                raise UsageError(f"{file} cannot be read: {error.strerror}.") from error
    if not queries:
        raise UsageError("Nothing to embed: give --text, or --images with image files or folders of them.")
    return queries


def run_id_of(out: Path) -> str:
    """The same for the same output file, so that budget and unanswered requests survive an interruption."""
    return "embed-" + hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:16]


def write_embeddings(
    out: Path, queries: Sequence[Query], vectors: NDArray[np.float32], have: NDArray[np.bool_]
) -> None:
    """Write `.npy` (rows as given, NaN where one is missing) or `.jsonl` (kind, name, embedding).

    Raises:
        ClientError: the file cannot be written. What was bought is in the cache.
    """
    try:
        with out.open("wb") as file:
            if out.suffix == ".npy":
                np.save(file, vectors)
                return
            for query, vector, known in zip(queries, vectors, have, strict=True):
                if known:
                    row = {"kind": query.kind, "name": query.name, "embedding": vector.tolist()}
                    file.write(json.dumps(row).encode() + b"\n")
    except OSError as error:
        raise ClientError(
            f"{out} cannot be written: {error.strerror}. What was bought is in the cache."
        ) from error
