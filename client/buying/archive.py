"""Embeddings in one safetensors file, to carry from one cache to another or to read with other tools."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from client.buying.cache import EmbeddingCache, Stored
from client.errors import CacheError, UsageError
from shared.embeddings import Kind
from shared.encoding import WIRE_DTYPE

_FORMAT = "tuition-embeddings-1"
_KINDS: tuple[Kind, ...] = ("text", "image")


def export_embeddings(
    cache: EmbeddingCache, out: Path, *, fingerprint: str | None = None, half: bool = False
) -> int:
    """Write the intact embeddings of one model to a file; returns how many.

    The file holds `embeddings` (n, dimensions), `digests` (n, 32; SHA-256 of the bytes that were embedded),
    `kinds` (n,; 0 text, 1 image) and `checksums` (n,), and the model's fingerprint in its metadata.

    Args:
        cache: where they are.
        out: the file, replaced whole or not at all.
        fingerprint: of the model; may be left out where the cache knows one model only.
        half: round to float16, which halves the file; such a file cannot be imported again.

    Raises:
        UsageError: there is no such model, or several and none is named.
        CacheError: the cache cannot be read, or the file not written.
    """
    chosen = _choose(cache, fingerprint)
    entries = list(cache.stored(chosen))
    vectors = np.frombuffer(b"".join(e.vector for e in entries), dtype=WIRE_DTYPE).reshape(len(entries), -1)
    tensors = {
        "embeddings": vectors.astype(np.float16) if half else vectors.astype(np.float32),
        "digests": np.frombuffer(b"".join(e.digest for e in entries), dtype=np.uint8).reshape(-1, 32),
        "kinds": np.array([_KINDS.index(e.kind) for e in entries], dtype=np.uint8),
        "checksums": np.array([e.checksum for e in entries], dtype=np.uint32),
    }
    part = out.with_name(f"{out.name}.part")
    try:
        save_file(tensors, part, metadata={"format": _FORMAT, "fingerprint": chosen})
        part.replace(out)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise CacheError(f"{out} cannot be written: {error}.") from error
    return len(entries)


def import_embeddings(cache: EmbeddingCache, file: Path) -> tuple[int, int]:
    """Add the embeddings of an exported file that the cache lacks; returns how many, and of how many.

    Raises:
        UsageError: it is no such file, is damaged, or holds rounded embeddings.
        CacheError: the cache cannot be written.
    """
    try:
        with safe_open(file, framework="np") as archive:
            metadata = archive.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise UsageError(f"{file} was not written by `client cache export`.")
            tensors = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{file} cannot be read: {error}.") from error
    if tensors["embeddings"].dtype != np.float32:
        raise UsageError(f"{file} holds rounded embeddings; the cache keeps exact ones only.")
    entries = list(_entries(tensors))
    if [entry.checksum for entry in entries] != tensors["checksums"].tolist():
        raise UsageError(f"{file} is damaged: checksums do not match. Nothing was imported.")
    return cache.add(metadata["fingerprint"], entries), len(entries)


def _entries(tensors: dict[str, np.ndarray]) -> Iterator[Stored]:
    rows = tensors["embeddings"].astype(WIRE_DTYPE)
    for kind, digest, row in zip(tensors["kinds"], tensors["digests"], rows, strict=True):
        yield Stored(_KINDS[kind], digest.tobytes(), row.tobytes())


def _choose(cache: EmbeddingCache, fingerprint: str | None) -> str:
    known = sorted({holding.fingerprint for holding in cache.holdings()})
    if fingerprint is None and len(known) == 1:
        return known[0]
    if fingerprint is None or fingerprint not in known:
        names = ", ".join(known) or "none, it is empty"
        raise UsageError(f"Name a model with --model-fingerprint. The cache has: {names}.")
    return fingerprint
