"""A training method as data; the stages run them all."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from client.learning.prompts import ONE_PROMPT, ClassPrompts
from client.learning.recipe import LOGIT_SCALE, Augmentation
from client.learning.supervision import Rows, Supervision

# Of outputs and targets, and of the texts about each class where it takes them.
Loss = Callable[..., Tensor]
# How an image is seen: Tuition's random view, or a function of one image, uint8 (3, side, side), that gives
# one of any size with values from 0 to 255; `None` stands for the run's own.
View = Augmentation | Callable[[Tensor], Tensor] | None

BACKBONE = frozenset({"backbone"})
ALL = frozenset({"backbone", "projector"})
NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        name: as on the command line.
        summary: one line for people.
        targets: what the loss compares with, a row for each image: a tensor, or a tuple of them.
        loss: of (outputs, targets), averaged over a batch. Outputs have shape (n, d), and with several views
            (views, n, d).
        teacher: "vendor", which sells an embedding of each training image and of each sentence of `prompts`;
            "vendor's texts", which sells the latter alone; "twin", a frozen copy of the student that is asked
            about every view; "bundled", the model that comes with Tuition, asked likewise; "average", the
            mean of the student's own weights (`average`), whose outputs about every view come behind the
            targets; or "nobody".
        prompts: the sentences about each class.
        aligns: whether the projector is first fitted alone, on features of the frozen backbone. There, all
            views of an image are the same, and so are student and average.
        trains: the parts that train on pixels afterwards; none, and the run ends with the first stage.
        head: what the student predicts by: the teacher's class "texts"; a classifier of its own ("linear"),
            which is then its projector; or a classifier behind the projector that starts as the texts and is
            "tuned", and then its outputs are its embedding and its class scores side by side.
        projector: a new "linear" layer, or the student's "own" projection (an open_clip student's).
        learns_unlabelled: whether its targets can be made without a label: of an image's embedding alone, or
            of nothing, where it asks the vendor about no image.
        needs_teacher: whether its targets cannot be made without a teacher. For those of the others the
            labels are enough, if each class has some direction or other (`class_directions`).
        views: how each image is seen in a step on pixels.
        average: a moving mean of the weights is kept, and predicts, of which each step leaves this share
            (0.999, say); 0 for none.
        takes_texts: whether the loss has a third argument: the class texts, shape (classes, 1, d), and behind
            them those of the styles, if its prompts have styles.
    """

    name: str
    summary: str
    targets: Callable[[Supervision], Rows]
    loss: Loss
    teacher: Literal["vendor", "vendor's texts", "twin", "bundled", "average", "nobody"] = "vendor"
    prompts: ClassPrompts = ONE_PROMPT
    aligns: bool = False
    trains: frozenset[str] = ALL
    head: Literal["texts", "linear", "tuned"] = "texts"
    projector: Literal["linear", "own"] = "linear"
    learns_unlabelled: bool = False
    needs_teacher: bool = False
    views: tuple[View, ...] = (None,)
    average: float = 0.0
    takes_texts: bool = False

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

    @property
    def wrong(self) -> str:
        """Why it cannot be; empty where it can."""
        choices: dict[str, tuple[Any, ...]] = {
            "teacher": ("vendor", "vendor's texts", "twin", "bundled", "average", "nobody"),
            "head": ("texts", "linear", "tuned"),
            "projector": ("linear", "own"),
        }
        for field, those in choices.items():
            if getattr(self, field) not in those:
                return f"its {field} is {getattr(self, field)!r}, and not one of {', '.join(those)}"
        if not self.trains <= ALL or not (self.trains or self.aligns):
            return f"its trains is {set(self.trains)}, and not some of {', '.join(sorted(ALL))}"
        if not 0 <= self.average < 1 or (self.teacher == "average" and not self.average):
            return "its average is a share from 0, and more than 0 where it is the teacher"
        if not self.views or not all(
            each is None or isinstance(each, Augmentation) or callable(each) for each in self.views
        ):
            return "its views are None, an Augmentation or a function each, and one at least"
        return "" if callable(self.targets) and callable(self.loss) else "its targets or loss is no function"

    def texts_of_loss(self, known: Supervision) -> Tensor | None:
        """The texts that its loss is given, shape (classes, 1 + styles, d); `None` where it takes none."""
        if not self.takes_texts:
            return None
        texts = known.text_head.unsqueeze(1)
        return texts if known.styled_texts is None else torch.cat([texts, known.styled_texts], dim=1)


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
