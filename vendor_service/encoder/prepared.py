"""The inputs of the model: images and texts after preparation."""

from dataclasses import dataclass

import torch

from vendor_service.encoder.queues import Vectors


@dataclass(frozen=True)
class PreparedText:
    """A text and its tokens, shape (context_length,); or its row, where it was encoded before."""

    text: str
    tokens: torch.Tensor | None = None
    row: Vectors | None = None


# The pixels of an image as `Preprocessing.resize` leaves them, or a text.
Prepared = torch.Tensor | PreparedText
