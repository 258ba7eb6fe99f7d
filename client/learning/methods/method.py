"""A training method as data; the stages run them all."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from client.learning.prompts import ONE_PROMPT, ClassPrompts
from client.learning.recipe import LOGIT_SCALE
from client.learning.supervision import Supervision

# Of outputs and targets.
Loss = Callable[[Tensor, Tensor], Tensor]
# Of outputs, targets, and the texts about each class.
TextLoss = Callable[[Tensor, Tensor, Tensor], Tensor]

BACKBONE = frozenset({"backbone"})
ALL = frozenset({"backbone", "projector"})
NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        name: as on the command line.
        summary: one line for people.
        targets: what the loss compares with, a row for each image.
        loss: of (outputs, targets), averaged over a batch; of a method whose prompts have styles, of
            (outputs, targets, texts), with the class's text and then those of its styles.
        teacher: "vendor", which sells an embedding of each training image and of each sentence of `prompts`;
            "vendor's texts", which sells the latter alone; "twin", a frozen copy of the student that is asked
            about every view; "bundled", the model that comes with Tuition, asked likewise; or "nobody".
        prompts: the sentences about each class.
        aligns: whether the projector is first fitted alone, on features of the frozen backbone.
        trains: the parts that train on pixels afterwards; none, and the run ends with the first stage.
        head: what the student predicts by: the teacher's class "texts"; a classifier of its own ("linear"),
            which is then its projector; or a classifier behind the projector that starts as the texts and is
            "tuned", and then its outputs are its embedding and its class scores side by side.
        projector: a new "linear" layer, or the student's "own" projection (an open_clip student's).
        learns_unlabelled: whether its targets can be made of an image's embedding alone, without a label.
        needs_teacher: whether its targets cannot be made without a teacher. For those of the others the
            labels are enough, if each class has some direction or other (`class_directions`).
    """

    name: str
    summary: str
    targets: Callable[[Supervision], Tensor]
    loss: Loss | TextLoss
    teacher: Literal["vendor", "vendor's texts", "twin", "bundled", "nobody"] = "vendor"
    prompts: ClassPrompts = ONE_PROMPT
    aligns: bool = False
    trains: frozenset[str] = ALL
    head: Literal["texts", "linear", "tuned"] = "texts"
    projector: Literal["linear", "own"] = "linear"
    learns_unlabelled: bool = False
    needs_teacher: bool = False

    @property
    def asks(self) -> frozenset[str]:
        """The kinds that it takes from the vendor: "texts", "images", both, or none."""
        return {"vendor": frozenset({"texts", "images"}), "vendor's texts": frozenset({"texts"})}.get(
            self.teacher, frozenset()
        )

    @property
    def buys(self) -> bool:
        """Whether it takes anything from the vendor."""
        return bool(self.asks)

    def texts_of_loss(self, known: Supervision) -> Tensor | None:
        """The texts that its loss is given, shape (classes, 1 + styles, d); `None` where it takes none."""
        if self.prompts.styled is None:
            return None
        assert known.styled_texts is not None
        return torch.cat([known.text_head.unsqueeze(1), known.styled_texts], dim=1)


def class_directions(classes: int, dimensions: int = 512) -> Tensor:
    """A unit vector for each class, shape (classes, dimensions): always the same, but for the last digits.

    Those differ with the processor and the number of threads. The vectors are at right angles to each other
    if there are enough dimensions, else drawn at random.
    """
    drawn = torch.randn(dimensions, classes, generator=torch.Generator().manual_seed(0))
    directions = torch.linalg.qr(drawn).Q if classes <= dimensions else functional.normalize(drawn, dim=0)
    return directions.T.contiguous()


def cosine_logits(outputs: Tensor, text_head: Tensor) -> Tensor:
    """100 x the cosine of each output, shape (n, d), to each class text, shape (classes, d)."""
    return LOGIT_SCALE * functional.normalize(outputs, dim=1) @ text_head.T
