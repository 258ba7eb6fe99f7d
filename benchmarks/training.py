"""How fast the loop of `distill` is beside a bare one, and what keeping decoded pixels saves.

    make bench-training

On the bundled icons with `emoji` left out, the default student at the side of the accuracy tables, and a
teacher made of random numbers around each class (what it says does not matter to the clock).
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.runs import IMAGE_SIZE, icons
from client.data.listing import list_folder
from client.data.pixels import PixelStore
from client.data.splits import split
from client.learning.backbones import DEFAULT_BACKBONE, load_backbone
from client.learning.methods import METHODS
from client.learning.methods.vl2v import cosine_loss
from client.learning.recipe import Recipe
from client.learning.stages import distill, pixel_batches
from client.learning.student import StudentNetwork, build_student
from client.learning.supervision import Supervision
from client.learning.training import TrainingStep
from client.learning.training_set import TrainingSet

METHOD = METHODS["vl2v-adip"]
DIMENSIONS, SEED, BATCH = 256, 0, 32


def main() -> None:
    """Measure both, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30, help="of a round; there are four of each loop")
    steps = parser.parse_args().steps
    with TemporaryDirectory() as scratch:
        data = training_set(Path(scratch))
        print(f"{len(data.train)} images to train on, {torch.get_num_threads()} threads\n")
        compare_loops(data, replace(Recipe(), steps=steps, evaluations=1))
        compare_reading(Path(scratch))


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


def student(data: TrainingSet) -> StudentNetwork:
    """The default student, always the same."""
    torch.manual_seed(SEED)
    classes = int(data.labels.max()) + 1
    text_head = functional.normalize(torch.randn(classes, DIMENSIONS), dim=1)
    return build_student(
        load_backbone(DEFAULT_BACKBONE), outputs=DIMENSIONS, text_head=text_head, image_size=IMAGE_SIZE
    )


def in_training(learner: StudentNetwork) -> list[Tensor]:
    """Have a student train what the default recipe trains, which is returned."""
    learner.requires_grad_(False).train()
    return [p.requires_grad_(True) for p in learner.trainable(METHOD.trains, frozen=Recipe().frozen)]


def compare_loops(data: TrainingSet, recipe: Recipe) -> None:
    """Images a second of the distill stage and of a bare loop over tensors in memory, taking turns."""
    images = recipe.steps * recipe.images_per_domain * len(set(data.domains.tolist()))
    turns = [
        (images / seconds_of_distill(data, recipe), images / seconds_of_bare_loop(data, recipe))
        for _ in range(5)
    ][1:]  # the first decodes images and warms up
    ratios = [ours / bare for ours, bare in turns]
    ours, bare = (median(each) for each in zip(*turns, strict=True))
    print("| loop | images a second |\n|---|---|")
    print(f"| bare, over tensors in memory | {bare:.0f} |")
    print(f"| `client distill`, from decoded files and with augmentation | {ours:.0f} |")
    print(f"\nMedian ratio of neighbours: {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}).\n")


def seconds_of_distill(data: TrainingSet, recipe: Recipe) -> float:
    """From the first step to the last, without evaluation."""
    clock: list[float] = []

    def tick(progress: TrainingStep) -> None:
        if progress.score is None:
            clock.append(time.perf_counter())

    distill(student(data), data, METHOD, recipe, seed=SEED, on_step=tick)
    return (clock[-1] - clock[0]) / (len(clock) - 1) * recipe.steps


def seconds_of_bare_loop(data: TrainingSet, recipe: Recipe) -> float:
    """The same model, optimiser and batches, the batches augmented beforehand."""
    learner = student(data)
    batch_at = pixel_batches(learner, data, recipe, seed=SEED)
    batches = [batch_at(step) for step in range(8)]
    optimiser = torch.optim.Adam(in_training(learner), lr=recipe.learning_rate, fused=True)
    started = 0.0
    for step in range(recipe.steps):
        if step == 1:
            started = time.perf_counter()
        pixels, targets = batches[step % len(batches)]
        loss = cosine_loss(learner(pixels), targets)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return (time.perf_counter() - started) / (recipe.steps - 1) * recipe.steps


def compare_reading(scratch: Path) -> None:
    """Milliseconds of a batch as it is decoded, and as it was kept."""
    folder = list_folder(icons())
    examples, _ = folder.read(folder.source_domains("emoji"))
    rows = range(BATCH)
    print(f"| {BATCH} images of {IMAGE_SIZE} px | ms |\n|---|---|")
    for name, kept in (("decoded", None), ("kept", scratch / "pixels")):
        store = PixelStore(examples, kept)
        store.load(rows, IMAGE_SIZE)
        took = []
        for _ in range(9):
            began = time.perf_counter()
            store.load(rows, IMAGE_SIZE)
            took.append(1000 * (time.perf_counter() - began))
        print(f"| {name} | {median(took):.1f} |", flush=True)


if __name__ == "__main__":
    main()
