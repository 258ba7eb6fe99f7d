"""A teacher that sees every toy picture close to its class text, and what a method makes of it."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from client.data.listing import list_folder
from client.data.pixels import PixelStore
from client.data.splits import split
from client.learning.backbones import load_backbone
from client.learning.methods import METHODS
from client.learning.recipe import Augmentation, Recipe
from client.learning.student import StudentNetwork, build_student, bundled_teacher
from client.learning.supervision import Supervision
from client.learning.training_set import TrainingSet
from tests.client.toy import tiny_backbone

RECIPE = replace(
    Recipe(),
    augmentation=Augmentation(style=0.0),  # a few steps on a few tiny pictures
    align_views=2,
    align_steps=150,
    align_images_per_domain=16,
    align_learning_rate=3e-3,
    steps=16,
    images_per_domain=4,
    learning_rate=1e-3,
    evaluations=1,
)
TINY = "test_efficientnet"  # not trained yet
DIMENSIONS = 16
SIDE = 48


@contextmanager
def using_threads(count: int) -> Iterator[None]:
    """Have PyTorch compute with this many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def unit(rows: int, seed: int, dimensions: int = DIMENSIONS) -> Tensor:
    """Random unit vectors, shape (rows, dimensions)."""
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(rows, dimensions, generator=generator), dim=1)


@cache
def _backbone(student: str) -> nn.Module:
    return tiny_backbone(SIDE) if student == TINY else load_backbone(student, image_size=SIDE)


def toy_lesson(folder: Path, name: str, *, student: str = TINY) -> tuple[StudentNetwork, TrainingSet]:
    """The student before training, and its training set; one image in five was not bought."""
    method = METHODS[name]
    examples, _ = list_folder(folder).read(["dark", "light"])
    train, holdout = split(examples, holdout=0.2, seed=0)
    labels = torch.tensor([example.label for example in examples])
    backbone = copy.deepcopy(_backbone(student))
    own = method.projector == "own"
    asked = bundled_teacher() if method.teacher == "bundled" else None
    dimensions = int(backbone.num_features) if own else DIMENSIONS  # type: ignore[arg-type]
    if asked is not None:
        dimensions = int(asked.backbone.num_features)  # type: ignore[arg-type]
    text_head = unit(3, 1, dimensions)
    images = functional.normalize(text_head[labels] + 0.3 * unit(len(labels), 2, dimensions), dim=1)
    bought = torch.arange(len(labels)) % 5 > 0
    styled = unit(3 * 2, 3, dimensions).reshape(3, 2, dimensions)
    styled = functional.normalize(text_head.unsqueeze(1) + 0.5 * styled, dim=2)
    known = Supervision(labels, text_head, images, bought, RECIPE.image_weight, styled)
    torch.manual_seed(0)
    by_texts = method.head != "linear"
    built = build_student(
        backbone,
        outputs=dimensions if by_texts else 3,
        text_head=text_head if by_texts else None,
        image_size=SIDE,
        own_projector=own,
        trains_texts=method.head == "tuned",
    )
    return built, TrainingSet(
        images=PixelStore(examples, folder.parent / "pixels"),
        labels=labels,
        domains=torch.tensor([example.domain == "light" for example in examples]).long(),
        targets=method.targets(known),
        train=train,
        holdout=holdout,
        teacher=asked,
        texts=method.texts_of_loss(known),
    )
