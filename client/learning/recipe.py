"""Every number that shapes a training run, named; a run's config.json holds all of them."""

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal, get_args

from pydantic import Field

# Cosines are multiplied by this before a softmax: CLIP's own temperature, as the paper's predict uses it.
LOGIT_SCALE = 100.0
_UNLABELLED_ALIGNED = 2048

SelectionName = Literal["best", "swad"]

# What the numbers of a recipe may be; options are held to it.
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Part = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class Augmentation:
    """The student's random view of an image: DomainBed's (paper, supplementary material), then styles.

    Attributes:
        crop_scale: bounds of the share of an image's area that is cropped.
        jitter: how far brightness, contrast, saturation and hue may move, each way.
        grayscale: chance of a view without colour.
        style: chance of each change of style (styles.py). The paper's recipe has none.
    """

    crop_scale: tuple[float, float] = (0.7, 1.0)
    jitter: float = 0.3
    grayscale: float = 0.1
    style: float = 0.25


@dataclass(frozen=True)
class Recipe:
    """A training protocol; the defaults are Tuition's own (benchmarks/notebook.md says how they were found).

    Steps are optimiser steps; each takes `images_per_domain` images from every source domain. `settled` fills
    in what follows from the data: more images of each domain where there are few domains, and more steps
    where there are many images, with labels or without.

    Attributes:
        image_weight: the paper's lambda: how much the image's embedding counts beside the class text's.
        weigh_teacher: whether of a weak teacher only those answers count that the labels do not speak against
            (trust.py).
        unlabelled_share: the share of a batch that is images without labels, where there are any.
        pseudo_labels: how sure the teacher must be of its answer about an image without a label for that
            answer to stand as the label (a probability, calibrated on the labels); 0: none does.
        holdout: the share of each source domain that is held out for selection.
        augmentation: the student's random view.
        align_views: random views of each image on whose features the projector is aligned.
        align_steps: optimiser steps of the align stage.
        align_images_per_domain: images of each source domain in a batch of it.
        align_learning_rate: its learning rate.
        steps: optimiser steps of the distill stage (of fine-tuning, for ERM).
        passes: how often images are seen in the distill stage, in the mean, at the least: where `steps` are
            too few for it, there are more of them. 0: there are just so many steps.
        images_per_domain: images of each source domain in a batch of it.
        domains_in_batch: fewer domains give as many times more images each as they go into this number, so
            that a batch is not small because there is one domain.
        learning_rate: its learning rate.
        frozen: the share of the backbone's first layer groups that is left as it is.
        cosine: whether rates are warmed up over `warmup` of the steps and then led to zero, or constant.
        warmup: see `cosine`.
        evaluations: how often the hold-outs are scored.
        selection: "best", the state that is best on the hold-outs, or "swad", a mean over many.
    """

    image_weight: Share = 0.5
    weigh_teacher: bool = True
    unlabelled_share: Part = 1 / 3
    pseudo_labels: Share = 0.9
    holdout: Part = 0.2
    augmentation: Augmentation = Augmentation()
    align_views: Count = 6
    align_steps: Count = 1200
    align_images_per_domain: Count = 64
    align_learning_rate: Rate = 1e-3
    steps: Count = 1200
    passes: Annotated[int, Field(ge=0)] = 2
    images_per_domain: Count = 8
    domains_in_batch: Count = 4
    learning_rate: Rate = 1e-3
    frozen: Share = 0.375
    cosine: bool = True
    warmup: Share = 0.2
    evaluations: Count = 10
    selection: SelectionName = "best"

    def with_steps(self, steps: int | None) -> "Recipe":
        """The same protocol with just so many distillation steps; a very short run is aligned shortly too."""
        if steps is None:
            return self
        return replace(self, steps=steps, passes=0, align_steps=min(self.align_steps, 4 * steps))

    def settled(self, *, domains: int, labelled: int = 0, unlabelled: int = 0) -> "Recipe":
        """The same protocol with the numbers that follow from the data.

        Args:
            domains: how many source domains have images to train on; none where no image has a label.
            labelled: how many labelled images are trained on.
            unlabelled: how many images without labels are learnt from.
        """
        times = max(1, self.domains_in_batch // max(1, domains))
        per_domain = times * self.images_per_domain
        kinds = (
            (labelled, max(1, per_domain * domains)),
            (unlabelled, self.unlabelled_in_batch(per_domain, domains)),
        )
        enough = (math.ceil(self.passes * images / in_batch) for images, in_batch in kinds)
        return replace(
            self,
            steps=max(self.steps, *enough),
            passes=0,
            images_per_domain=per_domain,
            align_images_per_domain=times * self.align_images_per_domain,
            domains_in_batch=1,
        )

    def most_unlabelled(self, *, domains: int, labelled: int, aligns: bool) -> int | None:
        """How many images without labels are looked at, at the most; `None` where all are.

        Args:
            domains: how many source domains have images to train on.
            labelled: how many labelled images are trained on.
            aligns: whether the method aligns a projector first.
        """
        if self.passes:
            return None
        settled = self.settled(domains=domains)
        seen = settled.steps * settled.unlabelled_in_batch(settled.images_per_domain, domains)
        return max(seen, unlabelled_aligned(labelled)) if aligns else seen

    def unlabelled_in_batch(self, per_domain: int, domains: int) -> int:
        """How many unlabelled images stand in a batch of so many images of each of these domains; without any
        domain, as many as one would give."""
        beside = per_domain * domains * self.unlabelled_share / (1 - self.unlabelled_share)
        return max(1, round(beside)) if domains else per_domain

    def is_protocol_of(self, other: "Recipe") -> bool:
        """Whether it trains as another does, whatever is kept of the states."""
        return replace(self, selection=other.selection) == other

    def views_seen(self, images: int, domains: int) -> int:
        """How many augmented views of labelled images both stages look at: so many queries, were each asked
        about."""
        settled = self.settled(domains=domains, labelled=images)
        return self.align_views * images + settled.steps * settled.images_per_domain * domains


def unlabelled_aligned(labelled: int) -> int:
    """On how many unlabelled images a projector is aligned at the most, beside so many labelled ones."""
    return max(_UNLABELLED_ALIGNED, 2 * labelled)


@dataclass(frozen=True)
class Variant:
    """A row of a comparison: a method by a recipe, under a name.

    Attributes:
        name: of the row, and of its runs' folders.
        method: as `parse_method` takes it, "erm+swad"; or "zero-shot", the teacher itself.
        recipe: the training protocol, before the method's variants.
    """

    name: str
    method: str
    recipe: Recipe


RecipeName = Literal["default", "paper", "paper-domainnet"]

# What the paper and its released code train with (DomainBed's protocol, with SWAD).
PAPER = Recipe(
    image_weight=0.5,
    weigh_teacher=False,
    pseudo_labels=0.0,
    holdout=0.2,
    augmentation=Augmentation(crop_scale=(0.7, 1.0), jitter=0.3, grayscale=0.1, style=0.0),
    align_steps=5000,
    align_images_per_domain=32,
    align_learning_rate=5e-5,
    steps=5000,
    passes=0,
    images_per_domain=32,
    domains_in_batch=1,
    learning_rate=5e-5,
    frozen=0.0,
    cosine=False,
    evaluations=25,
    selection="swad",
)
RECIPES = {
    "default": Recipe(),
    "paper": PAPER,
    "paper-domainnet": replace(PAPER, align_steps=15_000, steps=15_000, evaluations=15),
}

# What `METHOD+VARIANT` makes of a recipe's selection; any method can have each.
SELECTIONS: dict[str, SelectionName] = {name: name for name in get_args(SelectionName)}
