"""Which of a teacher's answers to learn from, told by the labels: it may not know some of the classes."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from client.learning.methods import class_directions, cosine_logits
from client.learning.supervision import ROWS_AT_ONCE, Supervision

# From a teacher that names so many labels right, in the mean over domains, distilling is likely to help.
TRUSTED = 0.8
# A teacher that recognises fewer, by the names that it is asked by in the end, teaches nothing, if there are
# so many labelled images a class: labels alone were measured to be better (benchmarks/notebook.md).
# With fewer a weak teacher may still know more than they tell.
LEARNT_FROM, ENOUGH_LABELS = 0.7, 3
# A class of whose labelled images the teacher recognises so many is learnt from as the teacher has it; of one
# that is trusted, so many are enough.
_RECOGNISED, _BY_TRUSTED = 0.7, 0.4
# Of the labelled images nearest to a class text, so many must be of the class for unlabelled ones to count.
_PRECISE = 0.5


@dataclass(frozen=True)
class Agreement:
    """The answers of the teacher's images and texts about the labelled images that were bought.

    Attributes:
        positions: these images, shape (n,).
        right: whether the nearest class text is that of the image's class, shape (n,), bool.
        gaps: how much nearer (cosine) an image is to its own class text than to the others' mean, shape (n,).
    """

    positions: Tensor
    right: Tensor
    gaps: Tensor


class Named(NamedTuple):
    """The knowledge of a run where some classes may be named by their images.

    Attributes:
        known: with these names in its `text_head`.
        classes: which classes they are, shape (classes,), bool.
        own: how near (cosine) each labelled image of such a class is to the name that the others of its class
            make, shape (n,); NaN for all other images.
    """

    known: Supervision
    classes: Tensor
    own: Tensor

    def cosines(self, rows: Tensor) -> Tensor:
        """How near (cosine) some labelled images come to each class, shape (rows, classes).

        They are compared as new images would be: with a name of images that does not contain them.
        """
        cosines = self.known.images[rows] @ self.known.text_head.T
        labels, own = self.known.labels[rows].unsqueeze(1), self.own[rows].unsqueeze(1)
        return cosines.scatter(1, labels, torch.where(own.isnan(), cosines.gather(1, labels), own))


def unnamed(known: Supervision) -> Named:
    """The knowledge where all classes keep their texts."""
    classes = torch.zeros(len(known.text_head), dtype=torch.bool)
    return Named(known, classes, torch.full(known.labels.shape, torch.nan, dtype=known.images.dtype))


def agreement(named: Named) -> Agreement:
    """How far the teacher agrees with the labels, by its texts or by other names for them."""
    known = named.known
    positions = known.judged_by
    labels = known.labels[positions]
    right, gaps = [torch.zeros(0, dtype=torch.bool)], [torch.zeros(0)]
    for rows, own in _chunks(positions, labels):
        cosines = named.cosines(rows)
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


def named_by_images(known: Supervision, *, trusted: bool) -> Named:
    """The knowledge with another name for classes of which the teacher knows images, but not the text.

    The name is the mean embedding of the class's labelled images that were bought, moved by what separates
    the mean of all class texts from the mean of all classes' images (the modality gap: Liang et al., NeurIPS
    2022), since it is compared beside texts. A doubtful class gets it if 7 in 10 of its images are
    recognised by it, where the mean that an image is compared with is that of the class's other images. Where
    a method compares classes with texts in several styles, all classes keep their texts.
    """
    agreed = agreement(unnamed(known))
    doubtful = doubtful_classes(known, agreed, trusted=trusted)
    styles = 0 if known.styled_texts is None else known.styled_texts.shape[1]
    if styles or not doubtful.any():
        return unnamed(known)
    texts, labels = known.text_head, known.labels[agreed.positions]
    sums, counts = torch.zeros_like(texts), torch.bincount(labels, minlength=len(texts))
    for rows, label in _chunks(agreed.positions, labels):
        sums.index_add_(0, label, known.images[rows])
    means = functional.normalize(sums, dim=1)
    gap = texts.mean(0) - means[counts > 0].mean(0)
    names = functional.normalize(means + gap, dim=1)
    own = unnamed(known).own
    for rows, label in _chunks(agreed.positions, labels):
        images = known.images[rows]
        others = functional.normalize(functional.normalize(sums[label] - images, dim=1) + gap, dim=1)
        own[rows] = (images * others).sum(1)
    right = agreement(_named(known, names, doubtful, own)).right
    recognised = _share_of_class(known, agreed, right) >= _RECOGNISED
    return _named(known, names, doubtful & recognised & (counts > 1), own)


def _named(known: Supervision, names: Tensor, classes: Tensor, own: Tensor) -> Named:
    """The knowledge with names, shape (classes, d), for some classes, and `Named.own` of each class."""
    text_head = torch.where(classes.unsqueeze(1), names, known.text_head)
    concerned = known.labelled & classes[known.labels.clamp(min=0)]
    return Named(replace(known, text_head=text_head), classes, own.masked_fill(~concerned, torch.nan))


def weighed(known: Supervision, doubtful: Tensor, *, trusted: bool) -> Supervision:
    """The knowledge without the answers that the labels speak against.

    The embedding of a labelled image of a doubtful class counts where the nearest class
    text is that of its class; elsewhere the label stands alone, as for an image that was not bought. In
    other classes all embeddings count: those that the teacher gets wrong there say what an image resembles.
    Unless the teacher is `trusted`, the embedding of an unlabelled image counts where at least half of the
    labelled images that are nearest to the same class text are of that class.
    """
    nearest = _nearest_class(known)
    agreed = agreement(unnamed(known))
    classes = len(known.text_head)
    named = torch.bincount(nearest[agreed.positions], minlength=classes)
    of_class = torch.bincount(nearest[agreed.positions[agreed.right]], minlength=classes)
    precise = (of_class >= _PRECISE * named.clamp(min=1)) | trusted
    labels = known.labels.clamp(min=0)
    fits = (nearest == labels) | ~doubtful[labels]
    return replace(known, bought=known.bought & torch.where(known.labelled, fits, precise[nearest]))


def labels_alone(known: Supervision) -> Supervision:
    """The knowledge without the teacher: no embedding, and `class_directions` in place of its texts."""
    directions = class_directions(*known.text_head.shape)
    return replace(known, text_head=directions.to(known.text_head), bought=torch.zeros_like(known.bought))


def pseudo_labelled(known: Supervision, *, temperature: float, confidence: float) -> Supervision:
    """The knowledge with the teacher's answer as the label of each unlabelled image that it is sure of.

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
        sure = answers.values >= confidence
        labels[rows] = torch.where(sure, answers.indices, labels[rows])
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
