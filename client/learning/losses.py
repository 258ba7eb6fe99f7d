"""The losses, as pure functions of tensors, and the targets that they compare with."""

import torch
from torch import Tensor
from torch.nn import functional

# Cosines are multiplied by this before a softmax: CLIP's own temperature, as method.md's predict uses it.
LOGIT_SCALE = 100.0


def teacher_targets(images: Tensor, bought: Tensor, texts: Tensor, *, image_weight: float | Tensor) -> Tensor:
    """The teacher as one vector an example: `w I + (1 - w) T_y`, and `T_y` where `I` was not bought.

    Args:
        images: image embeddings I(x), shape (n, d), unit length; rows that were not bought are ignored.
        bought: which rows of `images` were bought, shape (n,), bool.
        texts: the class prompt's embedding T_y of each example, shape (n, d), unit length.
        image_weight: w, the paper's lambda; or one for each example, shape (n,).

    Returns:
        shape (n, d), not normalised: its length is how far image and text agree.
    """
    weight = (image_weight * bought.to(images.dtype)).unsqueeze(1)
    return weight * images.nan_to_num() + (1 - weight) * texts


def image_targets(images: Tensor, bought: Tensor) -> Tensor:
    """The teacher's image embeddings alone, shape (n, d); zeros, which teach nothing, where not bought."""
    return torch.where(bought.unsqueeze(1), images, torch.zeros(()))


def soft_labels(
    images: Tensor, bought: Tensor, text_head: Tensor, labels: Tensor, *, image_weight: float | Tensor
) -> Tensor:
    """Class probabilities to imitate, shape (n, classes): `w` the teacher's, `1 - w` the label's.

    The teacher's are its zero-shot answer, the softmax of 100 x cosine. The cross-entropy with this mixture
    is knowledge distillation at temperature 1 (Hinton et al., 2015). Where `I` was not bought, the label
    stands alone. `image_weight` may be one for each example, shape (n,); a negative label takes part in no
    class.
    """
    weight = (image_weight * bought.to(images.dtype)).unsqueeze(1)
    teacher = (LOGIT_SCALE * images.nan_to_num() @ text_head.T).softmax(dim=1)
    one_hot = functional.one_hot(labels.clamp(min=0), len(text_head)) * (labels >= 0).unsqueeze(1)
    return weight * teacher + (1 - weight) * one_hot


def text_relations(text_head: Tensor, labels: Tensor) -> Tensor:
    """How near an example's class text is to every class text: softmax of cosines, shape (n, classes)."""
    return (text_head @ text_head.T).softmax(dim=1)[labels]


def cosine_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """VL2V-ADiP's loss for both stages (CVPR 2024, eqs. 2 and 3), averaged over the batch.

    `-[w cos(p, I) + (1 - w) cos(p, T_y)]` with unit I and T_y is `-<p / |p|, m>` for the `m` that
    `teacher_targets` makes.

    Args:
        outputs: P f(x), shape (n, d), any length.
        targets: m, shape (n, d).
    """
    return -(functional.normalize(outputs, dim=1) * targets).sum(dim=1).mean()


def squared_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """SimKD's loss (Chen et al., CVPR 2022, eq. 3): the squared distance to the teacher's features.

    Args:
        outputs: P f(x), shape (n, d).
        targets: I(x), shape (n, d), with zeros where it was not bought: such rows do not count.
    """
    bought = targets.ne(0).any(dim=1)
    distances = (outputs - targets).square().sum(dim=1)
    return (distances * bought).sum() / bought.sum().clamp(min=1)


def language_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """RISE's loss (Huang et al., ICCV 2023): soft labels, and absolute and relative distances to the texts.

    The cross-entropy with the soft labels, plus `1 - cos(p, T_y)`, plus ten times the squared error of
    softmax(cos(p, T_k)) over the classes k against softmax(cos(T_y, T_k)).

    Args:
        scores: 100 cos(p, T_k), shape (n, classes).
        targets: labels as one-hot rows, `soft_labels` and `text_relations` side by side,
            shape (n, 3 x classes).
    """
    labels, soft, relations = targets.chunk(3, dim=1)
    cosines = scores / LOGIT_SCALE
    absolute = 1 - (cosines * labels).sum(dim=1).mean()
    relative = functional.mse_loss(cosines.softmax(dim=1), relations)
    return functional.cross_entropy(scores, soft) + absolute + 10 * relative


def cosine_logits(outputs: Tensor, text_head: Tensor) -> Tensor:
    """100 x the cosine of each output, shape (n, d), to each class text, shape (classes, d)."""
    return LOGIT_SCALE * functional.normalize(outputs, dim=1) @ text_head.T
