"""How fast the stages are: align on features computed once, and the loop against one that is given tensors.

    make bench-training

On the bundled icons with `emoji` left out, the default student at the side of the accuracy tables, and a
teacher made of random numbers around each class (what it says does not matter to the clock). Prints the
tables of docs/results.md.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.accuracy import IMAGE_SIZE, icons
from benchmarks.vendor import finish
from client.data.domains import list_folder
from client.data.pixels import PixelStore
from client.data.splits import split
from client.learning.backbones import DEFAULT_BACKBONE, load_backbone
from client.learning.methods import METHODS
from client.learning.methods.vl2v import cosine_loss
from client.learning.recipe import PAPER, Recipe
from client.learning.stages import align, align_features, distill, pixel_batches
from client.learning.student import StudentNetwork, build_student
from client.learning.supervision import Supervision
from client.learning.training import TrainingStep
from client.learning.training_set import TrainingSet

T = TypeVar("T")
METHOD = METHODS["vl2v-adip"]
DIMENSIONS, SEED = 256, 0


def main() -> None:
    """Measure both, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--align-steps", type=int, default=PAPER.align_steps, help="of the procedure a step at a time"
    )
    parser.add_argument(
        "--distill-steps", type=int, default=30, help="of a round; there are four of each loop"
    )
    parser.add_argument(
        "--images-per-domain",
        type=int,
        default=Recipe().images_per_domain,
        help="of each of four styles in a batch; 12 makes it as large as with images without labels",
    )
    arguments = parser.parse_args()
    with TemporaryDirectory() as scratch:
        data = training_set(Path(scratch))
        print(
            f"{len(data.train)} images to train on, {torch.get_num_threads()} threads, "
            f"torch {torch.__version__}\n"
        )
        if arguments.distill_steps:
            recipe = Recipe(images_per_domain=arguments.images_per_domain)
            compare_loops(data, replace(recipe, steps=arguments.distill_steps, evaluations=1))
        if arguments.align_steps:
            compare_aligning(data, arguments.align_steps)


def training_set(scratch: Path) -> TrainingSet:
    """The icons of four styles, decoded below `scratch`, with a made-up teacher's targets."""
    folder = list_folder(icons())
    domains = folder.source_domains("emoji")
    examples, _ = folder.read(domains)
    train, holdout = split(examples, holdout=0.2, seed=SEED)
    labels = torch.tensor([example.label for example in examples])
    generator = torch.Generator().manual_seed(SEED)
    texts = functional.normalize(torch.randn(len(folder.classes), DIMENSIONS, generator=generator), dim=1)
    noise = 0.06 * torch.randn(len(labels), DIMENSIONS, generator=generator)
    images = functional.normalize(texts[labels] + noise, dim=1)
    return TrainingSet(
        images=PixelStore(examples, scratch / "pixels"),
        labels=labels,
        domains=torch.tensor([domains.index(example.domain) for example in examples]),
        targets=METHOD.targets(
            Supervision(labels, texts, images, torch.ones(len(labels), dtype=torch.bool), image_weight=0.5)
        ),
        train=train,
        holdout=holdout,
    )


def student(data: TrainingSet, device: str = "cpu") -> StudentNetwork:
    """The default student, always the same."""
    torch.manual_seed(SEED)
    classes = int(data.labels.max()) + 1
    text_head = functional.normalize(torch.randn(classes, DIMENSIONS), dim=1)
    return build_student(
        load_backbone(DEFAULT_BACKBONE), outputs=DIMENSIONS, text_head=text_head, image_size=IMAGE_SIZE
    ).to(device)


def in_training(learner: StudentNetwork) -> list[Tensor]:
    """Have a student train what the default recipe trains, which is returned."""
    learner.requires_grad_(False).train()
    return [p.requires_grad_(True) for p in learner.trainable(METHOD.trains, frozen=Recipe().frozen)]


# -- distill


def compare_loops(data: TrainingSet, recipe: Recipe, device: str = "cpu") -> None:
    """Images a second of the distill stage and of a bare loop over tensors in memory, taking turns."""
    images = recipe.steps * recipe.images_per_domain * len(set(data.domains.tolist()))
    ours, bare, ratios = [], [], []
    for turn in range(5):
        pair = (
            images / seconds_of_distill(data, recipe, device),
            images / seconds_of_bare_loop(data, recipe, device),
        )
        if turn:  # the first decodes images and warms up
            ours.append(pair[0])
            bare.append(pair[1])
            ratios.append(pair[0] / pair[1])
    print("| loop | images a second |\n|---|---|")
    print(f"| bare, over tensors in memory | {median(bare):.0f} |")
    print(f"| `client distill`, from decoded files and with augmentation | {median(ours):.0f} |")
    print(f"\nMedian ratio of neighbours: {median(ratios):.2f} (of {len(ratios)}: {spread(ratios)}).\n")


def seconds_of_distill(data: TrainingSet, recipe: Recipe, device: str) -> float:
    """From the first step to the last, without evaluation."""
    clock: list[float] = []
    learner = student(data, device)

    def tick(progress: TrainingStep) -> None:
        if progress.score is None:
            if progress.step in (1, recipe.steps - 1):
                finish(torch.device(device))
            clock.append(time.perf_counter())

    distill(learner, data, METHOD, recipe, seed=SEED, on_step=tick)
    return (clock[-1] - clock[0]) / (len(clock) - 1) * recipe.steps


def seconds_of_bare_loop(data: TrainingSet, recipe: Recipe, device: str) -> float:
    """The same model, optimiser and batches, the batches augmented beforehand."""
    learner = student(data, device)
    batch_at = pixel_batches(learner, data, recipe, seed=SEED)
    batches = [batch_at(step) for step in range(8)]
    optimiser = torch.optim.Adam(in_training(learner), lr=recipe.learning_rate, fused=True)
    started = 0.0
    for step in range(recipe.steps):
        if step == 1:
            finish(torch.device(device))
            started = time.perf_counter()
        pixels, targets = batches[step % len(batches)]
        loss = cosine_loss(learner(pixels), targets)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    finish(torch.device(device))
    return (time.perf_counter() - started) / (recipe.steps - 1) * recipe.steps


# -- align


@dataclass(frozen=True)
class Aligned:
    """What a way to align took, and the loss it reached on views that it had not been shown."""

    steps: int
    features: float
    fitting: float
    loss: float


def compare_aligning(data: TrainingSet, steps: int) -> None:
    """Features once and then the projector, against a backbone that is run at every step."""
    fresh = fresh_features(data)
    once = on_features(data, fresh)
    print("| align | steps | features (s) | fitting (s) | loss on fresh views |\n|---|---|---|---|---|")
    print(f"| on features of {Recipe().align_views} views | {row(once)}", flush=True)
    rates = {"the published rate": PAPER.align_learning_rate, "our rate": Recipe().align_learning_rate}
    for stepped in step_by_step(data, steps, list(rates.values()), fresh):
        for name, way in zip(rates, stepped, strict=True):
            print(f"| a fresh view at every step, {name} | {row(way)}", flush=True)
    all_steps = PAPER.align_steps / way.steps * way.fitting
    print(
        f"\n{PAPER.align_steps} steps with fresh views take {all_steps:.0f} s: fitting is "
        f"{all_steps / once.fitting:.0f} times faster once the features exist, "
        f"{all_steps / (once.features + once.fitting):.0f} times with them."
    )


def row(way: Aligned) -> str:
    """The numbers of a way to align, as the rest of a table's row."""
    return f"{way.steps} | {way.features:.1f} | {way.fitting:.1f} | {way.loss:.4f} |"


def fresh_features(data: TrainingSet) -> Tensor:
    """Features of two further views of every training image."""
    return align_features(student(data), data, replace(Recipe(), align_views=2), seed=SEED + 100)


def loss_of(learner: StudentNetwork, data: TrainingSet, views: Tensor) -> float:
    """Of the projector, over all of these views."""
    with torch.no_grad():
        losses = [cosine_loss(learner.projector(view), data.targets[data.train]) for view in views]
    return torch.stack(losses).mean().item()


def on_features(data: TrainingSet, fresh: Tensor) -> Aligned:
    """The align stage of the default recipe."""
    learner, recipe = student(data), Recipe()
    views, features = timed(lambda: align_features(learner, data, recipe, seed=SEED))
    _, fitting = timed(lambda: align(learner, data, views, METHOD, recipe, seed=SEED))
    return Aligned(recipe.align_steps, features, fitting, loss_of(learner, data, fresh))


def step_by_step(
    data: TrainingSet, steps: int, rates: Sequence[float], fresh: Tensor
) -> Iterator[list[Aligned]]:
    """The published procedure, a fresh view of every image of a batch through the backbone at every step; how
    it stands at each of these constant rates after every thousand steps. Batches are ours, a quarter of the
    published ones; the projectors share what the backbone says, and each is charged for it."""
    learners = [student(data) for _ in rates]
    batch_at = pixel_batches(learners[0], data, Recipe(), seed=SEED)
    optimisers = []
    for learner, rate in zip(learners, rates, strict=True):
        learner.requires_grad_(False).eval()
        parameters = [p.requires_grad_(True) for p in learner.projector.parameters()]
        optimisers.append(torch.optim.Adam(parameters, lr=rate, fused=True))

    def seen(step: int) -> tuple[Tensor, Tensor]:
        pixels, targets = batch_at(step)
        with torch.no_grad():
            return learners[0].features(pixels), targets

    def fit(
        learner: StudentNetwork, optimiser: torch.optim.Optimizer, features: Tensor, targets: Tensor
    ) -> None:
        loss = cosine_loss(learner.projector(features), targets)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    spent = [0.0] * len(rates)
    for step in range(steps):
        (features, targets), looking = timed(partial(seen, step))
        for place, (learner, optimiser) in enumerate(zip(learners, optimisers, strict=True)):
            _, fitting = timed(partial(fit, learner, optimiser, features, targets))
            spent[place] += looking + fitting
        if (step + 1) % 1000 == 0 or step + 1 == steps:
            yield [
                Aligned(step + 1, 0.0, taken, loss_of(learner, data, fresh))
                for learner, taken in zip(learners, spent, strict=True)
            ]


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """What a call returns, and its seconds."""
    started = time.perf_counter()
    return call(), time.perf_counter() - started


def spread(numbers: list[float]) -> str:
    """The lowest and the highest."""
    return f"{min(numbers):.2f} to {max(numbers):.2f}"


if __name__ == "__main__":
    main()
