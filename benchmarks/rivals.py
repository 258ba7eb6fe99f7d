"""Rivals that no package offers, by the interface of docs/extending.md; `enrolled` lets rows name them."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, normalize, smooth_l1_loss

from client import Method, Supervision
from client.contrib.fixmatch import FIXMATCH_LABEL_ONLY, on_directions
from client.learning.methods import METHODS, cosine_logits, register_method
from client.learning.methods.vl2v import cosine_loss, image_and_text

SURE = 0.9  # from here on an answer about an image without a label stands as one, as in the default recipe
SHARPNESS, CACHE = 5.5, 1.0  # Tip-Adapter's beta and alpha, as in its paper
RIDGE = 1.0  # of the probe, in units of one image
CONTRAST = 0.1  # how much InfoNCE counts beside the targets
WARMTH = 2.0  # the temperature of the divergence between standardised scores
NEIGHBOURS, KEPT, ROUNDS = 5, 0.3, 10  # of ZLaP's paper: k, what is kept of the start, and steps of diffusion
RELATIONS = 2.0  # how much relations count beside the targets: less than in RKD's paper, where they are alone


def propagated(known: Supervision) -> Tensor:
    """Targets of VL2V-ADiP with labels that spread over the teacher's space to all images that were bought.

    ZLaP (Kalantidis, Tolias et al., CVPR 2024): an image without a label gets the class that most reaches it
    along its nearest neighbours, from the labels and from the class texts.
    """
    bought = torch.nonzero(known.bought).flatten()
    images, labels = known.images[bought], known.labels[bought]
    near = (images @ images.T).fill_diagonal_(-1).topk(min(NEIGHBOURS, len(images) - 1))
    start = cosine_logits(images, known.text_head).div(5).softmax(dim=1)
    has_label = labels >= 0
    start[has_label] = torch.eye(len(known.text_head))[labels[has_label]]
    weights, shares = near.values.clamp(min=0) ** 3, start
    weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-6)
    for _ in range(ROUNDS):
        shares = KEPT * start + (1 - KEPT) * (weights.unsqueeze(2) * shares[near.indices]).sum(dim=1)
        shares[has_label] = start[has_label]
    spread = known.labels.clone()
    spread[bought] = shares.argmax(dim=1)
    return image_and_text(replace(known, labels=spread))


def by_probe(known: Supervision) -> Tensor:
    """Targets of VL2V-ADiP with the sure answers of a linear probe on the bought embeddings as labels.

    It is ridge regression on one-hot labels, ten times whose answers count as logits.
    """
    positions = known.judged_by
    images, classes = known.images[positions], len(known.text_head)
    if not len(positions):
        return image_and_text(known)
    wanted = torch.eye(classes)[known.labels[positions]]
    gram = images.T @ images + RIDGE * torch.eye(images.shape[1])
    return _labelled_by(known, 10 * known.images.nan_to_num() @ torch.linalg.solve(gram, images.T @ wanted))


def by_cache(known: Supervision) -> Tensor:
    """Targets of VL2V-ADiP with the sure answers of Tip-Adapter (Zhang et al., ECCV 2022) as labels.

    Labelled images that were bought are its cache: an image is scored by its texts and by the labels near it.
    """
    images, positions = known.images.nan_to_num(), known.judged_by
    scores = cosine_logits(images, known.text_head)
    if len(positions):
        near = torch.exp(-SHARPNESS * (1 - images @ images[positions].T))
        counts = torch.bincount(known.labels[positions], minlength=len(known.text_head)).clamp(min=1)
        votes = near @ torch.eye(len(known.text_head))[known.labels[positions]] / counts
        scores = scores + 100 * CACHE * votes
    return _labelled_by(known, scores / 5)


def _labelled_by(known: Supervision, scores: Tensor) -> Tensor:
    """The targets where sure answers, by class scores of shape (n, classes), are labels of images without."""
    sureness, answers = scores.softmax(dim=1).max(dim=1)
    stands = known.bought & ~known.labelled & (sureness >= SURE)
    return image_and_text(replace(known, labels=torch.where(stands, answers, known.labels)))


def with_contrast(outputs: Tensor, targets: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """VL2V-ADiP's loss, and InfoNCE to the teacher's images (CLIP-KD, Yang et al., CVPR 2024)."""
    mixed, images, bought = targets
    loss = cosine_loss(outputs, mixed)
    if bought.sum() < 2:
        return loss
    scores = 100 * normalize(outputs[bought], dim=1) @ images[bought].T
    own = torch.arange(len(scores), device=scores.device)
    return loss + CONTRAST * (cross_entropy(scores, own) + cross_entropy(scores.T, own)) / 2


def with_standardised_scores(outputs: Tensor, targets: tuple[Tensor, ...], texts: Tensor) -> Tensor:
    """The loss of text-only, and a divergence between class scores that have mean 0 and deviation 1.

    Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024.
    """
    of_class, images, bought = targets
    loss = cosine_loss(outputs, of_class)
    if not bought.any():
        return loss
    mine, theirs = (
        _standardised(normalize(each[bought], dim=1) @ texts[:, 0].T) / WARMTH for each in (outputs, images)
    )
    apart = kl_div(mine.log_softmax(1), theirs.log_softmax(1), reduction="batchmean", log_target=True)
    return loss + WARMTH**2 * apart


def _standardised(scores: Tensor) -> Tensor:
    return (scores - scores.mean(1, keepdim=True)) / scores.std(1, keepdim=True).clamp(min=1e-6)


def with_relations(outputs: Tensor, targets: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """VL2V-ADiP's loss, and the teacher's distances between images (RKD, Park et al., CVPR 2019)."""
    mixed, images, bought = targets
    unit = normalize(outputs, dim=1)
    mine, theirs = (torch.pdist(each[bought]) for each in (unit, images))
    apart = smooth_l1_loss(mine / (mine.mean() + 1e-6), theirs / (theirs.mean() + 1e-6))
    return cosine_loss(outputs, mixed) + RELATIONS * apart


def _images_beside(known: Supervision) -> tuple[Tensor, Tensor, Tensor]:
    return image_and_text(known), known.images.nan_to_num(), known.bought


_ADIP = METHODS["vl2v-adip"]
RIVALS = (
    replace(
        FIXMATCH_LABEL_ONLY,
        name="pseudo-labels-label-only",
        summary="label-only, and its own sure answers as labels (ICML-W 2013); buys nothing",
        views=(None,),
        loss=lambda outputs, targets, texts: on_directions(outputs.unsqueeze(0), targets, texts),
        average=0.0,
    ),
    replace(
        _ADIP, name="zlap", summary="as vl2v-adip, labels spread in the teacher's space", targets=propagated
    ),
    replace(
        _ADIP,
        name="rkd",
        summary="as vl2v-adip, and the teacher's distances between images",
        targets=_images_beside,
        loss=with_relations,
    ),
    replace(
        _ADIP,
        name="info-nce",
        summary="as vl2v-adip, and each image nearest to its own embedding in the batch",
        targets=_images_beside,
        loss=with_contrast,
    ),
    replace(
        _ADIP,
        name="standardised-kl",
        summary="towards class texts, and the teacher's class scores standardised",
        targets=lambda known: (known.texts, known.images.nan_to_num(), known.bought),
        loss=with_standardised_scores,
        takes_texts=True,
    ),
    replace(
        _ADIP,
        name="probe",
        summary="as vl2v-adip, sure answers of a linear probe on bought embeddings as labels",
        targets=by_probe,
    ),
    replace(
        _ADIP,
        name="tip-adapter",
        summary="as vl2v-adip, Tip-Adapter's sure answers as labels",
        targets=by_cache,
    ),
)


def enrolled() -> tuple[Method, ...]:
    """The rivals, which options and rows know by their names from now on."""
    for method in RIVALS:
        register_method(method)
    return RIVALS
