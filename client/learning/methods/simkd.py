"""SimKD (Chen et al., CVPR 2022)."""

from torch import Tensor

from client.learning.methods.method import Method
from client.learning.methods.vl2v import image_alone


def squared_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """The squared distance to the teacher's features (eq. 3), averaged over the images that were bought.

    Args:
        outputs: P f(x), shape (n, d).
        targets: I(x), shape (n, d), with zeros where it was not bought: such rows do not count.
    """
    bought = targets.ne(0).any(dim=1)
    distances = (outputs - targets).square().sum(dim=1)
    return (distances * bought).sum() / bought.sum().clamp(min=1)


METHODS = (
    Method(
        "simkd",
        "regress the image embeddings, predict by the teacher's frozen head (CVPR 2022)",
        image_alone,
        squared_loss,
        aligns=True,
        learns_unlabelled=True,
        needs_teacher=True,
    ),
)
