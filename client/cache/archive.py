"""Embeddings in one file, safetensors or Parquet: for another cache, or for other tools."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from client.cache.cache import EmbeddingCache
from client.cache.tables import StoredEmbedding
from client.errors import CacheError, EmbeddingsDiffer, UsageError
from client.parquet import ForeignParquet, Piece, column_values, write_parquet
from client.paths import whole_file
from shared.embeddings import Kind

SUFFIXES = (".safetensors", ".parquet")
_FORMAT = "tuition-embeddings-1"
_KINDS: tuple[Kind, ...] = ("text", "image")
_PIECE = 8192
# What an imported file may claim: it is as foreign as a vendor's answer.
_MOST_DIMENSIONS = 2**14
_DIGEST_BYTES = 32
_NORM_TOLERANCE = 0.01
_SAFETENSORS = {"embeddings": (2, ("F32", "F16")), "digests": (2, ("U8",)), "kinds": (1, ("U8",))}
_SAFETENSORS |= {"checksums": (1, ("U32",))}
_PARQUET_TYPES = {"kind": "string", "digest": "binary", "checksum": "uint32"}
# Of a row of Parquet beside its vector, of a group of rows whatever their number, and of vectors at a time.
_ROW_BYTES = 256
_GROUP_BYTES = 2**16
_VECTORS_BYTES = 2**24


def export_embeddings(
    cache: EmbeddingCache, out: Path, *, fingerprint: str | None = None, half: bool = False
) -> int:
    """Write the intact embeddings of one model to a file; returns how many.

    What is bought meanwhile need not be among them.

    A safetensors file holds `embeddings` (n, dimensions), `digests` (n, 32; SHA-256 of the bytes that were
    embedded), `kinds` (n,; 0 text, 1 image) and `checksums` (n,; CRC-32 of digest and embedding). A Parquet
    file has a column each: `embedding`, `digest`, `kind` ("text", "image") and `checksum`. The model's
    fingerprint is in the metadata of both.

    Args:
        cache: where they are.
        out: the file, which ends in .safetensors or .parquet; replaced whole or not at all.
        fingerprint: of the model; may be left out where the cache knows one model only.
        half: round to float16, which halves the file; then only a cache of float16 can import it.

    Raises:
        UsageError: there is no such model, or several and none is named; or the file's ending is another,
            or pyarrow is missing.
        CacheError: the cache cannot be read, or the file not written.
    """
    if out.suffix not in SUFFIXES:
        raise UsageError(f"Name a file that ends in {' or '.join(SUFFIXES)}, not {out.name!r}.")
    chosen = _choose(cache, fingerprint)
    held = [holding for holding in cache.holdings() if holding.fingerprint == chosen]
    count = sum(holding.embeddings for holding in held)
    dimensions = held[0].vector_bytes // held[0].embeddings // cache.dtype.itemsize
    dtype = np.dtype("<f2") if half else cache.dtype
    # Another process may buy meanwhile, and what it buys comes last.
    pieces = _pieces(islice(cache.stored(chosen), count), cache.dtype, dtype, dimensions)
    metadata = {"format": _FORMAT, "fingerprint": chosen}
    counted = _Counted(pieces)
    with _replacing(out) as part:
        if out.suffix == ".safetensors":
            tensors = _gathered(iter(counted), np.empty((count, dimensions), dtype))
            save_file(tensors, part, metadata=metadata)
        else:
            with part.open("wb") as file:
                write_parquet(
                    file, counted, types=_PARQUET_TYPES, dimensions=dimensions, dtype=dtype, metadata=metadata
                )
    return counted.rows


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """A file beside another, which it replaces once it is written whole.

    Raises:
        CacheError: it cannot be written.
    """
    try:
        with whole_file(out) as part:
            yield part
    except (OSError, SafetensorError) as error:
        raise CacheError(f"{out} cannot be written: {error}.") from error


class _Counted:
    """Pieces on their way, and how many rows have passed."""

    def __init__(self, pieces: Iterator[Piece]) -> None:
        self._pieces = pieces
        self.rows = 0

    def __iter__(self) -> Iterator[Piece]:
        for piece in self._pieces:
            self.rows += len(piece.vectors)
            yield piece


def _pieces(
    entries: Iterator[StoredEmbedding], stored_as: np.dtype[Any], dtype: np.dtype[Any], dimensions: int
) -> Iterator[Piece]:
    """The embeddings of a model, some thousands at a time, with checksums of what is exported."""
    while piece := list(islice(entries, _PIECE)):
        vectors = np.frombuffer(b"".join(entry.vector for entry in piece), dtype=stored_as)
        rows = vectors.reshape(len(piece), dimensions).astype(dtype)
        stored = [
            StoredEmbedding(entry.kind, entry.digest, row.tobytes())
            for entry, row in zip(piece, rows, strict=True)
        ]
        columns: dict[str, list[Any]] = {
            "kind": [entry.kind for entry in stored],
            "digest": [entry.digest for entry in stored],
            "checksum": [entry.checksum for entry in stored],
        }
        yield Piece(columns, rows)


def _gathered(pieces: Iterator[Piece], embeddings: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """All pieces as tensors, the vectors in the room that there is for them."""
    kinds: list[int] = []
    digests: list[bytes] = []
    checksums: list[int] = []
    for columns, vectors in pieces:
        embeddings[len(kinds) : len(kinds) + len(vectors)] = vectors
        kinds += [_KINDS.index(kind) for kind in columns["kind"]]
        digests += columns["digest"]
        checksums += columns["checksum"]
    return {
        "embeddings": embeddings[: len(kinds)],
        "digests": np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 32),
        "kinds": np.array(kinds, dtype=np.uint8),
        "checksums": np.array(checksums, dtype=np.uint32),
    }


def import_embeddings(cache: EmbeddingCache, file: Path) -> tuple[int, int]:
    """Add the embeddings of an exported file that the cache lacks; returns how many, and of how many.

    The cache notes that they are of this file. They are used together with what a vendor sells once the
    vendor's answers to some of them were found to agree.

    Raises:
        UsageError: it is no such file, is damaged, differs from itself or from what the cache has, or holds
            what no vendor sells, or rounded embeddings and the cache exact ones; or pyarrow is missing.
        CacheError: the cache cannot be written.
    """
    opened = _opened_parquet if file.suffix == ".parquet" else _opened_safetensors
    try:
        with opened(file) as (metadata, pieces):
            if metadata.get("format") != _FORMAT:
                raise UsageError(f"{file} was not written by `client cache export`.")
            fingerprint = metadata.get("fingerprint", "")
            if not re.fullmatch("[ -~]{1,256}", fingerprint):
                raise UsageError(f"{file} does not say of which model it is.")
            counted = _Counted(pieces)
            with file.open("rb") as content:
                origin = f"{file.name} ({hashlib.file_digest(content, 'sha256').hexdigest()[:16]})"
            added = cache.add(fingerprint, _checked(counted, cache.dtype, file), origin=origin)
            return added, counted.rows
    except EmbeddingsDiffer as error:
        raise UsageError(
            f"{file} has other embeddings of the same queries than the cache, or than itself ({error}). "
            "Nothing was imported."
        ) from error
    except MemoryError as error:
        raise UsageError(f"{file} cannot be read: it takes more memory than there is.") from error
    except (OSError, SafetensorError, ValueError) as error:
        raise UsageError(f"{file} cannot be read: {error}.") from error


def _checked(pieces: "_Counted", dtype: np.dtype[Any], file: Path) -> Iterator[StoredEmbedding]:
    """The embeddings as a cache of this type stores them; what raises here undoes the whole import."""
    for columns, vectors in pieces:
        if vectors.dtype.itemsize < dtype.itemsize:
            raise UsageError(f"{file} holds rounded embeddings, and the cache exact ones.")
        with np.errstate(over="ignore", invalid="ignore"):
            lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
        if not (np.abs(lengths - 1) <= _NORM_TOLERANCE).all():
            raise UsageError(f"{file} holds vectors that are not of length 1. Nothing was imported.")
        stored = zip(columns["kind"], columns["digest"], columns["checksum"], vectors, strict=True)
        for kind, digest, checksum, vector in stored:
            if kind not in _KINDS or not isinstance(digest, bytes) or len(digest) != _DIGEST_BYTES:
                raise UsageError(
                    f"{file} holds something that is neither a text nor an image. Nothing was imported."
                )
            if StoredEmbedding(kind, digest, vector.tobytes()).checksum != checksum:
                raise UsageError(f"{file} is damaged: checksums do not match. Nothing was imported.")
            yield StoredEmbedding(kind, digest, vector.astype(dtype).tobytes())


_Opened = tuple[Mapping[str, str], Iterator[Piece]]


@contextmanager
def _opened_parquet(path: Path) -> Iterator[_Opened]:
    with path.open("rb") as file:
        opened = ForeignParquet(file)
        # What is not of this program is refused for that, whatever else is in it.
        yield opened.metadata, _parquet_pieces(opened, path.stat().st_size)


def _parquet_pieces(file: ForeignParquet, size: int) -> Iterator[Piece]:
    """The rows of a Parquet file that was written here, some thousands at a time.

    Raises:
        ValueError: it is damaged, has other columns, or unpacks to more than it can.
    """
    dimensions = _check_parquet(file)
    row_bytes = dimensions * 8
    if file.rows * _DIGEST_BYTES > size:
        raise ValueError(f"{file.rows} rows cannot fit in {size} bytes")
    file.check_size(file.types, group_bytes=_GROUP_BYTES, row_bytes=row_bytes + _ROW_BYTES)
    for columns in file.batches([*file.types], min(1024, max(1, _VECTORS_BYTES // row_bytes))):
        embeddings = columns.pop("embedding")
        vectors = embeddings.flatten().to_numpy().reshape(len(embeddings), dimensions)
        yield Piece({name: column_values(name, column) for name, column in columns.items()}, vectors)


def _check_parquet(file: ForeignParquet) -> int:
    """The dimensions of the vectors of a file whose columns are those that are written.

    Raises:
        ValueError: they are others.
    """
    if file.types.keys() != {*_PARQUET_TYPES, "embedding"}:
        raise ValueError(f"it has the columns {', '.join(file.types)[:200]}")
    vector = file.types["embedding"]
    floats = str(getattr(vector, "value_type", "")) in {"float", "halffloat", "double"}
    if not floats or any(str(file.types[name]) != kind for name, kind in _PARQUET_TYPES.items()):
        raise ValueError("its columns are of other types")
    dimensions = int(getattr(vector, "list_size", 0))
    if not 0 < dimensions <= _MOST_DIMENSIONS:
        raise ValueError(f"its embeddings are of {dimensions} dimensions")
    return dimensions


@contextmanager
def _opened_safetensors(path: Path) -> Iterator[_Opened]:
    with safe_open(path, framework="np") as archive:
        metadata = archive.metadata() or {}
        if metadata.get("format") == _FORMAT:
            _check_safetensors(set(archive.keys()), archive.get_slice)
        yield metadata, _safetensors_pieces(archive.get_slice)


def _check_safetensors(names: set[str], tensor: Callable[[str], Any]) -> None:
    """Refuse tensors of other shapes and types than are written.

    Raises:
        ValueError: they are.
    """
    if names != _SAFETENSORS.keys():
        raise ValueError(f"it has the tensors {', '.join(sorted(names))[:200]}")
    shapes = {name: tensor(name).get_shape() for name in names}
    for name, (axes, types) in _SAFETENSORS.items():
        if len(shapes[name]) != axes or tensor(name).get_dtype() not in types:
            raise ValueError(f"its {name} are of another shape or type")
    if len({shape[0] for shape in shapes.values()}) != 1 or shapes["digests"][1] != _DIGEST_BYTES:
        raise ValueError("its tensors do not fit each other")
    if not 0 < shapes["embeddings"][1] <= _MOST_DIMENSIONS:
        raise ValueError(f"its embeddings are of {shapes['embeddings'][1]} dimensions")


def _safetensors_pieces(tensor: Callable[[str], Any]) -> Iterator[Piece]:
    embeddings, digests, kinds, checksums = map(tensor, ("embeddings", "digests", "kinds", "checksums"))
    count = kinds.get_shape()[0]
    for start in range(0, count, _PIECE):
        rows = slice(start, min(start + _PIECE, count))
        columns = {
            "kind": [_KINDS[kind] if kind < len(_KINDS) else None for kind in kinds[rows]],
            "digest": [digest.tobytes() for digest in digests[rows]],
            "checksum": checksums[rows].tolist(),
        }
        yield Piece(columns, embeddings[rows])


def _choose(cache: EmbeddingCache, fingerprint: str | None) -> str:
    known = sorted({holding.fingerprint for holding in cache.holdings()})
    if fingerprint is None and len(known) == 1:
        return known[0]
    if fingerprint is None or fingerprint not in known:
        names = ", ".join(known) or "none, it is empty"
        raise UsageError(f"Name a model with --model-fingerprint. The cache has: {names}.")
    return fingerprint
