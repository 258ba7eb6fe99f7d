"""Which of a teacher's answers to learn from, told by the labels: it may not know some of the classes."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from client.learning.methods import Supervision

# From a teacher that names so many labels right, in the mean over domains, distilling is likely to help.
TRUSTED = 0.8
# A class of whose labelled images the teacher recognises so many is learnt from as the teacher has it.
_RECOGNISED = 0.7
# Of the labelled images nearest to a class text, so many must be of the class for unlabelled ones to count.
_PRECISE = 0.5
_AT_ONCE = 65_536


@dataclass(frozen=True)
class Agreement:
    """What the teacher's images and texts say of the labelled images that were bought.

    Attributes:
        positions: these images, shape (n,).
        right: whether the nearest class text is that of the image's class, shape (n,), bool.
        gaps: how much nearer (cosine) an image is to its own class text than to the others' mean, shape (n,).
    """

    positions: Tensor
    right: Tensor
    gaps: Tensor


def agreement(known: Supervision) -> Agreement:
    """How far the teacher agrees with the labels."""
    positions = torch.nonzero(known.bought & known.labelled).flatten()
    labels = known.labels[positions]
    right, gaps = [torch.zeros(0, dtype=torch.bool)], [torch.zeros(0)]
    for start in range(0, len(positions), _AT_ONCE):
        chunk, own = positions[start : start + _AT_ONCE], labels[start : start + _AT_ONCE]
        cosines = known.images[chunk] @ known.text_head.T
        mine = cosines.gather(1, own.unsqueeze(1)).squeeze(1)
        others = (cosines.sum(1) - mine) / max(1, cosines.shape[1] - 1)
        right.append(cosines.argmax(1) == own)
        gaps.append(mine - others)
    return Agreement(positions, torch.cat(right), torch.cat(gaps))


def doubtful_classes(known: Supervision, agreed: Agreement) -> Tensor:
    """Of which classes the teacher recognises fewer than 7 in 10 labelled images, shape (classes,), bool."""
    classes, labels = len(known.text_head), known.labels[agreed.positions]
    images = torch.bincount(labels, minlength=classes)
    recognised = torch.bincount(labels[agreed.right], minlength=classes)
    return recognised < _RECOGNISED * images


def weighed(known: Supervision, *, trusted: bool) -> Supervision:
    """What is known without the answers that the labels speak against.

    The embedding of a labelled image of a doubtful class, or of a view of one, counts where the nearest class
    text is that of its class; elsewhere the label stands alone, as for an image that was not bought. In
    other classes all embeddings count: those that the teacher gets wrong there say what an image resembles.
    Unless the teacher is `trusted`, the embedding of an unlabelled image counts where at least half of the
    labelled images that are nearest to the same class text are of that class.
    """
    nearest = _nearest_class(known)
    agreed = agreement(known)
    classes = len(known.text_head)
    named = torch.bincount(nearest[agreed.positions], minlength=classes)
    of_class = torch.bincount(nearest[agreed.positions[agreed.right]], minlength=classes)
    precise = (of_class >= _PRECISE * named.clamp(min=1)) | trusted
    labels = known.labels.clamp(min=0)
    fits = (nearest == labels) | ~doubtful_classes(known, agreed)[labels]
    return replace(known, bought=known.bought & torch.where(known.labelled, fits, precise[nearest]))


def _nearest_class(known: Supervision) -> Tensor:
    """The class text that each image is nearest to, shape (n,); without meaning where it was not bought."""
    parts = [
        (known.images[start : start + _AT_ONCE].nan_to_num() @ known.text_head.T).argmax(1)
        for start in range(0, len(known.images), _AT_ONCE)
    ]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.long)
