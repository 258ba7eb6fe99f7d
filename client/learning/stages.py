"""The stages of a method over one training set: align on frozen features, then distil on pixels."""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from client.errors import ClientError
from client.learning.methods import Loss, Method, View
from client.learning.processes import SINGLE_PROCESS, Processes
from client.learning.recipe import Recipe
from client.learning.scores import Score
from client.learning.student import StudentNetwork
from client.learning.supervision import Rows, each_of
from client.learning.training import Batch, Checkpoint, Schedule, Training, TrainingStep, moving_mean
from client.learning.training_set import (
    BATCH,
    UNLABELLED_VIEWS,
    DomainBatches,
    Images,
    TrainingSet,
    plain_batches,
    random_views_of,
    step_seed,
)
from client.learning.weight_selection import WEIGHT_SELECTIONS, LastWeights, SelectedWeights, SelectionGroup
from client.plugins import of_others


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
    student.eval()
    with torch.no_grad():
        return _of_views(student.features, student, data, recipe, seed=seed, on_image=on_image)


def _of_views(
    answer: Callable[[Tensor], Tensor],
    student: StudentNetwork,
    data: TrainingSet,
    recipe: Recipe,
    *,
    seed: int,
    on_image: Callable[[int], None] = lambda _: None,
) -> Tensor:
    """The result of `answer` for each random view that the projector is aligned on, on the CPU.

    Its shape is (views, images, d), and there is one copy of it in memory at any time. A view that leaves out
    the last images, which have no label, has those of an earlier one there.
    """
    positions = data.views_aligned_on(recipe.align_views, seed)
    rows, done = torch.empty(0), 0
    for view, seen in enumerate(positions):
        for start in range(0, len(seen), BATCH):
            chunk = seen[start : start + BATCH]
            views = random_views_of(student, data, chunk, recipe, seed=(seed + 2, view, start))
            answers = answer(views)
            if not done:
                rows = torch.empty(len(positions), len(seen), answers.shape[1], dtype=answers.dtype)
            rows[view, start : start + len(chunk)] = answers
            done += len(chunk)
            on_image(done)
        if view >= UNLABELLED_VIEWS:
            rows[view, len(seen) :] = rows[view % UNLABELLED_VIEWS, len(seen) :]
    return rows


def views_to_align(recipe: Recipe, data: TrainingSet, seed: int) -> int:
    """How many views `align_features` computes."""
    return sum(map(len, data.views_aligned_on(recipe.align_views, seed)))


def _view_targets(student: StudentNetwork, data: TrainingSet, recipe: Recipe, *, seed: int) -> Rows:
    """The targets of the views of `align_features`, shape (views, images, d).

    Where no teacher is asked about each view, it is the same of all views, shape (1, images, d).
    """
    positions = data.aligned_on(seed)
    fixed = each_of(data.targets, lambda rows: rows[positions].unsqueeze(0))
    teacher = data.teacher
    if teacher is None:
        return fixed
    answers = _of_views(lambda pixels: _answers(teacher, pixels), student, data, recipe, seed=seed)
    assert isinstance(fixed, Tensor)
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
    decides = not method.trains and bool(data.holdout)
    selection = WEIGHT_SELECTIONS[recipe.selection]() if decides else LastWeights()
    held_out = plain_features(student, data.images, data.holdout) if decides else torch.empty(0)

    def evaluate() -> Score:
        with torch.no_grad():
            return data.score_holdouts(student.logits(student.projector(held_out)).cpu())

    Training(
        student.projector,
        list(student.projector.parameters()),
        _feature_batches(student, data, views, recipe, seed=seed),
        _loss_on_features(student, data, method),
        Schedule(
            recipe.align_steps, recipe.align_learning_rate, recipe.evaluations, recipe.cosine, recipe.warmup
        ),
        evaluate=evaluate if decides else None,
        selection=selection,
    ).run(on_step=on_step)
    return selection.selected()


def _feature_batches(
    student: StudentNetwork, data: TrainingSet, views: Tensor, recipe: Recipe, *, seed: int
) -> Callable[[int], Batch]:
    """The align stage's batch of each step, counted from 0: features of a view of each image, and targets."""
    targets = _view_targets(student, data, recipe, seed=seed)
    draw = DomainBatches(
        data.domains[data.aligned_on(seed)],
        per_domain=recipe.align_images_per_domain,
        seed=seed,
        unlabelled=recipe.unlabelled_in_batch,
    )

    def batch_at(step: int) -> Batch:
        rows = draw(step)
        generator = torch.Generator().manual_seed(step_seed(seed + 1, step))
        view = torch.randint(len(views), rows.shape, generator=generator)
        seen = each_of(targets, lambda each: each[view % len(each), rows].to(student.device))
        return views[view, rows].to(student.device), seen

    return batch_at


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
    mixed_precision: bool = False,
) -> dict[str, SelectedWeights]:
    """Train what `method` trains on augmented pixels (paper, section 4.2, "Distill"), in place.

    The student ends with what the recipe's selection kept, by the hold-outs; without any, with its last
    state. Selections only watch, so the same steps also serve the `other_selections`. Returns what each of
    them kept.
    """

    average = moving_mean(student, method.average) if method.average else None
    scored = student if average is None else cast(StudentNetwork, average.module)

    def evaluate() -> Score:
        return data.score_holdouts(
            processes.map_sharded(data.holdout, lambda part: class_scores(scored, data.images, part))
        )

    names = [recipe.selection, *(name for name in other_selections if name != recipe.selection)]
    selection = SelectionGroup(names, has_holdouts=bool(data.holdout))
    Training(
        student,
        student.trainable(method.trains, frozen=recipe.frozen),
        pixel_batches(student, data, recipe, seed=seed, processes=processes, views=method.views),
        _loss(student, data, method),
        Schedule(recipe.steps, recipe.learning_rate, recipe.evaluations, recipe.cosine, recipe.warmup),
        seed=seed,
        evaluate=evaluate if data.holdout else None,
        selection=selection,
        processes=processes,
        views=len(method.views),
        average=average,
        average_teaches=method.teacher == "average",
        # A view of one's own draws by generators that all threads share.
        prepares_ahead=data.view is None and not any(map(callable, method.views)),
        mixed_precision=mixed_precision,
    ).run(resume=resume, save=save, on_step=on_step)
    return selection.selected_by_name()


def pixel_batches(
    student: StudentNetwork,
    data: TrainingSet,
    recipe: Recipe,
    *,
    seed: int,
    processes: Processes = SINGLE_PROCESS,
    views: Sequence[View] = (None,),
) -> Callable[[int], Batch]:
    """The distill stage's batch of each step, counted from 0: augmented pixels, view by view, and targets.

    Of several processes, each is given its shard of the batch, with the views that it would have in one.
    """
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
        pixels = random_views_of(
            student, data, rows.tolist(), recipe, seed=(seed + 3, step), shard=shard, views=views
        )
        targets = each_of(data.targets, lambda each: each[rows[shard]].to(student.device))
        if data.teacher is not None:
            answers = _answers(data.teacher, pixels[: len(rows[shard])])
            targets = each_of(targets, lambda each: each + recipe.image_weight * answers)
        return pixels, targets

    return batch_at


def _loss(student: StudentNetwork, data: TrainingSet, method: Method) -> Loss:
    """The method's loss as the loop calls it: of the student's outputs and the targets.

    It raises `ClientError` where the method's raises, or gives no number that depends on the outputs.
    """
    texts = () if data.texts is None else (data.texts.to(student.device),)

    def loss_of(outputs: Tensor, targets: Rows) -> Tensor:
        with of_others(f"The loss of {method.name}"):
            loss = method.loss(outputs, targets, *texts)
        if not isinstance(loss, Tensor) or loss.ndim or not loss.requires_grad:
            what = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise ClientError(
                f"The loss of {method.name} gives {what}: it has to give one number, a tensor of shape (), "
                "that depends on the outputs."
            )
        return loss

    return loss_of


def _loss_on_features(student: StudentNetwork, data: TrainingSet, method: Method) -> Loss:
    """The same in the align stage, whose features are of one view: it stands for all, and for the average."""
    loss_of, views = _loss(student, data, method), len(method.views)

    def loss_of_one(outputs: Tensor, targets: Rows) -> Tensor:
        seen = outputs if views == 1 else outputs.expand(views, -1, -1)
        if method.teacher == "average":
            targets = (*((targets,) if isinstance(targets, Tensor) else targets), seen.detach())
        return loss_of(seen, targets)

    return loss_of_one


def plain_features(
    student: StudentNetwork,
    images: Images,
    positions: Sequence[int],
) -> Tensor:
    """Features of images as they are, shape (positions, features), where the student is."""
    student.eval()
    with torch.no_grad():
        return torch.cat([student.features(pixels) for pixels in plain_batches(student, images, positions)])


@torch.inference_mode()
def class_scores(student: StudentNetwork, images: Images, positions: Sequence[int]) -> Tensor:
    """Class scores of images as they are (resized, not augmented), shape (positions, classes), on the CPU."""
    student.eval()
    batches = plain_batches(student, images, positions)
    return torch.cat([student.logits(student(pixels)).cpu() for pixels in batches])
