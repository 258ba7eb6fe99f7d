"""How long a run would train here: a few images of noise go through its student, and count for all."""

import time
from dataclasses import dataclass
from functools import lru_cache

import torch

from client.errors import ClientError
from client.learning.augmentation import AugmentationDraws, random_views
from client.learning.backbones import empty_backbone
from client.learning.methods import method_of
from client.learning.recipe import Augmentation, Recipe, unlabelled_aligned
from client.learning.student import build_student
from client.learning.training_set import UNLABELLED_VIEWS
from client.runs.config import RunConfig
from client.runs.dataset import Dataset
from client.runs.trainer import is_mixed, tensor_cores

_IMAGES, _DIMENSIONS, _CLASSES = 8, 512, 10


@dataclass(frozen=True)
class Pace:
    """Seconds that an image takes: to be looked at, and to be learnt from."""

    looking: float
    learning: float


def training_seconds(
    config: RunConfig, dataset: Dataset, recipe: Recipe, *, unlabelled: int, device: str
) -> float | None:
    """About how long both stages take; `None` of a student that is not built by its name alone.

    Args:
        config: the run.
        dataset: its images.
        recipe: its recipe, settled.
        unlabelled: how many images without labels it learns from.
        device: where it trains.
    """
    try:
        pace = _pace(
            config.student, config.image_size, recipe.frozen, recipe.augmentation,
            is_mixed(config, torch.device(device)), device,
        )  # fmt: skip
    except (ClientError, ValueError):
        return None
    method, labelled, domains = method_of(config.method), len(dataset.train), len(dataset.taught_domains)
    seconds = 0.0
    if method.aligns:
        without = UNLABELLED_VIEWS if labelled else recipe.align_views
        views = recipe.align_views * labelled
        views += min(without, recipe.align_views) * min(unlabelled, unlabelled_aligned(labelled))
        seconds += views * pace.looking
    if method.trains:
        batch = recipe.images_per_domain * domains
        batch += recipe.unlabelled_in_batch(recipe.images_per_domain, domains) if unlabelled else 0
        seconds += recipe.steps * batch * len(method.views) * pace.learning
        seconds += recipe.evaluations * len(dataset.holdout) * pace.looking
    return seconds


@lru_cache
def _pace(
    student: str, image_size: int, frozen: float, augmentation: Augmentation, mixed: bool, device: str
) -> Pace:
    """The pace of a student without its weights, on which it does not depend.

    Raises:
        ClientError: it cannot be built.
        ValueError: it cannot be built by its name alone.
    """
    with torch.random.fork_rng(devices=[]), tensor_cores(torch.device(device)):
        texts = torch.eye(_CLASSES, _DIMENSIONS)
        backbone = empty_backbone(student, image_size=image_size)
        network = build_student(backbone, outputs=_DIMENSIONS, text_head=texts, image_size=image_size)
        network = network.to(device).requires_grad_(False).train()
        for parameter in network.trainable(frozenset({"backbone"}), frozen=frozen):
            parameter.requires_grad_(True)
        images = torch.zeros(_IMAGES, image_size, image_size, 3, dtype=torch.uint8, device=device)
        draws = AugmentationDraws.draw(_IMAGES, torch.Generator().manual_seed(0))

        def seconds(*, learns: bool) -> float:
            started = time.perf_counter()
            views = random_views(
                images, torch.ones(_IMAGES), draws, size=image_size, augmentation=augmentation
            )
            with (
                torch.set_grad_enabled(learns),
                torch.autocast(images.device.type, torch.bfloat16, enabled=mixed),
            ):
                found = network(views).float().sum()
            if learns:
                found.backward()
            found.item()  # waits for the device
            return (time.perf_counter() - started) / _IMAGES

        seconds(learns=True)  # the first time is longer
        return Pace(looking=seconds(learns=False), learning=seconds(learns=True))
