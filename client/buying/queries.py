"""What is bought: one text or one image file, named by the digest of its exact bytes."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from shared.embeddings import Kind


@dataclass(frozen=True)
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
        """An image file, whose digest is computed here unless it is known.

        Raises:
            OSError: the file has to be read for its digest, and cannot be.
        """
        return cls(
            "image", digest or hashlib.sha256(path.read_bytes()).hexdigest(), str(path), path.read_bytes
        )

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

    def cache_key(self, fingerprint: str) -> bytes:
        """SHA-256 over the model's fingerprint, the kind and the exact bytes (by their digest)."""
        return hashlib.sha256(f"{fingerprint}\0{self.kind}\0{self.digest}".encode()).digest()
