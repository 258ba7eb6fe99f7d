"""Align and distill on a toy problem: they learn, repeat themselves, and train only what they should."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from client.data.domains import list_folder, split
from client.data.images import PixelStore
from client.learning.losses import teacher_targets
from client.learning.methods import METHODS
from client.learning.recipe import Recipe
from client.learning.stages import TrainingSet, align, align_features, class_scores, distill
from client.learning.student import Student, build_student, load_backbone
from client.learning.training import score
from tests.client.toy import make_folder

RECIPE = replace(
    Recipe(),
    align_views=2,
    align_steps=40,
    align_images_per_domain=16,
    steps=40,
    images_per_domain=16,
    learning_rate=5e-4,
    evaluations=2,
)
DIMENSIONS = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("stages") / "toy", images=14)


def _unit(rows: int, seed: int) -> Tensor:
    return functional.normalize(
        torch.randn(rows, DIMENSIONS, generator=torch.Generator().manual_seed(seed)), dim=1
    )


def _toy(folder: Path, method: str) -> tuple[Student, TrainingSet]:
    """A teacher that sees every image close to its class text, and the student before training."""
    examples, _ = list_folder(folder).read(["dark", "light"])
    train, holdout = split(examples, holdout=0.2, seed=0)
    labels = torch.tensor([example.label for example in examples])
    text_head = _unit(3, seed=1)
    images = functional.normalize(text_head[labels] + 0.3 * _unit(len(labels), seed=2), dim=1)
    taught = METHODS[method].uses_teacher
    everything = torch.ones(len(labels), dtype=torch.bool)
    torch.manual_seed(0)
    student = build_student(
        load_backbone("efficientnet_lite0"),
        outputs=DIMENSIONS if taught else 3,
        text_head=text_head if taught else None,
        image_size=48,
    )
    return student, TrainingSet(
        images=PixelStore([example.path for example in examples], short_side=40),
        labels=labels,
        domains=torch.tensor([example.domain == "light" for example in examples]).long(),
        targets=teacher_targets(images, everything, text_head[labels], image_weight=0.5)
        if taught
        else labels,
        train=train,
        holdout=holdout,
    )


def _run(folder: Path, method: str) -> tuple[Student, TrainingSet]:
    student, data = _toy(folder, method)
    chosen = METHODS[method]
    if chosen.aligns:
        align(student, data, align_features(student, data, RECIPE, seed=0), chosen, RECIPE, seed=0)
    distill(student, data, chosen, RECIPE, seed=0)
    return student, data


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_learns_the_toy_and_repeats_itself(folder: Path, method: str) -> None:
    student, data = _run(folder, method)
    accuracy = score(class_scores(student, data.images, data.holdout), data.labels[data.holdout]).accuracy
    assert accuracy >= 0.8, accuracy
    again, _ = _run(folder, method)
    assert all(torch.equal(a, b) for a, b in zip(student.parameters(), again.parameters(), strict=True))


def test_align_moves_the_projector_alone_and_distill_the_backbone_alone(folder: Path) -> None:
    student, data = _toy(folder, "vl2v-adip")
    method = METHODS["vl2v-adip"]
    start = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    align(student, data, align_features(student, data, RECIPE, seed=0), method, RECIPE, seed=0)
    aligned = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    assert {name for name in start if not torch.equal(start[name], aligned[name])} == {
        "projector.weight",
        "projector.bias",
    }
    distill(student, data, method, RECIPE, seed=0)
    moved = {name for name, tensor in student.state_dict().items() if not torch.equal(aligned[name], tensor)}
    assert moved
    assert all(name.startswith("backbone.") for name in moved)
    assert not any(name.endswith(("running_mean", "running_var")) for name in moved)


def test_aligning_lowers_the_loss(folder: Path) -> None:
    student, data = _toy(folder, "vl2v-adip")
    losses: list[float] = []
    views = align_features(student, data, RECIPE, seed=0)
    assert views.shape == (2, len(data.train), 1280)
    align(
        student, data, views, METHODS["vl2v-adip"], RECIPE, seed=0, on_step=lambda p: losses.append(p.loss)
    )  # fmt: skip
    assert losses[-1] < losses[0] - 0.3
