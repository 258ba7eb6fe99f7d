"""Queries: one text or one image file, named by the digest of its exact bytes."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from client.errors import UsageError
from shared.embeddings import Kind


@dataclass(frozen=True, slots=True)
class Query:
    """One billed unit. Images are read when they are sent and not before.

    Attributes:
        kind: "text" or "image".
        digest: SHA-256 (hex) of the exact bytes sent; of a text, of its UTF-8.
        name: the text, or the image's path.
        read: gives the bytes.
    """

    kind: Kind
    digest: str
    name: str = field(compare=False)
    read: Callable[[], bytes] = field(compare=False, repr=False)

    @classmethod
    def text(cls, text: str) -> Self:
        """A text."""
        content = text.encode()
        return cls("text", hashlib.sha256(content).hexdigest(), text, lambda: content)

    @classmethod
    def image_file(cls, path: Path, digest: str | None = None) -> Self:
        """An image file, sent as it is; its digest is computed here unless it is known.

        Raises:
            UsageError: the file has to be read for its digest, and cannot be.
        """
        try:
            digest = digest or hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
        return cls("image", digest, str(path), path.read_bytes)

    def content(self) -> bytes:
        """The bytes, checked against the digest.

        Raises:
            OSError: the file cannot be read.
            ValueError: it has changed since its digest was taken.
        """
        content = self.read()
        if hashlib.sha256(content).hexdigest() != self.digest:
            raise ValueError("the file has changed since it was planned")
        return content

    def sendable(self, most_image_bytes: int) -> bytes:
        """The bytes, for a vendor that takes images of up to this many bytes.

        Raises:
            OSError, ValueError: as `content`, or the image is larger.
        """
        content = self.content()
        if self.kind == "image" and len(content) > most_image_bytes:
            raise ValueError(f"larger than the {most_image_bytes} bytes that the vendor takes")
        return content

    def most_in_json(self, content: bytes) -> int:
        """At least the bytes that its content takes in JSON, where a text may have every byte escaped."""
        return len(content) * 6 if self.kind == "text" else (len(content) + 2) // 3 * 4


@dataclass(frozen=True)
class Spending:
    """Queries, and what they cost in millionths of the vendor's currency unit."""

    queries: int
    cost_micros: int

    def __add__(self, other: Self) -> Self:
        return type(self)(self.queries + other.queries, self.cost_micros + other.cost_micros)

    def __sub__(self, other: Self) -> Self:
        return type(self)(self.queries - other.queries, self.cost_micros - other.cost_micros)

    def at_most(self, other: Self) -> Self:
        """The smaller of both, in queries and in cost."""
        return type(self)(min(self.queries, other.queries), min(self.cost_micros, other.cost_micros))


def counts_of(queries: Iterable[Query]) -> Counter[Kind]:
    """How much of each kind some queries are: what they are priced by."""
    return Counter(each.kind for each in queries)
