"""Which of a teacher's answers to learn from, told by the labels: it may not know some of the classes."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from client.learning.losses import cosine_logits
from client.learning.methods import ROWS_AT_ONCE, Supervision, class_directions

# From a teacher that names so many labels right, in the mean over domains, distilling is likely to help.
TRUSTED = 0.8
# A teacher that recognises fewer, by the names that it is asked by in the end, teaches nothing, if there are
# so many labelled images a class: with these, labels alone were measured to be better (docs/experiments.md).
# With fewer a weak teacher may still know more than they tell.
LEARNT_FROM, ENOUGH_LABELS = 0.7, 3
# A class of whose labelled images the teacher recognises so many is learnt from as the teacher has it; of one
# that is trusted, so many are enough.
_RECOGNISED, _BY_TRUSTED = 0.7, 0.4
# Of the labelled images nearest to a class text, so many must be of the class for unlabelled ones to count.
_PRECISE = 0.5


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
    for rows, own in _chunks(positions, labels):
        cosines = known.images[rows] @ known.text_head.T
        mine = cosines.gather(1, own.unsqueeze(1)).squeeze(1)
        others = (cosines.sum(1) - mine) / max(1, cosines.shape[1] - 1)
        right.append(cosines.argmax(1) == own)
        gaps.append(mine - others)
    return Agreement(positions, torch.cat(right), torch.cat(gaps))


def doubtful_classes(known: Supervision, agreed: Agreement, *, trusted: bool) -> Tensor:
    """Of which classes the teacher recognises too few labelled images, shape (classes,), bool.

    These are fewer than 7 in 10; or fewer than 4 in 10 if the teacher is `trusted`.
    """
    return _share_of_class(known, agreed, agreed.right) < (_BY_TRUSTED if trusted else _RECOGNISED)


def named_by_images(known: Supervision, *, trusted: bool) -> tuple[Supervision, Tensor]:
    """What is known with another name for classes whose images the teacher knows, but not their text.

    The name is the mean embedding of the class's labelled images that were bought, moved by what separates
    the mean of all class texts from the mean of all classes' images (the modality gap: Liang et al., NeurIPS
    2022), since it is compared beside texts. A doubtful class gets it if 7 in 10 of its images are
    recognised by it, where the mean that an image is compared with is that of the class's other images. Where
    a method compares classes with texts in several styles, all classes keep their texts.

    Returns:
        what is known with these names in its `text_head`, and which classes they are, shape (classes,), bool.
    """
    agreed = agreement(known)
    doubtful = doubtful_classes(known, agreed, trusted=trusted)
    styles = 0 if known.styled_texts is None else known.styled_texts.shape[1]
    if styles or not doubtful.any():
        return known, torch.zeros_like(doubtful)
    texts, labels = known.text_head, known.labels[agreed.positions]
    sums, counts = torch.zeros_like(texts), torch.bincount(labels, minlength=len(texts))
    for rows, own in _chunks(agreed.positions, labels):
        sums.index_add_(0, own, known.images[rows])
    means = functional.normalize(sums, dim=1)
    gap = texts.mean(0) - means[counts > 0].mean(0)
    named = torch.where(doubtful.unsqueeze(1), functional.normalize(means + gap, dim=1), texts)
    right = [torch.zeros(0, dtype=torch.bool)]
    for rows, own in _chunks(agreed.positions, labels):
        images = known.images[rows]
        others = functional.normalize(functional.normalize(sums[own] - images, dim=1) + gap, dim=1)
        compared = torch.where(doubtful[own].unsqueeze(1), others, texts[own])
        cosines = (images @ named.T).scatter(1, own.unsqueeze(1), (images * compared).sum(1, keepdim=True))
        right.append(cosines.argmax(1) == own)
    recognised = _share_of_class(known, agreed, torch.cat(right)) >= _RECOGNISED
    chosen = doubtful & recognised & (counts > 1)
    return replace(known, text_head=torch.where(chosen.unsqueeze(1), named, texts)), chosen


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
    fits = (nearest == labels) | ~doubtful_classes(known, agreed, trusted=trusted)[labels]
    return replace(known, bought=known.bought & torch.where(known.labelled, fits, precise[nearest]))


def labels_alone(known: Supervision) -> Supervision:
    """What is known without the teacher: no embedding, and `class_directions` in place of its texts."""
    directions = class_directions(*known.text_head.shape)
    return replace(known, text_head=directions.to(known.text_head), bought=torch.zeros_like(known.bought))


def pseudo_labelled(known: Supervision, *, temperature: float, confidence: float) -> Supervision:
    """What is known, with the teacher's answer as the label of each unlabelled image that it is sure of.

    Pseudo-labels, as Lee (ICML workshops 2013) calls them; that only sure answers count is from FixMatch
    (Sohn et al., NeurIPS 2020, section 2.2).

    Args:
        known: what is known.
        temperature: divides the scores of the classes, so that confidence fits accuracy (temperature.py).
        confidence: the least probability of an answer that counts; 0 leaves everything as it is.
    """
    if not confidence:
        return known
    labels = known.labels.clone()
    for rows in torch.split(torch.nonzero(known.bought & ~known.labelled).flatten(), ROWS_AT_ONCE):
        answers = (cosine_logits(known.images[rows], known.text_head) / temperature).softmax(1).max(1)
        labels[rows] = torch.where(answers.values >= confidence, answers.indices, labels[rows])
    return replace(known, labels=labels)


def _share_of_class(known: Supervision, agreed: Agreement, which: Tensor) -> Tensor:
    """The share of each class's labelled images that are `which`, shape (classes,); 1 of a class without."""
    classes, labels = len(known.text_head), known.labels[agreed.positions]
    images = torch.bincount(labels, minlength=classes)
    share = torch.bincount(labels[which], minlength=classes) / images.clamp(min=1)
    return share.masked_fill(images == 0, 1.0)


def _chunks(positions: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(torch.split(positions, ROWS_AT_ONCE), torch.split(labels, ROWS_AT_ONCE), strict=True)


def _nearest_class(known: Supervision) -> Tensor:
    """The class text that each image is nearest to, shape (n,); without meaning where it was not bought."""
    parts = [
        (known.images[start : start + ROWS_AT_ONCE].nan_to_num() @ known.text_head.T).argmax(1)
        for start in range(0, len(known.images), ROWS_AT_ONCE)
    ]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.long)
