"""RISE (Huang et al., ICCV 2023), with the numbers and sentences of its released code."""

import torch
from torch import Tensor
from torch.nn import functional

from client.learning.methods.method import Method
from client.learning.prompts import ClassPrompts
from client.learning.recipe import LOGIT_SCALE
from client.learning.supervision import Supervision

# What its released code takes throughout, and the middle of the three weights of distances that it tries.
TEMPERATURE = 3.0
DISTANCE_WEIGHT = 1.0

# Its ensemble of sentences, and the one about a class in a domain.
_PROMPTS = ClassPrompts(
    templates=(
        "itap of a {}.",
        "a bad photo of the {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
    ),
    styled="a {} of a {}",
)


def rise_targets(known: Supervision) -> Tensor:
    """The targets of `rise_loss`, shape (n, 2 + classes).

    A row holds the label, the weight of the teacher's answer (0 where `I` was not bought), and that answer:
    the softmax of 100 x cosine / `TEMPERATURE`.
    """
    cosines = LOGIT_SCALE * known.images.nan_to_num() @ known.text_head.T
    answers = (cosines / TEMPERATURE).softmax(dim=1)
    weights = known.image_weight * known.bought.to(answers.dtype)
    return torch.cat([known.labels.to(answers.dtype).unsqueeze(1), weights.unsqueeze(1), answers], dim=1)


def rise_loss(outputs: Tensor, targets: Tensor, texts: Tensor) -> Tensor:
    """The loss (section 3), averaged over the batch as the released code does.

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
    log_shares = (scores / TEMPERATURE).log_softmax(dim=1)
    distilled = TEMPERATURE**2 * functional.kl_div(log_shares, answers, reduction="none").sum(dim=1)
    classified = functional.cross_entropy(scores, labels, reduction="none")
    own = functional.cosine_similarity(embeddings.unsqueeze(1), texts[labels], dim=2)
    between = functional.cosine_similarity(texts[:, :1], texts[:, 1:], dim=2)
    absolute = (1 - own[:, 0]).mean()
    relative = functional.mse_loss(own[:, 1:].softmax(dim=1), between.softmax(dim=1)[labels])
    taught = (weights * distilled + (1 - weights) * classified).mean()
    return taught + DISTANCE_WEIGHT * (absolute + 10 * relative)


METHODS = (
    Method(
        "rise",
        "KD, and absolute and relative distances to texts about the class in each domain (ICCV 2023)",
        rise_targets,
        rise_loss,
        prompts=_PROMPTS,
        head="tuned",
        needs_teacher=True,
        takes_texts=True,
    ),
)
