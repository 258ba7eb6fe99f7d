"""The stages of a method over one training set: align on frozen features, then train on pixels."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from client.learning.augmentation import AugmentationDraws, random_views
from client.learning.averaging import WEIGHT_SELECTIONS, Score, SelectedWeights, SelectionGroup
from client.learning.data_parallel import by_halves, using_threads
from client.learning.folding import fold_norms, folded_answers
from client.learning.methods import Loss, Method, TextLoss
from client.learning.processes import SINGLE_PROCESS, Processes
from client.learning.recipe import Recipe, unlabelled_aligned
from client.learning.student import StudentNetwork
from client.learning.training import (
    Batch,
    Checkpoint,
    DomainBatches,
    Schedule,
    TrainingStep,
    predict,
    score,
    step_seed,
    train,
)

_EVALUATION_BATCH = 128
# So many views of an unlabelled image do, beside labelled ones (benchmarks/notebook.md).
_UNLABELLED_VIEWS = 2
# Images are drawn from this much larger than the student's side, so that a random crop is hardly enlarged.
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
        targets: what the method's loss compares with, a row for each (methods.py).
        train: positions to train on.
        holdout: positions held out for selection.
        teacher: for a method that asks a model here about every view: that model. `targets` lack its part.
        texts: for a method whose loss takes texts: those of each class, shape (classes, 1 + styles, d).
    """

    images: Images
    labels: Tensor
    domains: Tensor
    targets: Tensor
    train: list[int]
    holdout: list[int]
    teacher: StudentNetwork | None = None
    texts: Tensor | None = None

    def score_holdouts(self, logits: Tensor) -> Score:
        """The score of class scores of the hold-outs, shape (holdouts, classes), as selections see it."""
        return score(logits, self.labels[self.holdout], self.domains[self.holdout])

    def aligned_on(self, seed: int) -> list[int]:
        """Positions that the projector is aligned on: those to train on, but of unlabelled images only some,
        drawn by the seed, for the projector needs few and their features take long.
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
        """The positions of `aligned_on` that are seen in each of so many views: the first has all of them.

        Unlabelled images beside labelled ones are seen in fewer views, and come last.
        """
        positions = self.aligned_on(seed)
        labelled = [position for position in positions if self.labels[position] >= 0]
        return [positions if view < _UNLABELLED_VIEWS or not labelled else labelled for view in range(views)]


def align_features(
    student: StudentNetwork,
    data: TrainingSet,
    recipe: Recipe,
    *,
    seed: int,
    on_image: Callable[[int], None] = lambda _: None,
) -> Tensor:
    """Features of `align_views` random views of each image of `aligned_on`, shape (views, images, features).

    The backbone is frozen while the projector is aligned, so it gives a view the same features at every step:
    they are computed once. Of unlabelled images the views repeat. `on_image` is called with the number of
    views done.
    """
    fold_norms(student.train().backbone, student.preprocessing.image_size)
    student.eval()
    with torch.no_grad(), folded_answers(student.backbone):
        return _of_views(
            lambda pixels: by_halves(student.features, pixels, module=student),
            student, data, recipe, seed=seed, on_image=on_image,
        )  # fmt: skip


def _of_views(
    answer: Callable[[Tensor], Tensor],
    student: StudentNetwork,
    data: TrainingSet,
    recipe: Recipe,
    *,
    seed: int,
    on_image: Callable[[int], None] = lambda _: None,
) -> Tensor:
    """What `answer` makes of each of the random views that the projector is aligned on, on the CPU.

    Its shape is (views, images, d), and there is one copy of it in memory at any time. A view that leaves out
    the last images, which have no label, has those of an earlier one there.
    """
    positions = data.views_aligned_on(recipe.align_views, seed)
    rows, done = torch.empty(0), 0
    for view, seen in enumerate(positions):
        for start in range(0, len(seen), _EVALUATION_BATCH):
            chunk = seen[start : start + _EVALUATION_BATCH]
            answers = answer(_augmented(student, data, chunk, recipe, seed=(seed + 2, view, start)))
            if not done:
                rows = torch.empty(len(positions), len(seen), answers.shape[1], dtype=answers.dtype)
            rows[view, start : start + len(chunk)] = answers
            done += len(chunk)
            on_image(done)
        if view >= _UNLABELLED_VIEWS:
            rows[view, len(seen) :] = rows[view % _UNLABELLED_VIEWS, len(seen) :]
    return rows


def views_to_align(recipe: Recipe, data: TrainingSet, seed: int) -> int:
    """How many views `align_features` computes."""
    return sum(map(len, data.views_aligned_on(recipe.align_views, seed)))


def _view_targets(student: StudentNetwork, data: TrainingSet, recipe: Recipe, *, seed: int) -> Tensor:
    """What the views of `align_features` are compared with, shape (views, images, d); one for all views
    where no teacher is asked about each."""
    positions = data.aligned_on(seed)
    fixed = data.targets[positions].unsqueeze(0)
    if data.teacher is None:
        return fixed
    teacher = data.teacher
    answers = _of_views(lambda pixels: _answers(teacher, pixels), student, data, recipe, seed=seed)
    return answers.mul_(recipe.image_weight).add_(fixed)


def _answers(teacher: StudentNetwork, pixels: Tensor) -> Tensor:
    """A local teacher's unit embeddings of views, which it is shown at its own size."""
    size = teacher.preprocessing.image_size
    if pixels.shape[-1] != size:
        pixels = functional.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
    return teacher.embed(pixels)


def align(
    student: StudentNetwork,
    data: TrainingSet,
    views: Tensor,
    method: Method,
    recipe: Recipe,
    *,
    seed: int,
    on_step: Callable[[TrainingStep], None] = lambda _: None,
) -> SelectedWeights:
    """Fit the projector on frozen features (paper, section 4.2, "Align"), in place.

    Its last state is kept if the backbone trains afterwards; where this is the only stage, the hold-outs
    choose, as they do in `distill`.

    Args:
        views: what `align_features` made of the training images, shape (views, images, features).
    """
    device = _device(student)
    draw = DomainBatches(
        data.domains[data.aligned_on(seed)],
        per_domain=recipe.align_images_per_domain,
        seed=seed,
        unlabelled=recipe.unlabelled_in_batch,
    )
    targets = _view_targets(student, data, recipe, seed=seed)

    def batch_at(step: int) -> Batch:
        rows = draw(step)
        generator = torch.Generator().manual_seed(step_seed(seed + 1, step))
        view = torch.randint(len(views), rows.shape, generator=generator)
        return views[view, rows].to(device), targets[view % len(targets), rows].to(device)

    def evaluate() -> Score:
        assert held_out is not None
        with torch.no_grad():
            logits = student.logits(student.projector(held_out))
        return data.score_holdouts(logits.cpu())

    decides = not method.trains and bool(data.holdout)
    held_out = plain_features(student, data.images, data.holdout) if decides else None
    schedule = Schedule(
        recipe.align_steps, recipe.align_learning_rate, recipe.evaluations, recipe.cosine, recipe.warmup
    )
    selection = WEIGHT_SELECTIONS[recipe.selection]() if held_out is not None else None
    with using_threads(1):  # steps are so short that several gain nothing, and wait for each other
        train(
            student.projector,
            list(student.projector.parameters()),
            batch_at,
            _loss(student, data, method),
            schedule,
            evaluate=evaluate if selection else None,
            selection=selection,
            on_step=on_step,
        )
    return selection.selected() if selection else SelectedWeights({}, recipe.align_steps, recipe.align_steps)


def distill(
    student: StudentNetwork,
    data: TrainingSet,
    method: Method,
    recipe: Recipe,
    *,
    seed: int,
    other_selections: Sequence[str] = (),
    resume: Checkpoint | None = None,
    save: Callable[[Checkpoint], None] = lambda _: None,
    on_step: Callable[[TrainingStep], None] = lambda _: None,
    processes: Processes = SINGLE_PROCESS,
) -> dict[str, SelectedWeights]:
    """Train what `method` trains on augmented pixels (paper, section 4.2, "Distill"), in place.

    The student ends with what the recipe's selection kept, by the hold-outs; without any, with its last
    state. Selections only watch, so the same steps also serve the `other_selections`; returned is what each
    of them kept.
    """

    def evaluate() -> Score:
        with folded_answers(student.backbone):
            scores = processes.map_sharded(
                data.holdout, lambda part: class_scores(student, data.images, part)
            )
        return data.score_holdouts(scores)

    schedule = Schedule(recipe.steps, recipe.learning_rate, recipe.evaluations, recipe.cosine, recipe.warmup)
    names = [recipe.selection, *(name for name in other_selections if name != recipe.selection)]
    selection = SelectionGroup(names, has_holdouts=bool(data.holdout))
    fold_norms(student.train().backbone, student.preprocessing.image_size)
    train(
        student,
        student.trainable(method.trains, frozen=recipe.frozen),
        batches_of(student, data, recipe, seed=seed, processes=processes),
        _loss(student, data, method),
        schedule,
        seed=seed,
        evaluate=evaluate if data.holdout else None,
        selection=selection,
        resume=resume,
        save=save,
        on_step=on_step,
        processes=processes,
    )
    return selection.selected_by_name()


def _loss(student: StudentNetwork, data: TrainingSet, method: Method) -> Loss:
    """The method's loss as the loop calls it: of the student's outputs and the targets."""
    if data.texts is None:
        return cast(Loss, method.loss)
    texts, loss = data.texts.to(_device(student)), cast(TextLoss, method.loss)
    return lambda outputs, targets: loss(outputs, targets, texts)


def plain_features(
    student: StudentNetwork,
    images: Images,
    positions: Sequence[int],
    on_image: Callable[[int], None] = lambda _: None,
) -> Tensor:
    """Features of images as they are, shape (positions, features), where the student is.

    `on_image` is called with the number of images done.
    """
    student.eval()
    parts: list[Tensor] = []
    with torch.no_grad():
        for pixels in _as_they_are(student, images, positions):
            parts.append(by_halves(student.features, pixels, module=student))
            on_image(sum(map(len, parts)))
    return torch.cat(parts)


def batches_of(
    student: StudentNetwork,
    data: TrainingSet,
    recipe: Recipe,
    *,
    seed: int,
    processes: Processes = SINGLE_PROCESS,
) -> Callable[[int], Batch]:
    """The distill stage's batch of each step, counted from 0: augmented pixels and targets.

    Of several processes, each is given its shard of the batch, with the views that it would have in one.
    """
    device = _device(student)
    draw = DomainBatches(
        data.domains[data.train],
        per_domain=recipe.images_per_domain,
        seed=seed,
        unlabelled=recipe.unlabelled_in_batch,
    )
    positions = torch.tensor(data.train)

    def batch_at(step: int) -> Batch:
        rows = positions[draw(step)]
        shard = processes.shard(len(rows))
        pixels = _augmented(student, data, rows.tolist(), recipe, seed=(seed + 3, step), shard=shard)
        rows = rows[shard]
        targets = data.targets[rows].to(device)
        if data.teacher is not None:
            targets = targets + recipe.image_weight * _answers(data.teacher, pixels)
        return pixels, targets

    return batch_at


def class_scores(student: StudentNetwork, images: Images, positions: Sequence[int]) -> Tensor:
    """Class scores of images as they are (resized, not augmented), shape (positions, classes), on the CPU."""
    return predict(student, _as_they_are(student, images, positions))


def _as_they_are(student: StudentNetwork, images: Images, positions: Sequence[int]) -> Iterator[Tensor]:
    """Batches of images, resized and not augmented, where the student is."""
    for start in range(0, len(positions), _EVALUATION_BATCH):
        chunk = positions[start : start + _EVALUATION_BATCH]
        pixels, _ = images.load(chunk, student.preprocessing.image_size)
        yield torch.from_numpy(pixels).to(_device(student)).permute(0, 3, 1, 2)


def _augmented(
    student: StudentNetwork,
    data: TrainingSet,
    positions: Sequence[int],
    recipe: Recipe,
    *,
    seed: tuple[int, ...],
    shard: slice = slice(None),
) -> Tensor:
    """A random view of each image of a shard, shape (n, 3, size, size), where the student is.

    What is drawn for an image is fixed by the seed and its place among the positions.
    """
    size = student.preprocessing.image_size
    pixels, aspects = data.images.load(positions[shard], round(size * _CROPPED_FROM))
    generator = torch.Generator().manual_seed(reduce(step_seed, seed))
    draws = AugmentationDraws.draw(len(positions), generator).of(shard)

    def views(pixels: Tensor, aspects: Tensor, rows: Tensor) -> Tensor:
        return random_views(pixels, aspects, draws.of(rows), size=size, augmentation=recipe.augmentation)

    images = torch.from_numpy(pixels).to(_device(student))
    return by_halves(views, images, torch.from_numpy(aspects), torch.arange(len(images)))


def _device(student: StudentNetwork) -> torch.device:
    return next(student.parameters()).device
