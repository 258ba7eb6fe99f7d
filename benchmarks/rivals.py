"""Rivals that no package offers, by the interface of docs/extending.md; `enrolled` lets rows name them."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import normalize, smooth_l1_loss

from client import Method, Supervision
from client.contrib.fixmatch import FIXMATCH_LABEL_ONLY, on_directions
from client.learning.methods import METHODS, cosine_logits, register_method
from client.learning.methods.vl2v import cosine_loss, image_and_text

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


def with_relations(outputs: Tensor, targets: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """VL2V-ADiP's loss, and the teacher's distances between images (RKD, Park et al., CVPR 2019)."""
    mixed, images, bought = targets
    unit = normalize(outputs, dim=1)
    mine, theirs = (torch.pdist(each[bought]) for each in (unit, images))
    apart = smooth_l1_loss(mine / (mine.mean() + 1e-6), theirs / (theirs.mean() + 1e-6))
    return cosine_loss(outputs, mixed) + RELATIONS * apart


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
        targets=lambda known: (image_and_text(known), known.images.nan_to_num(), known.bought),
        loss=with_relations,
    ),
)


def enrolled() -> tuple[Method, ...]:
    """The rivals, which options and rows know by their names from now on."""
    for method in RIVALS:
        register_method(method)
    return RIVALS
