"""What distinguishes one training method from another: its targets, its loss, and what trains when."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from client.learning.losses import cosine_loss

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Method:
    """A method as data; the loop in training.py runs them all.

    Attributes:
        name: as on the command line.
        summary: one line for people.
        uses_teacher: whether it needs the teacher's embeddings. Its targets are then `teacher_targets`
            (n, d) and the student predicts by a text head; otherwise they are labels (n,) and the
            projector is a classifier.
        aligns: whether the projector is first fitted alone on frozen features (the align stage).
        trains: the parts that train in the main stage.
        loss: of (outputs, targets).
    """

    name: str
    summary: str
    uses_teacher: bool
    aligns: bool
    trains: frozenset[str]
    loss: Loss


METHODS = {
    method.name: method
    for method in (
        Method(
            name="vl2v-adip",
            summary="align the projector, then distil into the backbone (CVPR 2024)",
            uses_teacher=True,
            aligns=True,
            trains=frozenset({"backbone"}),
            loss=cosine_loss,
        ),
        Method(
            name="erm",
            summary="fine-tune backbone and classifier with cross-entropy; buys nothing",
            uses_teacher=False,
            aligns=False,
            trains=frozenset({"backbone", "projector"}),
            loss=functional.cross_entropy,
        ),
    )
}
