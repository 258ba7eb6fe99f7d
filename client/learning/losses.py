"""The losses, as pure functions of tensors, and the targets that they compare with."""

import torch
from torch import Tensor
from torch.nn import functional

from client.learning.logit_scale import LOGIT_SCALE

# RISE's temperature and the weight of its distances: what its released code takes throughout, and the middle
# of the three that it tries.
RISE_TEMPERATURE = 3.0
RISE_DISTANCE_WEIGHT = 1.0


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


def rise_targets(
    images: Tensor, bought: Tensor, text_head: Tensor, labels: Tensor, *, image_weight: float
) -> Tensor:
    """What `rise_loss` compares with, shape (n, 2 + classes).

    A row holds the label, the weight of the teacher's answer (0 where `I` was not bought), and that answer:
    the softmax of 100 x cosine / `RISE_TEMPERATURE`.
    """
    answers = (LOGIT_SCALE * images.nan_to_num() @ text_head.T / RISE_TEMPERATURE).softmax(dim=1)
    weights = image_weight * bought.to(images.dtype)
    return torch.cat([labels.to(images.dtype).unsqueeze(1), weights.unsqueeze(1), answers], dim=1)


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


def rise_loss(outputs: Tensor, targets: Tensor, texts: Tensor) -> Tensor:
    """RISE's loss (Huang et al., ICCV 2023, section 3), averaged over the batch as its released code does.

    With e the student's embedding, s its class scores, y the label, t_y the class text, t_yk the text of the
    class in style k, q the teacher's answer and T the temperature, it is

        w T^2 KL(q || softmax(s / T)) + (1 - w) CE(s, y)
        + v [1 - cos(e, t_y)] + 10 v mean_k [softmax_k cos(e, t_yk) - softmax_k cos(t_y, t_yk)]^2

    for distillation, classification, absolute distance and relative distance.

    Args:
        outputs: e and s side by side, shape (n, d + classes).
        targets: of `rise_targets`, shape (n, 2 + classes): y, w and q.
        texts: t_y and then each t_yk, shape (classes, 1 + styles, d), unit length.
    """
    labels, weights, answers = targets[:, 0].long(), targets[:, 1], targets[:, 2:]
    embeddings, scores = outputs[:, : texts.shape[2]], outputs[:, texts.shape[2] :]
    log_shares = (scores / RISE_TEMPERATURE).log_softmax(dim=1)
    distilled = RISE_TEMPERATURE**2 * functional.kl_div(log_shares, answers, reduction="none").sum(dim=1)
    classified = functional.cross_entropy(scores, labels, reduction="none")
    own = functional.cosine_similarity(embeddings.unsqueeze(1), texts[labels], dim=2)
    between = functional.cosine_similarity(texts[:, :1], texts[:, 1:], dim=2)
    absolute = (1 - own[:, 0]).mean()
    relative = functional.mse_loss(own[:, 1:].softmax(dim=1), between.softmax(dim=1)[labels])
    taught = (weights * distilled + (1 - weights) * classified).mean()
    return taught + RISE_DISTANCE_WEIGHT * (absolute + 10 * relative)


def cosine_logits(outputs: Tensor, text_head: Tensor) -> Tensor:
    """100 x the cosine of each output, shape (n, d), to each class text, shape (classes, d)."""
    return LOGIT_SCALE * functional.normalize(outputs, dim=1) @ text_head.T
