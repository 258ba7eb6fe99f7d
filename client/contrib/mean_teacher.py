"""Mean Teacher (Tarvainen and Valpola, NeurIPS 2017): the mean of a student's weights teaches it.

The student's class probabilities in one view are drawn to those of the mean in another one (section 2). The
paper's weight grows over the first steps, for a student that knows nothing; ours begins pre-trained.
"""

from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from client import Method

WEIGHT = 10.0


def mean_teacher_loss(outputs: Tensor, targets: tuple[Tensor, Tensor]) -> Tensor:
    """Of class scores of two views, shape (2, n, classes), labels (n,), and the mean's scores of the same."""
    labels, by_mean = targets
    known = labels >= 0
    agreement = mse_loss(outputs[0].softmax(dim=1), by_mean[1].softmax(dim=1))
    return cross_entropy(outputs[0][known], labels[known]) + WEIGHT * agreement


MEAN_TEACHER = Method(
    "mean-teacher",
    "erm, and the mean of its own weights on images without labels (NeurIPS 2017); buys nothing",
    targets=lambda known: known.labels,
    loss=mean_teacher_loss,
    teacher="average",
    head="linear",
    learns_unlabelled=True,
    views=(None, None),
    average=0.99,
)
