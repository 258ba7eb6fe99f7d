"""Training methods as data: the targets, the loss and the trained parts of each."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from client.errors import UsageError
from client.learning.losses import (
    cosine_loss,
    image_targets,
    rise_loss,
    rise_targets,
    soft_labels,
    squared_loss,
    teacher_targets,
)
from client.learning.prompts import ONE_PROMPT, ClassPrompts
from client.learning.recipe import RECIPES, VARIANTS, Recipe

# Of so many images something is worked out at once, so that memory does not grow with the images.
ROWS_AT_ONCE = 8192

Loss = Callable[[Tensor, Tensor], Tensor]
# Of outputs, targets, and the texts about each class.
TextLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Supervision:
    """What is known of the images of a run, for a method to make its targets of.

    Attributes:
        labels: class of each image, shape (n,), int64; negative of an unlabelled image.
        text_head: the teacher's unit class texts, shape (classes, d); empty for a method that asks for none.
        images: the teacher's unit image embeddings, shape (n, d); rows that were not bought mean nothing.
        bought: which rows of `images` were bought, shape (n,), bool.
        image_weight: how much an image's embedding counts beside its text's (the recipe's).
        styled_texts: the teacher's unit embeddings of each class in each style, shape (classes, styles, d);
            `None` for a method that asks for none.
    """

    labels: Tensor
    text_head: Tensor
    images: Tensor
    bought: Tensor
    image_weight: float
    styled_texts: Tensor | None = None

    def of(self, rows: slice) -> "Supervision":
        """The same of some of the images."""
        return replace(self, labels=self.labels[rows], images=self.images[rows], bought=self.bought[rows])

    @property
    def labelled(self) -> Tensor:
        """Which images have a label, shape (n,), bool."""
        return self.labels >= 0

    @property
    def judged_by(self) -> Tensor:
        """The positions of the images that tell how right the teacher is, shape (n,): the labelled ones that
        were bought."""
        return torch.nonzero(self.bought & self.labelled).flatten()

    @property
    def texts(self) -> Tensor:
        """The class text of each image, shape (n, d); zeros for an unlabelled one."""
        return self.text_head[self.labels] * self.labelled.unsqueeze(1)

    @property
    def soft_labels(self) -> Tensor:
        """Labels mixed with the teacher's zero-shot answers, shape (n, classes); these alone where there is
        no label.
        """
        return soft_labels(
            self.images, self.bought, self.text_head, self.labels, image_weight=self.image_weights
        )

    @property
    def image_weights(self) -> Tensor:
        """How much the embedding of each image counts, shape (n,): alone where there is no label."""
        weights = torch.full(self.labels.shape, self.image_weight, dtype=self.images.dtype)
        return weights.masked_fill(~self.labelled, 1.0)


Targets = Callable[[Supervision], Tensor]


@dataclass(frozen=True)
class Method:
    """A method as data; the loop in training.py runs them all.

    Attributes:
        name: as on the command line.
        summary: one line for people.
        targets: what the loss compares with, a row for each image.
        loss: of (outputs, targets), averaged over a batch; of a method that asks about classes in styles, of
            (outputs, targets, texts), with the class's text and then those of its styles.
        asks: what it takes from the vendor: "texts" (one query a sentence of `prompts`), "images" (one a
            training image).
        prompts: the sentences about each class.
        aligns: whether the projector is first fitted alone, on features of the frozen backbone.
        trains: the parts that train on pixels afterwards; none, and the run ends with the first stage.
        head: what the student predicts by: the teacher's class "texts"; a classifier of its own ("linear"),
            which is then its projector; or a classifier behind the projector that starts as the texts and is
            "tuned", and then its outputs are its embedding and its class scores side by side.
        projector: a new "linear" layer, or the student's "own" projection (an open_clip student's).
        learns_unlabelled: whether its targets can be made of an image's embedding alone, without a label.
        needs_teacher: whether its targets cannot be made without a teacher. For those of the others the
            labels are enough, if each class has some direction or other.
        teacher: the "vendor"; or a model here that is asked about every view: the student's "twin" (a frozen
            copy of it), or the one that comes "bundled" with Tuition; or "nobody": `class_directions` stand
            for the class texts.
    """

    name: str
    summary: str
    targets: Targets
    loss: Loss | TextLoss
    asks: frozenset[str] = frozenset({"texts", "images"})
    prompts: ClassPrompts = ONE_PROMPT
    aligns: bool = False
    trains: frozenset[str] = frozenset({"backbone"})
    head: Literal["texts", "linear", "tuned"] = "texts"
    projector: Literal["linear", "own"] = "linear"
    learns_unlabelled: bool = False
    needs_teacher: bool = False
    teacher: Literal["vendor", "twin", "bundled", "nobody"] = "vendor"

    def texts_of_loss(self, known: Supervision) -> Tensor | None:
        """What its loss is given of the texts, shape (classes, 1 + styles, d); `None` where it takes none."""
        if self.prompts.styled is None:
            return None
        assert known.styled_texts is not None
        return torch.cat([known.text_head.unsqueeze(1), known.styled_texts], dim=1)

    @property
    def buys(self) -> bool:
        """Whether it takes anything from the vendor."""
        return bool(self.asks)


def class_directions(classes: int, dimensions: int = 512) -> Tensor:
    """A unit vector for each class, shape (classes, dimensions): always the same, but for the last digits.

    Those differ with the processor and the number of threads. The vectors are at right angles to each other
    where the dimensions are as many, else drawn at random.
    """
    drawn = torch.randn(dimensions, classes, generator=torch.Generator().manual_seed(0))
    directions = torch.linalg.qr(drawn).Q if classes <= dimensions else functional.normalize(drawn, dim=0)
    return directions.T.contiguous()


NOTHING: frozenset[str] = frozenset()
TEXTS = frozenset({"texts"})
PROJECTOR_TOO = frozenset({"backbone", "projector"})


def _labels(known: Supervision) -> Tensor:
    return known.labels


def _image_and_text(known: Supervision) -> Tensor:
    return teacher_targets(known.images, known.bought, known.texts, image_weight=known.image_weights)


def _image(known: Supervision) -> Tensor:
    return image_targets(known.images, known.bought)


def _text(known: Supervision) -> Tensor:
    return known.texts


def _text_share(known: Supervision) -> Tensor:
    """What a local teacher's embedding of each view is added to."""
    return (1 - known.image_weight) * known.texts


def _soft_labels(known: Supervision) -> Tensor:
    return known.soft_labels


def _rise(known: Supervision) -> Tensor:
    return rise_targets(
        known.images, known.bought, known.text_head, known.labels, image_weight=known.image_weight
    )


# The ensemble of RISE's released code, and its sentence about a class in a domain.
_RISE_PROMPTS = ClassPrompts(
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

METHODS = {
    method.name: method
    for method in (
        Method(
            "vl2v-adip",
            "align the projector, then distil into the backbone (CVPR 2024)",
            _image_and_text,
            cosine_loss,
            aligns=True,
            learns_unlabelled=True,
        ),
        Method(
            "vl2v-sd",
            "white box: an open_clip student taught by its frozen twin; buys nothing (CVPR 2024)",
            _text_share,
            cosine_loss,
            asks=NOTHING,
            projector="own",
            teacher="twin",
        ),
        Method(
            "vl2v-sd-bought",
            "as vl2v-sd, but the vendor sells what the student's own model sees",
            _image_and_text,
            cosine_loss,
            projector="own",
            learns_unlabelled=True,
        ),
        Method(
            "unlimited",
            "as vl2v-adip, the bundled teacher itself asked about every view, as the paper's code does",
            _text_share,
            cosine_loss,
            asks=NOTHING,
            aligns=True,
            teacher="bundled",
        ),
        Method(
            "no-align",
            "as vl2v-adip, projector and backbone together from the start",
            _image_and_text,
            cosine_loss,
            trains=PROJECTOR_TOO,
            learns_unlabelled=True,
        ),
        Method(
            "image-only",
            "as vl2v-adip, towards the image embeddings alone (image_weight 1)",
            _image,
            cosine_loss,
            aligns=True,
            learns_unlabelled=True,
            needs_teacher=True,
        ),
        Method(
            "text-only",
            "as vl2v-adip, towards the class texts alone (image_weight 0); buys no image",
            _text,
            cosine_loss,
            asks=TEXTS,
            aligns=True,
        ),
        Method(
            "label-only",
            "as text-only, towards directions at right angles in place of the texts; buys nothing",
            _text,
            cosine_loss,
            asks=NOTHING,
            aligns=True,
            teacher="nobody",
        ),
        Method(
            "simkd",
            "regress the image embeddings, predict by the teacher's frozen head (CVPR 2022)",
            _image,
            squared_loss,
            aligns=True,
            trains=PROJECTOR_TOO,
            learns_unlabelled=True,
            needs_teacher=True,
        ),
        Method(
            "rise",
            "KD, and absolute and relative distances to texts about the class in each domain (ICCV 2023)",
            _rise,
            rise_loss,
            prompts=_RISE_PROMPTS,
            trains=PROJECTOR_TOO,
            head="tuned",
            needs_teacher=True,
        ),
        Method(
            "kd",
            "a classifier taught by labels and by the teacher's zero-shot answers",
            _soft_labels,
            functional.cross_entropy,
            trains=PROJECTOR_TOO,
            head="linear",
            learns_unlabelled=True,
        ),
        Method(
            "erm",
            "fine-tune backbone and classifier with cross-entropy; buys nothing",
            _labels,
            functional.cross_entropy,
            asks=NOTHING,
            trains=PROJECTOR_TOO,
            head="linear",
        ),
        Method(
            "linear-probe",
            "a classifier on the frozen backbone; buys nothing",
            _labels,
            functional.cross_entropy,
            asks=NOTHING,
            aligns=True,
            trains=NOTHING,
            head="linear",
        ),
        Method(
            "lp-ft",
            "the linear probe, then fine-tune all of it (ICLR 2022); buys nothing",
            _labels,
            functional.cross_entropy,
            asks=NOTHING,
            aligns=True,
            trains=PROJECTOR_TOO,
            head="linear",
        ),
    )
}


def known_method(words: str) -> Method | None:
    """The method of `NAME[+VARIANT...]`; `None` where no method has the name, as of "zero-shot"."""
    return METHODS.get(words.partition("+")[0])


def method_of(words: str) -> Method:
    """The same of a name that is one.

    Raises:
        UsageError: there is no such method, and the message names those that there are.
    """
    if (method := known_method(words)) is None:
        raise UsageError(f"There is no method {words.partition('+')[0]!r}. There are: {', '.join(METHODS)}.")
    return method


def parse_method(words: str, recipe: Recipe) -> tuple[Method, Recipe]:
    """A method as it is named on the command line, `NAME[+VARIANT...]`, and its recipe.

    "erm+swad" is `erm` with the recipe's selection changed; recipe.py lists the variants.

    Raises:
        UsageError: there is no such method or variant, and the message names those that there are.
    """
    method = method_of(words)
    for variant in words.split("+")[1:]:
        if variant not in VARIANTS:
            known = ", ".join(f"+{each}" for each in VARIANTS)
            raise UsageError(f"There is no variant +{variant} of a method. There are: {known}.")
        recipe = VARIANTS[variant](recipe)
    return method, recipe


def without_variants(words: str, recipe: Recipe) -> Recipe:
    """A recipe from `parse_method`, before the variants of the method's name.

    What they have set is again as in the one of `RECIPES` that it was made from, or else as in Tuition's own.
    """
    plain = next((named for named in RECIPES.values() if _is_but_for_steps(recipe, named)), Recipe())
    _, varied = parse_method(words, plain)
    before = {each.name: getattr(plain, each.name) for each in fields(plain)}
    return replace(
        recipe, **{name: value for name, value in before.items() if value != getattr(varied, name)}
    )


def _is_but_for_steps(recipe: Recipe, other: Recipe) -> bool:
    """Whether it trains as another does, in as many steps or in others."""
    in_as_many = replace(recipe, steps=other.steps, align_steps=other.align_steps, passes=other.passes)
    return in_as_many.is_protocol_of(other)


def steps_of(method: Method, recipe: Recipe) -> int:
    """How many steps the last stage takes, the one whose states are chosen from."""
    return recipe.steps if method.trains else recipe.align_steps


def images_per_domain_of(method: Method, recipe: Recipe) -> int:
    """How many images of each source domain are in a batch of that stage."""
    return recipe.images_per_domain if method.trains else recipe.align_images_per_domain


def with_steps(recipe: Recipe, words: str, steps: int | None) -> Recipe:
    """A recipe with so many steps of the stage that makes a method's student; `None` leaves it as it is.

    That is the last stage: the one on pixels, or the only one of a method that trains nothing on pixels.
    """
    method = known_method(words)
    recipe = recipe.with_steps(steps)
    if steps is None or method is None or method.trains:
        return recipe
    return replace(recipe, align_steps=steps)
