"""VL2V-ADiP and VL2V-SD (Addepalli et al., CVPR 2024), and what each part of them is worth."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from client.learning.methods.method import ALL, BACKBONE, Method
from client.learning.supervision import Supervision


def image_and_text(known: Supervision) -> Tensor:
    """The teacher as one vector an image: `m = w I + (1 - w) T_y`, and `T_y` where `I` was not bought.

    Shape (n, d), not normalised: its length is how far image and text agree.
    """
    weight = known.image_weights
    return weight * known.images.nan_to_num() + (1 - weight) * known.texts


def image_alone(known: Supervision) -> Tensor:
    """The teacher's image embeddings, shape (n, d); zeros, which teach nothing, where not bought."""
    return torch.where(known.bought.unsqueeze(1), known.images, torch.zeros(()))


def _text_alone(known: Supervision) -> Tensor:
    return known.texts


def _text_share(known: Supervision) -> Tensor:
    """The part of the target to which a local teacher's embedding of each view is added."""
    return (1 - known.image_weight) * known.texts


def cosine_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """The loss of both stages (eqs. 2 and 3), averaged over the batch.

    `-[w cos(p, I) + (1 - w) cos(p, T_y)]` with unit I and T_y is `-<p / |p|, m>` for the `m` of
    `image_and_text`.

    Args:
        outputs: P f(x), shape (n, d), any length.
        targets: m, shape (n, d).
    """
    return -(functional.normalize(outputs, dim=1) * targets).sum(dim=1).mean()


_ADIP = Method(
    "vl2v-adip",
    "align the projector, then distil into the backbone (CVPR 2024)",
    image_and_text,
    cosine_loss,
    aligns=True,
    trains=BACKBONE,
    learns_unlabelled=True,
)
_SD = Method(
    "vl2v-sd",
    "white box: an open_clip student taught by its frozen twin; buys nothing (CVPR 2024)",
    _text_share,
    cosine_loss,
    teacher="twin",
    trains=BACKBONE,
    projector="own",
)
METHODS = (
    _ADIP,
    _SD,
    replace(
        _SD,
        name="vl2v-sd-bought",
        summary="as vl2v-sd, but the vendor sells what the student's own model sees",
        targets=image_and_text,
        teacher="vendor",
        learns_unlabelled=True,
    ),
    replace(
        _ADIP,
        name="unlimited",
        summary="as vl2v-adip, the bundled teacher itself asked about every view, as the paper's code does",
        targets=_text_share,
        teacher="bundled",
        learns_unlabelled=False,
    ),
    replace(
        _ADIP,
        name="no-align",
        summary="as vl2v-adip, projector and backbone together from the start",
        aligns=False,
        trains=ALL,
    ),
    replace(
        _ADIP,
        name="image-only",
        summary="as vl2v-adip, towards the image embeddings alone (image_weight 1)",
        targets=image_alone,
        needs_teacher=True,
    ),
    replace(
        _ADIP,
        name="text-only",
        summary="as vl2v-adip, towards the class texts alone (image_weight 0); buys no image",
        targets=_text_alone,
        teacher="vendor's texts",
        learns_unlabelled=False,
    ),
    replace(
        _ADIP,
        name="label-only",
        summary="as text-only, towards directions at right angles in place of the texts; buys nothing",
        targets=_text_alone,
        teacher="nobody",
        learns_unlabelled=False,
    ),
)
