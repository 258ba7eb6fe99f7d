"""Students with a classifier of their own: fine-tuning, linear probes, and knowledge distillation."""

from dataclasses import replace

from torch import Tensor
from torch.nn import functional

from client.learning.methods.method import NOTHING, Method
from client.learning.recipe import LOGIT_SCALE
from client.learning.supervision import Supervision


def soft_labels(known: Supervision) -> Tensor:
    """Class probabilities to imitate, shape (n, classes): `w` the teacher's, `1 - w` the label's.

    The teacher's are its zero-shot answer, the softmax of 100 x cosine. The cross-entropy with this mixture
    is knowledge distillation at temperature 1 (Hinton et al., 2015). Where `I` was not bought, the label
    stands alone; where there is no label, the teacher's answer does.
    """
    weight, classes = known.image_weights, len(known.text_head)
    teacher = (LOGIT_SCALE * known.images.nan_to_num() @ known.text_head.T).softmax(dim=1)
    one_hot = functional.one_hot(known.labels.clamp(min=0), classes) * known.labelled.unsqueeze(1)
    return weight * teacher + (1 - weight) * one_hot


def _labels(known: Supervision) -> Tensor:
    return known.labels


_ERM = Method(
    "erm",
    "fine-tune backbone and classifier with cross-entropy; buys nothing",
    _labels,
    functional.cross_entropy,
    teacher="nobody",
    head="linear",
)
METHODS = (
    Method(
        "kd",
        "a classifier taught by labels and by the teacher's zero-shot answers",
        soft_labels,
        functional.cross_entropy,
        head="linear",
        learns_unlabelled=True,
    ),
    _ERM,
    replace(
        _ERM,
        name="linear-probe",
        summary="a classifier on the frozen backbone; buys nothing",
        aligns=True,
        trains=NOTHING,
    ),
    replace(
        _ERM,
        name="lp-ft",
        summary="the linear probe, then fine-tune all of it (ICLR 2022); buys nothing",
        aligns=True,
    ),
)
