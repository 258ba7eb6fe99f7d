"""FixMatch (Sohn et al., NeurIPS 2020): what a student is sure of in a weak view labels a strong one.

The loss (eqs. 3 and 4), the threshold, the views (section 2.3), and the mean of the weights that predicts are
the paper's. The optimiser, its rate and the share of images without labels in a batch are the recipe's; the
paper has seven of these for each labelled one (`unlabelled_share=7/8`).
"""

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from torchvision.transforms import v2

from client import Method

SURE = 0.95


def weak(image: Tensor) -> Tensor:
    """Flip, and shift by up to an eighth; uint8 of shape (3, side, side), as all here."""
    side = image.shape[-1]
    shift = v2.RandomCrop(side, padding=side // 8, padding_mode="reflect")
    shifted: Tensor = shift(image.flip(2) if torch.rand(()) < 0.5 else image)
    return shifted


def strong(image: Tensor) -> Tensor:
    """The same, then two changes of RandAugment with a strength that is drawn, then Cutout."""
    changes = v2.RandAugment(num_ops=2, magnitude=int(torch.randint(1, 31, ())))
    changed, side = changes(weak(image)).clone(), image.shape[-1]
    middles, reach = torch.randint(side, (2,)).tolist(), side // 4
    rows, columns = (slice(max(0, middle - reach), middle + reach) for middle in middles)
    changed[:, rows, columns] = 127
    return cast(Tensor, changed)


def agreement(weakly: Tensor, strongly: Tensor, unlabelled: Tensor) -> Tensor:
    """The loss of images without labels, by their class scores in two views, each of shape (n, classes)."""
    sureness, guess = weakly[unlabelled].detach().softmax(dim=1).max(dim=1)
    losses = cross_entropy(strongly[unlabelled], guess, reduction="none")
    return (losses * (sureness >= SURE)).sum() / max(1, len(losses))


def on_labels(outputs: Tensor, labels: Tensor) -> Tensor:
    """FixMatch on class scores, shape (views, n, classes); labels are negative where there is none."""
    known = labels >= 0
    return cross_entropy(outputs[0][known], labels[known]) + agreement(outputs[0], outputs[-1], ~known)


def on_directions(outputs: Tensor, targets: tuple[Tensor, Tensor], texts: Tensor) -> Tensor:
    """FixMatch on embeddings, shape (views, n, d), beside the loss of `label-only`."""
    labels, directions = targets
    known, unit = labels >= 0, normalize(outputs, dim=-1)
    scores = 100 * unit @ texts[:, 0].T
    taught = -(unit[0] * directions)[known].sum(dim=1).mean()
    return taught + agreement(scores[0], scores[-1], ~known)


FIXMATCH = Method(
    "fixmatch",
    "erm, and FixMatch on images without labels (NeurIPS 2020); buys nothing",
    targets=lambda known: known.labels,
    loss=on_labels,
    teacher="nobody",
    head="linear",
    learns_unlabelled=True,
    views=(weak, strong),
    average=0.999,
)
FIXMATCH_LABEL_ONLY = replace(
    FIXMATCH,
    name="fixmatch-label-only",
    summary="label-only, and FixMatch on images without labels; buys nothing",
    targets=lambda known: (known.labels, known.texts),
    loss=on_directions,
    head="texts",
    aligns=True,
    trains=frozenset({"backbone"}),
    takes_texts=True,
)
PSEUDO_LABELS = replace(
    FIXMATCH,
    name="pseudo-labels",
    summary="erm, and its own sure answers as labels of images without (ICML-W 2013); buys nothing",
    views=(None,),
    loss=lambda outputs, labels: on_labels(outputs.unsqueeze(0), labels),
    average=0.0,
)
