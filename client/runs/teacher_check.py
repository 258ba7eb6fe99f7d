"""How right a teacher is, by the labels of the images that were bought of it."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from client.learning.methods import method_of
from client.learning.supervision import Supervision
from client.learning.teacher_weights import (
    ENOUGH_LABELS,
    LEARNT_FROM,
    TRUSTED,
    Agreement,
    Named,
    agreement,
    doubtful_classes,
    named_by_images,
    unnamed,
)
from client.purchase.buyer import Buyer
from client.results.intervals import images_to_tell
from client.results.records import TeacherCheck, ZeroShotAccuracy
from client.runs.config import RunConfig
from client.runs.dataset import Dataset
from client.runs.supervision import known_of
from client.runs.teacher_queries import teacher_queries

# With fewer images of a domain, its share of right answers tells too little.
FEWEST = 20


@dataclass(frozen=True)
class Checked:
    """The verdict of the labels on a teacher.

    Attributes:
        check: how right it is on the labelled images that were bought; `None` where these are too few.
        named: what is known, with other names for the classes of `check.named_by_images` where the run
            weighs its teacher.
        doubtful: which classes those of `check.doubtful` are, shape (classes,), bool.
    """

    check: TeacherCheck | None
    named: Named
    doubtful: Tensor

    @property
    def accuracy(self) -> float | None:
        """How right it is by these names, which `check.accuracy` is by the class texts; `None` where the
        images are too few.
        """
        return None if self.check is None else self.check.accuracy_by_names


def check_teacher(config: RunConfig, dataset: Dataset, known: Supervision) -> Checked:
    """Hold what a run knows of its teacher against the labels."""
    agreed = agreement(unnamed(known))
    if len(agreed.positions) < FEWEST:
        nothing = unnamed(known)
        return Checked(None, nothing, torch.zeros_like(nothing.classes))
    by_domain = right_by_domain(dataset, agreed)
    accuracy = _mean(by_domain)
    trusted = accuracy >= TRUSTED
    named = named_by_images(known, trusted=trusted)
    agreed_by_names = agreement(named)
    doubtful = doubtful_classes(named.known, agreed_by_names, trusted=trusted)
    method, recipe = method_of(config.method), config.recipe
    by_names = right_by_domain(dataset, agreed_by_names) if recipe.weigh_teacher else by_domain
    check = TeacherCheck(
        accuracy=accuracy,
        by_domain=by_domain,
        gap=float(agreed.gaps.mean()),
        trusted=trusted,
        learnt_from=not recipe.weigh_teacher
        or method.needs_teacher
        or len(dataset.train) < ENOUGH_LABELS * len(dataset.classes)
        or _at_most(by_names) >= LEARNT_FROM,
        doubtful=list(compress(dataset.classes, doubtful.tolist())),
        named_by_images=list(compress(dataset.classes, named.classes.tolist())),
        accuracy_by_names=_mean(by_names),
        by_class=_right_by_class(dataset, agreed_by_names if recipe.weigh_teacher else agreed),
        more_to_settle=_more_to_settle(dataset, by_names),
    )
    return Checked(check, named if recipe.weigh_teacher else unnamed(known), doubtful)


def is_guessing(check: TeacherCheck, *, classes: int) -> bool:
    """Whether a teacher is right by the class texts no more often than chance explains (95%, one-sided)."""
    images = sum(each.images for each in check.by_domain.values())
    right = sum(each.accuracy * each.images for each in check.by_domain.values()) / images
    chance = 1 / classes
    return classes > 1 and right <= chance + 1.645 * math.sqrt(chance * (1 - chance) / images)


def named_teacher(
    config: RunConfig, dataset: Dataset, teacher: Buyer, *, folder: Path | None = None
) -> Named | None:
    """What a run has bought of its teacher, with the names for classes by which its student learnt.

    `None` while a class prompt is missing. `folder` is that of `known_of`.
    """
    known, _ = known_of(config, dataset, teacher_queries(config, dataset), teacher, folder=folder)
    return None if known is None else check_teacher(config, dataset, known).named


def right_by_domain(dataset: Dataset, agreed: Agreement) -> dict[str, ZeroShotAccuracy]:
    """How often the teacher is right about the training images that were bought, by domain."""
    right = _right_by(agreed, lambda position: dataset.examples[position].domain)
    return {
        name: ZeroShotAccuracy(accuracy=fmean(answers), images=len(answers), on_test_set=False)
        for name, answers in right.items()
    }


def _right_by_class(dataset: Dataset, agreed: Agreement) -> dict[str, float]:
    right = _right_by(agreed, lambda position: dataset.classes[dataset.examples[position].label])
    return {name: round(fmean(answers), 4) for name, answers in right.items()}


def _right_by(agreed: Agreement, name_of: Callable[[int], str]) -> dict[str, list[bool]]:
    """Whether the teacher is right about each image, by the names that the images go by."""
    right: dict[str, list[bool]] = defaultdict(list)
    for position, is_right in zip(agreed.positions.tolist(), agreed.right.tolist(), strict=True):
        right[name_of(position)].append(is_right)
    return dict(sorted(right.items()))


def _more_to_settle(dataset: Dataset, by_domain: Mapping[str, ZeroShotAccuracy]) -> int | None:
    """How many more images would tell what is decided by a share; `None` for more than there are."""
    share, bought = _mean(by_domain), sum(each.images for each in by_domain.values())
    needed = max(images_to_tell(share, bought, line) for line in (LEARNT_FROM, TRUSTED))
    return math.ceil(needed) - bought if needed <= len(dataset.train) else None


def _mean(by_domain: Mapping[str, ZeroShotAccuracy]) -> float:
    return fmean(each.accuracy for each in by_domain.values())


def _at_most(by_domain: Mapping[str, ZeroShotAccuracy]) -> float:
    """A bound of the mean over domains, were all images asked about: 95%, one-sided.

    An answer varies as the mean does: by its own share, a domain of one image would not vary at all.
    """
    share, domains = _mean(by_domain), len(by_domain)
    variances = [share * (1 - share) / each.images for each in by_domain.values()]
    return share + 1.645 * math.sqrt(sum(variances)) / domains
