"""A training set: images, targets, and the batches and views that are drawn of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.learning.augmentation import AugmentationDraws, random_views
from client.learning.methods import View
from client.learning.recipe import Augmentation, Recipe, unlabelled_aligned
from client.learning.scores import Score, score
from client.learning.student import StudentNetwork
from client.learning.supervision import Rows
from client.learning.views import own_views

# Images of which features or scores are computed at once.
BATCH = 128
# Views of an unlabelled image that suffice beside labelled ones (benchmarks/notebook.md).
UNLABELLED_VIEWS = 2
# Images are kept this much larger than the student's side, so that a random crop is hardly enlarged.
_CROPPED_FROM = 256 / 224


class Images(Protocol):
    """Decoded images by position."""

    def load(self, positions: Sequence[int], side: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Images squeezed into squares, RGB of shape (n, side, side, 3), and width / height of each, (n,)."""


@dataclass(frozen=True)
class TrainingSet:
    """The images of the source domains and those without labels, and what each is compared with.

    Attributes:
        images: all of them, by position.
        labels: class of each, shape (n,), int64; negative where there is no label.
        domains: source domain of each, shape (n,), int64; -1 where there is no label.
        targets: what the method's loss compares with, a row for each (methods/): a tensor, or several.
        train: positions to train on.
        holdout: positions held out for selection.
        teacher: for a method that asks a model here about every view: that model. `targets` lack its part.
        texts: for a method whose loss takes texts: those of each class, shape (classes, 1 + styles, d).
        view: the user's own random view; `None` for the recipe's.
        halves: half of each hold-out, 0 or 1, shape (holdouts,); `None` where they are not scored by halves.
    """

    images: Images
    labels: Tensor
    domains: Tensor
    targets: Rows
    train: list[int]
    holdout: list[int]
    teacher: StudentNetwork | None = None
    texts: Tensor | None = None
    view: Callable[[Tensor], Tensor] | None = None
    halves: Tensor | None = None

    def score_holdouts(self, logits: Tensor) -> Score:
        """The score of class scores of the hold-outs, shape (holdouts, classes)."""
        return score(logits, self.labels[self.holdout], self.domains[self.holdout], self.halves)

    def aligned_on(self, seed: int) -> list[int]:
        """Positions that the projector is aligned on, those without labels last.

        Of unlabelled images these are some, drawn by the seed: the projector needs few, and features take
        long.
        """
        train = torch.tensor(self.train, dtype=torch.long)
        has_label = self.labels[train] >= 0
        labelled: list[int] = train[has_label].tolist()
        unlabelled: list[int] = train[~has_label].tolist()
        most = unlabelled_aligned(len(labelled))
        if len(unlabelled) > most:
            order = torch.randperm(len(unlabelled), generator=torch.Generator().manual_seed(seed))
            unlabelled = [unlabelled[turn] for turn in sorted(order[:most].tolist())]
        return labelled + unlabelled

    def views_aligned_on(self, views: int, seed: int) -> list[list[int]]:
        """The positions of `aligned_on` that are seen in each view, the first of which has all of them.

        Unlabelled images beside labelled ones are seen in fewer views.
        """
        positions = self.aligned_on(seed)
        labelled = [position for position in positions if self.labels[position] >= 0]
        return [positions if view < UNLABELLED_VIEWS or not labelled else labelled for view in range(views)]


class DomainBatches:
    """The examples of a step, fixed by seed and step.

    From each domain come `per_domain`, drawn with replacement. From the images of no domain (-1), which have
    no label, come `unlabelled(per_domain, domains)`, in turn: each before any comes again, in an order that
    is drawn anew for every pass.
    """

    def __init__(
        self, domains: Tensor, *, per_domain: int, seed: int, unlabelled: Callable[[int, int], int]
    ) -> None:
        names = sorted(set(domains[domains >= 0].tolist()))
        self._members = [torch.nonzero(domains == domain).flatten() for domain in names]
        self._per_domain = per_domain
        self._pool = torch.nonzero(domains < 0).flatten()
        self._of_pool = unlabelled(per_domain, len(names)) if len(self._pool) else 0
        self._seed = seed
        self._order: tuple[int, Tensor] = (-1, self._pool)

    def __call__(self, step: int) -> Tensor:
        """Positions, shape (domains x per_domain + unlabelled,)."""
        generator = torch.Generator().manual_seed(step_seed(self._seed, step))
        parts = [
            members[torch.randint(len(members), (self._per_domain,), generator=generator)]
            for members in self._members
        ]
        places = range(step * self._of_pool, (step + 1) * self._of_pool)
        return torch.cat([*parts, self._pool[[self._in_turn(place) for place in places]]])

    def _in_turn(self, place: int) -> int:
        """Which of the unlabelled images has this place, counted over all steps."""
        made, at = divmod(place, len(self._pool))
        if self._order[0] != made:
            generator = torch.Generator().manual_seed(step_seed(self._seed + 4, made))
            self._order = made, torch.randperm(len(self._pool), generator=generator)
        return int(self._order[1][at])


def step_seed(seed: int, step: int) -> int:
    """A seed for one step, so that a resumed run draws what an unbroken one would have drawn."""
    return (seed * 1_000_003 + step) % 2**63


def random_views_of(
    student: StudentNetwork,
    data: TrainingSet,
    positions: Sequence[int],
    recipe: Recipe,
    *,
    seed: tuple[int, ...],
    shard: slice = slice(None),
    views: Sequence[View] = (None,),
) -> Tensor:
    """Random views of each image of a shard, (views x n, 3, size, size), where the student is, view by view.

    What is drawn for an image is fixed by the seed, the view and the image's place among the positions.
    """
    size, first = student.preprocessing.image_size, reduce(step_seed, seed)
    pixels, aspects = data.images.load(positions[shard], round(size * _CROPPED_FROM))
    decoded, parts = torch.from_numpy(pixels), []
    on_device = decoded.to(student.device)
    for number, view in enumerate(views):
        drawn_by = first if not number else step_seed(first, number)
        seen = data.view or recipe.augmentation if view is None else view
        if not isinstance(seen, Augmentation):
            places = range(len(positions))[shard]
            parts.append(own_views(seen, decoded, places, seed=drawn_by, size=size).to(student.device))
            continue
        draws = AugmentationDraws.draw(len(positions), torch.Generator().manual_seed(drawn_by)).of(shard)
        squeezed = torch.from_numpy(aspects)
        parts.append(random_views(on_device, squeezed, draws, size=size, augmentation=seen))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def plain_batches(student: StudentNetwork, images: Images, positions: Sequence[int]) -> Iterator[Tensor]:
    """Batches of images as they are, resized and not augmented, uint8 (n, 3, size, size)."""
    for start in range(0, len(positions), BATCH):
        pixels, _ = images.load(positions[start : start + BATCH], student.preprocessing.image_size)
        yield torch.from_numpy(pixels).to(student.device).permute(0, 3, 1, 2)
