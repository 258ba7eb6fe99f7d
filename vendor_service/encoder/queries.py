"""Queries as they arrive: nothing about them has been checked yet."""

from dataclasses import dataclass
from typing import ClassVar

from shared.embeddings import Kind


@dataclass(frozen=True)
class TextQuery:
    """A text."""

    text: str
    kind: ClassVar[Kind] = "text"


@dataclass(frozen=True)
class ImageQuery:
    """An image file: its bytes, or the base64 of them."""

    file: bytes | str
    kind: ClassVar[Kind] = "image"


Query = TextQuery | ImageQuery
