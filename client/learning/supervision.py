"""The knowledge of a run: its images' labels, and the teacher's embeddings of them and of texts."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

# What a loss compares with, a row for each image: a tensor, or a tuple of tensors side by side.
Rows = Any

# Images of which something is computed at once, so that memory does not grow with their number.
ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class Supervision:
    """The labels and embeddings that a method makes its targets of.

    Attributes:
        labels: class of each image, shape (n,), int64; negative of an unlabelled image.
        text_head: the teacher's unit class texts, shape (classes, d).
        images: the teacher's unit image embeddings, shape (n, d); rows that were not bought mean nothing.
        bought: which rows of `images` are learnt from, shape (n,), bool.
        image_weight: the weight of an image's embedding beside its text's (the recipe's).
        styled_texts: the teacher's unit embeddings of each class in each style, shape (classes, styles, d);
            `None` for a method that asks for none.
    """

    labels: Tensor
    text_head: Tensor
    images: Tensor
    bought: Tensor
    image_weight: float
    styled_texts: Tensor | None = None

    def of(self, rows: slice) -> "Supervision":
        """The same of some of the images."""
        return replace(self, labels=self.labels[rows], images=self.images[rows], bought=self.bought[rows])

    @property
    def labelled(self) -> Tensor:
        """Which images have a label, shape (n,), bool."""
        return self.labels >= 0

    @property
    def judged_by(self) -> Tensor:
        """The positions of the labelled images that were bought: they tell how right the teacher is."""
        return torch.nonzero(self.bought & self.labelled).flatten()

    @property
    def texts(self) -> Tensor:
        """The class text of each image, shape (n, d); zeros for an unlabelled one."""
        return self.text_head[self.labels] * self.labelled.unsqueeze(1)

    @property
    def image_weights(self) -> Tensor:
        """The weight of each image's embedding, (n, 1): 1 without a label, 0 where it was not bought."""
        weights = torch.full(self.labels.shape, self.image_weight, dtype=self.images.dtype)
        return (weights.masked_fill(~self.labelled, 1.0) * self.bought).unsqueeze(1)


def each_of(rows: Rows, change: Callable[[Tensor], Tensor]) -> Rows:
    """The same of each tensor."""
    return change(rows) if isinstance(rows, Tensor) else tuple(map(change, rows))
