"""One digest of what a stage depends on: its inputs are a dataclass, and every field of it counts."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel


@dataclass(frozen=True)
class StageInputs:
    """Everything that the result of a stage depends on; a subclass names it field by field."""


@dataclass(frozen=True)
class FileContent:
    """A file that counts by its bytes, whatever its name."""

    path: Path

    def digest(self) -> bytes:
        """The SHA-256 of its bytes."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()


def contents(paths: Iterable[Path]) -> tuple[FileContent, ...]:
    """Files that count by their bytes."""
    return tuple(map(FileContent, paths))


def digest_of(inputs: StageInputs) -> str:
    """A SHA-256 (hex) of all fields, those of dataclasses inside them too.

    Raises:
        TypeError: a field holds something of which it is not known how it counts.
    """
    digest = hashlib.sha256()
    for part in _parts(inputs):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def _parts(value: object) -> Iterator[bytes | memoryview]:
    """The value as byte strings, each with what kind of thing it is, so that no two values share theirs."""
    if isinstance(value, FileContent):
        yield from (b"file", value.digest())
    elif is_dataclass(value) and not isinstance(value, type):
        yield from (b"record", type(value).__name__.encode(), str(len(fields(value))).encode())
        for field in fields(value):
            yield field.name.encode()
            yield from _parts(getattr(value, field.name))
    elif isinstance(value, BaseModel):
        yield from (b"record", type(value).__name__.encode(), str(len(type(value).model_fields)).encode())
        for name, each in value:
            yield name.encode()
            yield from _parts(each)
    elif isinstance(value, str | bool | int | float | None):
        yield repr(value).encode("utf-8", "backslashreplace")
    elif isinstance(value, bytes):
        yield from (b"bytes", value)
    elif isinstance(value, Path):
        yield from (b"path", bytes(value))
    elif isinstance(value, np.ndarray):
        yield from (b"array", str((value.dtype, value.shape)).encode())
        yield np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
    elif isinstance(value, Mapping):
        yield from _parts(sorted(value.items()))
    elif isinstance(value, Set):
        yield from _parts(sorted(value))
    elif isinstance(value, Sequence):
        yield from (b"sequence", str(len(value)).encode())
        for each in value:
            yield from _parts(each)
    else:
        raise TypeError(f"It is not known how a {type(value).__name__} counts as an input of a stage.")
