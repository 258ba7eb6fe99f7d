"""The losses, as pure functions of tensors, and the targets that they compare with."""

from torch import Tensor
from torch.nn import functional

# Cosines are multiplied by this before a softmax: CLIP's own temperature, as method.md's predict uses it.
LOGIT_SCALE = 100.0


def teacher_targets(images: Tensor, bought: Tensor, texts: Tensor, *, image_weight: float) -> Tensor:
    """The teacher as one vector an example: `w I + (1 - w) T_y`, and `T_y` where `I` was not bought.

    Args:
        images: image embeddings I(x), shape (n, d), unit length; rows that were not bought are ignored.
        bought: which rows of `images` were bought, shape (n,), bool.
        texts: the class prompt's embedding T_y of each example, shape (n, d), unit length.
        image_weight: w, the paper's lambda.

    Returns:
        shape (n, d), not normalised: its length is how far image and text agree.
    """
    weight = (image_weight * bought.to(images.dtype)).unsqueeze(1)
    return weight * images.nan_to_num() + (1 - weight) * texts


def cosine_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """VL2V-ADiP's loss for both stages (CVPR 2024, eqs. 2 and 3), averaged over the batch.

    `-[w cos(p, I) + (1 - w) cos(p, T_y)]` with unit I and T_y is `-<p / |p|, m>` for the `m` that
    `teacher_targets` makes.

    Args:
        outputs: P f(x), shape (n, d), any length.
        targets: m, shape (n, d).
    """
    return -(functional.normalize(outputs, dim=1) * targets).sum(dim=1).mean()


def cosine_logits(outputs: Tensor, text_head: Tensor) -> Tensor:
    """100 x the cosine of each output, shape (n, d), to each class text, shape (classes, d)."""
    return LOGIT_SCALE * functional.normalize(outputs, dim=1) @ text_head.T
