"""Every method on a toy problem: it learns, repeats itself, and trains only what it should."""

import copy
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from client.learning import recipe, stages
from client.learning.backbones import DEFAULT_BACKBONE
from client.learning.methods import METHODS
from client.learning.recipe import Recipe
from client.learning.stages import (
    align,
    align_features,
    class_scores,
    distill,
    pixel_batches,
    views_to_align,
)
from client.learning.student import StudentNetwork, bundled_teacher
from client.learning.training import Checkpoint, TrainingStep
from client.learning.training_set import TrainingSet
from client.learning.weight_selection import SelectedWeights
from tests.client.learning.toy_lessons import RECIPE, TINY, toy_lesson, using_threads
from tests.client.toy import make_folder

STUDENTS = {name: "open_clip:icon-clip" for name, method in METHODS.items() if method.projector == "own"}

# What differs from another method by a term of its loss, or by what it starts from.
NEIGHBOURS = (
    *("image-only", "text-only", "label-only", "no-align"),
    *("vl2v-sd-bought", "lp-ft", "rise", "unlimited", "kd"),
)

# Raw squared distances have steeper gradients than cosines; labels teach more slowly than embeddings.
RECIPES = {
    "simkd": replace(RECIPE, learning_rate=1e-4),
    "erm": replace(RECIPE, steps=28),
    "kd": replace(RECIPE, steps=28),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("stages") / "toy", images=14)


def _toy(folder: Path, name: str, backbone: str = TINY) -> tuple[StudentNetwork, TrainingSet]:
    student, data = toy_lesson(folder, name, student=STUDENTS.get(name, backbone))
    if METHODS[name].teacher == "twin":
        data = replace(data, teacher=copy.deepcopy(student).eval())
    return student, data


def _run(student: StudentNetwork, data: TrainingSet, name: str, recipe: Recipe = RECIPE) -> SelectedWeights:
    method = METHODS[name]
    kept = SelectedWeights({}, 0, 0)
    if method.aligns:
        views = align_features(student, data, recipe, seed=0)
        kept = align(student, data, views, method, recipe, seed=0)
    if method.trains:
        kept = distill(student, data, method, recipe, seed=0)[recipe.selection]
    return kept


def _state(student: StudentNetwork) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in student.state_dict().items()}


def _moved(before: dict[str, Tensor], student: StudentNetwork) -> set[str]:
    return {name for name, tensor in student.state_dict().items() if not torch.equal(before[name], tensor)}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in NEIGHBOURS else name for name in METHODS],
)
def test_every_method_learns_the_toy_and_leaves_frozen_what_it_should(folder: Path, name: str) -> None:
    student, data = _toy(folder, name, DEFAULT_BACKBONE)
    before = _state(student)
    taught_by = _state(data.teacher) if data.teacher else {}
    _run(student, data, name, RECIPES.get(name, RECIPE))
    accuracy = data.score_holdouts(class_scores(student, data.images, data.holdout)).accuracy
    assert accuracy >= 0.8, accuracy

    method = METHODS[name]
    trained = set(method.trains) | ({"projector"} if method.aligns else set())
    moved = _moved(before, student)
    assert {each.split(".")[0] for each in moved} == trained
    assert not moved & {each for each, _ in student.named_buffers()}
    first_layers = ("backbone.conv_stem", "backbone.blocks.0", "backbone.visual.trunk.conv_stem")
    assert not any(each.startswith(first_layers) for each in moved)
    if data.teacher is not None:
        assert not _moved(taught_by, data.teacher)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_run_repeats_itself_bit_for_bit(folder: Path, threads: int) -> None:
    recipe = replace(RECIPE, align_views=1, align_steps=3, steps=3, images_per_domain=2)
    states = []
    for _ in range(2):
        student, data = _toy(folder, "vl2v-adip")
        with using_threads(threads):
            _run(student, data, "vl2v-adip", recipe)
        states.append(_state(student))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_batch_made_by_two_threads_is_that_of_one(folder: Path) -> None:
    """What is drawn for an image does not depend on how many threads there are."""
    student, data = _toy(folder, "vl2v-adip")
    batches = []
    for threads in (1, 2):
        with using_threads(threads):
            batches.append(pixel_batches(student, data, RECIPE, seed=0)(3))
    for of_one, of_two in zip(*batches, strict=True):
        assert torch.equal(of_one, of_two)


def test_align_moves_the_projector_alone_and_distill_the_backbone_alone(folder: Path) -> None:
    student, data = _toy(folder, "vl2v-adip")
    method, recipe = METHODS["vl2v-adip"], replace(RECIPE, align_steps=6, steps=3)
    start = _state(student)
    align(student, data, align_features(student, data, recipe, seed=0), method, recipe, seed=0)
    assert _moved(start, student) == {"projector.weight", "projector.bias"}
    aligned = _state(student)
    distill(student, data, method, recipe, seed=0)
    moved = _moved(aligned, student)
    assert moved
    assert all(name.startswith("backbone.") for name in moved)
    assert not any(name.endswith(("running_mean", "running_var")) for name in moved)


def test_a_teacher_that_is_here_is_asked_about_every_view_of_the_align_stage(folder: Path) -> None:
    """A student that is the teacher itself has the answers as its features."""
    student, data = bundled_teacher(), _toy(folder, "unlimited")[1]
    recipe = replace(RECIPE, image_weight=0.3)
    answers = functional.normalize(align_features(student, data, recipe, seed=4), dim=2)
    targets = stages._view_targets(student, data, recipe, seed=4)
    torch.testing.assert_close(targets, data.targets[data.train] + 0.3 * answers)
    assert not torch.equal(answers[0], answers[1])


def test_a_local_teacher_sees_views_at_its_own_size(folder: Path) -> None:
    teacher = bundled_teacher()
    views = 255 * torch.rand(2, 3, 48, 48)
    enlarged = functional.interpolate(views, size=(64, 64), mode="bilinear", antialias=True)
    assert torch.equal(stages._answers(teacher, views), teacher.embed(enlarged))
    assert torch.equal(stages._answers(teacher, enlarged), teacher.embed(enlarged))


def test_aligning_lowers_the_loss(folder: Path) -> None:
    student, data = _toy(folder, "vl2v-adip")
    losses: list[float] = []
    views = align_features(student, data, RECIPE, seed=0)
    assert views.shape == (2, len(data.train), 256)
    align(
        student,
        data,
        views,
        METHODS["vl2v-adip"],
        RECIPE,
        seed=0,
        on_step=lambda progress: losses.append(progress.loss.item()),
    )
    assert losses[-1] < losses[0] - 0.3


@pytest.mark.parametrize("by", ["labelled", "mixed"])
def test_features_are_in_memory_once_each_batch_in_its_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """What the backbone makes of a batch is the place of its images in their view, ten times over."""
    monkeypatch.setattr(stages, "BATCH", 10)
    student, data = _toy(folder, "vl2v-adip")
    if by == "mixed":
        labels = data.labels.clone()
        labels[data.train[::3]] = -1
        data = replace(data, labels=labels)
    looked_at: list[Tensor] = []

    def features(pixels: Tensor) -> Tensor:
        looked_at.append(torch.arange(len(pixels)).reshape(-1, 1) + 10.0 * len(looked_at))
        return looked_at[-1].expand(-1, 10)

    monkeypatch.setattr(student, "features", features)
    recipe, made = replace(RECIPE, align_views=5), _Made()
    with made:
        views = align_features(student, data, recipe, seed=0)
    positions = data.views_aligned_on(5, 0)
    for number, seen in enumerate(positions):
        batches = [looked_at.pop(0) for _ in range(0, len(seen), 10)]
        assert torch.equal(views[number, : len(seen)], torch.cat(batches).expand(-1, 10))
        assert torch.equal(views[number, len(seen) :], views[number % 2, len(seen) :])
    assert (len(positions[2]) < len(positions[1])) == (by == "mixed")
    assert made.as_large_as(views.numel()) == 1


class _Made(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes which tensors are made, by their sizes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sizes: list[int] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            self._sizes.append(made.numel())
        return made

    def as_large_as(self, size: int) -> int:
        return self._sizes.count(size)


def test_unlabelled_images_are_aligned_on_in_fewer_views_than_labelled_ones(folder: Path) -> None:
    student, data = _toy(folder, "vl2v-adip")
    labels = data.labels.clone()
    labels[data.train[::3]] = -1
    mixed, count = replace(data, labels=labels), len(data.train)
    labelled = [position for position in data.train if labels[position] >= 0]
    recipe = replace(RECIPE, align_views=4)
    views = align_features(student, mixed, recipe, seed=0)
    assert views_to_align(recipe, mixed, 0) == 2 * count + 2 * len(labelled)
    assert mixed.aligned_on(0)[: len(labelled)] == labelled
    pairs = [torch.equal(views[a], views[b]) for a, b in ((0, 1), (0, 2), (1, 3))]
    assert not any(pairs)
    without = len(labelled)
    assert torch.equal(views[0, without:], views[2, without:])
    assert torch.equal(views[1, without:], views[3, without:])
    assert not torch.equal(views[0, without:], views[1, without:])
    nameless = replace(data, labels=torch.full_like(data.labels, -1))
    assert views_to_align(recipe, nameless, 0) == 4 * count


@pytest.mark.parametrize("name", ["linear-probe", "erm"])
def test_any_method_can_average_its_weights(folder: Path, name: str) -> None:
    student, data = _toy(folder, name)
    kept = _run(student, data, name, replace(RECIPE, selection="swad", align_steps=8, steps=8, evaluations=4))
    assert kept.first < kept.last <= 8


# How many of the 20 hold-outs of the one domain and of the 4 of the other are right at each evaluation. By
# the mean over all 24, the first state is the best, and SWAD takes the first three. By the mean over the two
# domains, the second is the best, and SWAD takes the last three.
_RIGHT = ((18, 1), (14, 4), (13, 4), (12, 4))


def _uneven(data: TrainingSet) -> TrainingSet:
    rows = [torch.nonzero(data.domains == domain).flatten().tolist() for domain in (0, 1)]
    return replace(data, holdout=rows[0][:20] + rows[1][:4])


def _scripted(data: TrainingSet) -> Iterator[Tensor]:
    """Class scores of the hold-outs at each evaluation."""
    labels = data.labels[data.holdout]
    for first, second in _RIGHT:
        right = (torch.arange(24) < first) | ((torch.arange(24) >= 20) & (torch.arange(24) < 20 + second))
        yield 10.0 * functional.one_hot(torch.where(right, labels, (labels + 1) % 3), 3)


@pytest.mark.parametrize("name", ["linear-probe", "erm", "vl2v-adip"])
@pytest.mark.parametrize(("selection", "kept"), [("best", (2, 2)), ("swad", (2, 4))])
def test_every_source_domain_counts_alike_in_the_choice_of_weights(
    folder: Path,
    name: str,
    selection: Literal["best", "swad"],
    kept: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    student, data = _toy(folder, name)
    data = _uneven(data)
    answers = _scripted(data)
    if name == "linear-probe":
        monkeypatch.setattr(student, "logits", lambda _: next(answers))
    else:
        monkeypatch.setattr(stages, "class_scores", lambda *_: next(answers))
    recipe = replace(RECIPE, selection=selection, align_steps=4, steps=4, evaluations=4)
    chosen = _run(student, data, name, recipe)
    assert (chosen.first, chosen.last) == kept
    assert next(answers, None) is None


class _StoppedError(Exception):
    """A run that a test has interrupted."""


@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.parametrize("name", ["vl2v-adip", "erm"])
def test_without_holdouts_a_student_ends_with_the_weights_of_the_last_step(
    folder: Path, name: str, interrupted: bool
) -> None:
    method, recipe = METHODS[name], replace(RECIPE, steps=4, evaluations=2)
    student, data = _toy(folder, name)
    data = replace(data, holdout=[])
    start, last = _state(student), {}
    saved: list[Checkpoint] = []

    def stop(checkpoint: Checkpoint) -> None:
        saved.append(copy.deepcopy(checkpoint))
        if interrupted:
            raise _StoppedError

    def on_step(progress: TrainingStep) -> None:
        if progress.step == recipe.steps:
            last.update(_state(student))

    with suppress(_StoppedError):
        kept = distill(
            student, data, method, recipe, seed=0, other_selections=["swad"], save=stop, on_step=on_step
        )
    if interrupted:
        student = _toy(folder, name)[0]
        kept = distill(
            student, data, method, recipe, seed=0, other_selections=["swad"], resume=saved[0], on_step=on_step
        )
    trained = {part.split(".")[0] for part in _moved(start, student)}
    assert trained == set(method.trains)
    for each, tensor in student.state_dict().items():
        assert torch.equal(tensor, last[each]), each
    for selected in kept.values():
        assert (selected.first, selected.last) == (4, 4)
        assert selected.state
        assert all(torch.equal(tensor, last[each]) for each, tensor in selected.state.items())


def test_selections_that_watch_the_same_steps_keep_what_each_would_keep_alone(folder: Path) -> None:
    recipe = replace(RECIPE, steps=8, evaluations=4)
    averaging = replace(recipe, selection="swad")
    student, data = _toy(folder, "erm")
    kept = distill(student, data, METHODS["erm"], recipe, seed=0, other_selections=["swad"])
    assert list(kept) == ["best", "swad"]

    alone = _toy(folder, "erm")[0]
    distill(alone, data, METHODS["erm"], recipe, seed=0)
    assert not _moved(_state(student), alone)

    averaged = _toy(folder, "erm")[0]
    distill(averaged, data, METHODS["erm"], averaging, seed=0)
    assert _moved(_state(student), averaged)
    given = _toy(folder, "erm")[0]
    given.load_state_dict(kept["swad"].state, strict=False)
    assert not _moved(_state(given), averaged)


def test_an_unlabelled_image_moves_the_student_towards_its_embedding_alone(folder: Path) -> None:
    student, data = _toy(folder, "vl2v-adip", DEFAULT_BACKBONE)
    generator = torch.Generator().manual_seed(0)
    known = functional.normalize(
        torch.randn(len(data.labels), data.targets.shape[1], generator=generator), dim=1
    )
    pool = data.train[::2]
    labels, domains, targets = data.labels.clone(), data.domains.clone(), data.targets.clone()
    labels[pool], domains[pool], targets[pool] = -1, -1, known[pool]
    mixed = replace(data, labels=labels, domains=domains, targets=targets)
    assert mixed.aligned_on(0) == [i for i in data.train if i not in pool] + pool
    views = align_features(student, mixed, RECIPE, seed=0)
    assert views.shape[:2] == (RECIPE.align_views, len(data.train))
    align(student, mixed, views, METHODS["vl2v-adip"], RECIPE, seed=0)
    with torch.no_grad():
        outputs = functional.normalize(student.projector(views.mean(0)), dim=1)
    own = (outputs[-len(pool) :] * known[pool]).sum(1)
    others = (outputs[-len(pool) :] @ known[pool].T).mean(1)
    assert (own > others + 0.1).float().mean() > 0.75
    assert own.mean() > others.mean() + 0.3


def test_few_of_many_unlabelled_images_are_aligned_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "_UNLABELLED_ALIGNED", 3)
    _, data = _toy(folder, "vl2v-adip")
    labels = data.labels.clone()
    labels[data.train[2:]] = -1
    mixed = replace(data, labels=labels)
    chosen = mixed.aligned_on(0)
    assert chosen[:2] == data.train[:2]
    assert len(chosen) == 2 + max(3, 2 * 2)
    assert chosen == mixed.aligned_on(0) != mixed.aligned_on(1)
