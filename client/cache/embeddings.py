"""The embeddings of a cache: found, compared, added, checked, deleted."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.cache.origins import UNKNOWN, difference
from client.cache.tables import CHUNK, EmbeddingRow, StoredEmbedding, Tables
from client.errors import CacheError, EmbeddingsDiffer
from client.vendors.query import Query
from shared.embeddings import Kind
from shared.encoding import Vector

_PROGRESS_EVERY = 10_000


@dataclass(frozen=True)
class CacheContents:
    """How much the cache holds of one model and kind; `vector_bytes` counts the vectors alone."""

    fingerprint: str
    kind: Kind
    embeddings: int
    vector_bytes: int


class Embeddings:
    """The embeddings in one file. Thread-safe; shared by processes.

    Attributes:
        path: the file.
        dtype: of the stored vectors.
    """

    def __init__(self, path: Path, tables: Tables, on_damage: Callable[[str], None]) -> None:
        self.path = path
        self.dtype = np.dtype(tables.dtype)
        self._file = tables
        self._on_damage = on_damage
        self._damaged: set[bytes] = set()

    def lookup(self, fingerprint: str, queries: Sequence[Query]) -> dict[Query, Vector]:
        """The embeddings that the cache has, float32 of shape (dimensions,).

        They are bit for bit what was sold, or in a cache of float16 the nearest that it holds. An entry whose
        checksum does not match is left out.
        """
        return {query: self._vector(row.entry) for query, row in self._intact(fingerprint, queries)}

    def rows(
        self, fingerprint: str, queries: Sequence[Query], dimensions: int
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Embeddings as a matrix (n, dimensions), and which rows the cache has (n,); the others are NaN.

        Raises:
            CacheError: what it has is of other dimensions.
        """
        matrix = np.full((len(queries), dimensions), np.nan, dtype=np.float32)
        have = np.zeros(len(queries), dtype=np.bool_)
        places: dict[Query, list[int]] = {}
        for row, query in enumerate(queries):
            places.setdefault(query, []).append(row)
        for query, found in self._intact(fingerprint, places):
            vector = np.frombuffer(found.entry.vector, dtype=self.dtype)
            if len(vector) != dimensions:
                raise CacheError(
                    f"The cache {self.path} has embeddings of {len(vector)} dimensions under {fingerprint}, "
                    f"and the vendor says that this model has {dimensions}. Name another --cache for it."
                )
            for row in places[query]:
                matrix[row] = vector
                have[row] = True
        return matrix, have

    def known(self, fingerprint: str, queries: Collection[Query]) -> set[Query]:
        """Which of the queries the cache can answer; one vector is in memory at a time."""
        return {query for query, _ in self._intact(fingerprint, queries)}

    def origins(self, fingerprint: str, queries: Collection[Query]) -> dict[Query, tuple[str, int]]:
        """The origin and the pool of each query that the cache can answer.

        Origins that were found to agree are in one pool.
        """
        found = {query: row.origin for query, row in self._intact(fingerprint, queries)}
        # Read last: another run may have added one meanwhile, or deleted all.
        named = {id_: (name, pool) for id_, name, pool in self._file.origins(fingerprint)}
        return {query: named.get(origin, (UNKNOWN, 0)) for query, origin in found.items()}

    def pool(self, fingerprint: str, origin: str) -> int | None:
        """The pool of an origin of a model; `None` where nothing of it is known."""
        return next((pool for _, name, pool in self._file.origins(fingerprint) if name == origin), None)

    def fingerprints(self) -> list[str]:
        """The models that it knows."""
        return self._file.fingerprints()

    def holdings(self) -> list[CacheContents]:
        """The number and size of embeddings, by model and kind."""
        return [CacheContents(*row) for row in self._file.holdings()]

    def stored(self, fingerprint: str) -> Iterator[StoredEmbedding]:
        """Every intact embedding of a model, in the order in which they were bought."""
        model = self._file.model(fingerprint)
        return (row.entry for row in self._all(model) if row.is_intact) if model else iter(())

    def add(self, fingerprint: str, entries: Iterable[StoredEmbedding], *, origin: str = UNKNOWN) -> int:
        """Store embeddings that were bought elsewhere, all or none; returns how many of them were new.

        What is there already stays: it was paid for here.

        Raises:
            EmbeddingsDiffer: one is of another size than what the cache has of the model, or differs from it.
        """
        pieces, added = iter(entries), 0
        with self._file.transaction():
            model = self._file.add_model(fingerprint)
            number = self._file.origin(model, origin)
            while piece := list(islice(pieces, CHUNK)):
                added += self._add_some(model, number, piece)
        return added

    def _add_some(self, model: int, origin: int, piece: Sequence[StoredEmbedding]) -> int:
        """Store those of some embeddings that are not there; how many."""
        length = self._file.vector_bytes(model) or len(piece[0].vector)
        new: dict[Query, StoredEmbedding] = {}
        for entry in piece:
            if len(entry.vector) != length:
                sizes = (size // self.dtype.itemsize for size in (len(entry.vector), length))
                raise EmbeddingsDiffer("{} dimensions, not {}".format(*sizes))
            name = entry.digest.hex()
            query = Query(entry.kind, name, name, bytes)
            if query in new:
                self._require_equal({query: self._vector(new[query])}, {query: self._vector(entry)}, 1.0)
            else:
                new[query] = entry
        known = self._held(model, new)
        self._compare(known, {query: self._vector(entry) for query, entry in new.items()}, 1.0)
        missing = [entry for query, entry in new.items() if query not in known]
        return self._file.insert(model, missing, origin)

    def verify(self, on_checked: Callable[[int], None] = lambda _: None) -> int:
        """Read every embedding; returns how many are damaged.

        Args:
            on_checked: called now and then with the number of embeddings read.

        Raises:
            CacheError: the file itself is damaged.
        """
        problem = self._file.problem()
        if problem is not None:
            raise CacheError(f"The cache {self.path} is damaged: {problem}. Export what can be read of it.")
        damaged = 0
        for checked, row in enumerate(self._all(None), start=1):
            damaged += not row.is_intact
            if checked % _PROGRESS_EVERY == 0:
                on_checked(checked)
        return damaged

    def prune(self, fingerprint: str | None) -> int:
        """Delete the embeddings of a model or, with `None`, the damaged ones of all; receipts stay.

        Returns:
            How many were deleted; their room is given back to the disk.
        """
        if fingerprint is None:
            # By checksum, too: what is bought meanwhile in the place of something damaged stays.
            doomed = [(row.id, row.checksum) for row in self._all(None) if not row.is_intact]
        with self._file.transaction():
            if fingerprint is None:
                deleted = self._file.delete_rows(doomed)
            else:
                deleted = self._file.delete_model(fingerprint)
        self._file.compact()
        return deleted

    def forget(self, images: Collection[str]) -> int:
        """Delete the embeddings of images, of all models, by the SHA-256 (hex) of their bytes; receipts stay.

        What is asked about again is then paid again. Nothing of them is left in the file.

        Returns:
            How many embeddings were deleted.

        Raises:
            CacheError: somebody reads the file for so long that something is left.
        """
        deleted = 0
        pieces = iter(images)
        while piece := list(islice(pieces, CHUNK)):  # others may buy in between
            with self._file.transaction():
                deleted += self._file.delete_images(map(bytes.fromhex, piece))
        if (
            images and not self._file.compact()
        ):  # also where they were deleted before, and this was not reached
            raise CacheError(
                f"What was deleted from the cache {self.path} is still in its files, because another process "
                "is reading it. Wait for that one, or stop it, and give the same command again."
            )
        return deleted

    def _compare(
        self, known: Mapping[Query, EmbeddingRow], vectors: Mapping[Query, Vector], tolerance: float
    ) -> None:
        """Compare embeddings with what is stored of the same queries; raises as `_require_equal`."""
        before = {query: self._vector(row.entry) for query, row in known.items()}
        self._require_equal(before, vectors, tolerance)

    def _require_equal(
        self, before: Mapping[Query, Vector], now: Mapping[Query, Vector], tolerance: float
    ) -> None:
        """Compare embeddings of the same queries.

        Raises:
            EmbeddingsDiffer: they differ.
        """
        found = difference(before, now, tolerance=tolerance, itemsize=self.dtype.itemsize)
        if found is not None:
            raise EmbeddingsDiffer(found)

    def _vector(self, entry: StoredEmbedding) -> Vector:
        return np.frombuffer(entry.vector, dtype=self.dtype).astype(np.float32)

    def _held(self, model: int, queries: Iterable[Query]) -> dict[Query, EmbeddingRow]:
        """The intact rows of some queries."""
        return {
            wanted[row.entry.digest]: row
            for kind, wanted in _by_kind(queries)
            for row in self._file.select(model, kind, wanted)
            if row.is_intact
        }

    def _intact(self, fingerprint: str, queries: Collection[Query]) -> Iterator[tuple[Query, EmbeddingRow]]:
        """The entries whose checksum matches; reports damaged ones."""
        damaged: set[bytes] = set()
        model = self._file.model(fingerprint)
        for kind, wanted in _by_kind(queries) if model else ():
            for row in self._file.select(model or 0, kind, wanted):
                if row.is_intact:
                    yield wanted[row.entry.digest], row
                else:
                    damaged.add(row.entry.digest)
        if new := damaged - self._damaged:
            self._damaged |= new
            self._on_damage(f"Damaged entries in the cache {self.path}, counted as missing: {len(new)}.")

    def _all(self, model: int | None) -> Iterator[EmbeddingRow]:
        """Every entry, or those of one model."""
        last = 0
        while rows := self._file.after(last, model):
            yield from rows
            last = rows[-1].id


def _by_kind(queries: Iterable[Query]) -> Iterator[tuple[Kind, dict[bytes, Query]]]:
    """The queries of each kind by their digests, at most `CHUNK` at a time."""
    kinds: dict[Kind, dict[bytes, Query]] = {}
    for query in queries:
        kinds.setdefault(query.kind, {})[bytes.fromhex(query.digest)] = query
    for kind, wanted in kinds.items():
        digests = list(wanted)
        for start in range(0, len(digests), CHUNK):
            yield kind, {digest: wanted[digest] for digest in digests[start : start + CHUNK]}
