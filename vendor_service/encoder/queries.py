"""Queries: as they arrive, when nothing about them has been checked; as the model takes them; their rows."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from shared.embeddings import Kind

Vectors = NDArray[np.float32]


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


@dataclass(frozen=True)
class PreparedText:
    """A text and its tokens, shape (context_length,); or its row, where it was encoded before."""

    text: str
    tokens: torch.Tensor | None = None
    row: Vectors | None = None


# The pixels of an image as `Preprocessing.resize` leaves them, or a text.
Prepared = torch.Tensor | PreparedText


@dataclass(frozen=True)
class Encoded:
    """Rows of shape (queries, dimensions); the seconds that they waited, and that their batches ran."""

    rows: Vectors
    waited: float
    ran: float
