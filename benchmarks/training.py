"""How fast training is: a step by layers beside the processor's peak, and `distill` beside a bare loop.

Also what keeping decoded pixels saves.

    make bench-training

On the bundled icons with `emoji` left out, the default student at the side of the accuracy tables, and a
teacher made of random numbers around each class (what it says does not matter to the clock).
"""

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
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
Counts = defaultdict[str, float]
PEAK_SIDE = 3072  # of the matrices whose product shows what the processor can do


def main() -> None:
    """Measure all three, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30, help="of a round; there are four of each loop")
    steps = parser.parse_args().steps
    with TemporaryDirectory() as scratch:
        data = training_set(Path(scratch))
        print(f"{processor()}, {torch.get_num_threads()} threads; {len(data.train)} images to train on\n")
        show_layers(data, replace(Recipe(), steps=steps))
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


@dataclass
class LayerClock:
    """The work and the time of a student's layers, by kind, over several steps.

    A layer's backward pass is the nodes of the graph between its output and its input; what no layer made
    (sums, the loss, the accumulation of gradients) is counted by the whole, and is the rest.

    Attributes:
        flop: counted by kind: two for each multiplication with its addition, of convolutions and of the
            projector alone; backward once for the inputs and once for the weights, where they are wanted.
        forward: seconds by kind.
        backward: seconds by kind.
    """

    flop: Counts = field(default_factory=lambda: Counts(float))
    forward: Counts = field(default_factory=lambda: Counts(float))
    backward: Counts = field(default_factory=lambda: Counts(float))

    @contextmanager
    def watching(self, learner: StudentNetwork) -> Iterator[None]:
        """Time each layer while the student is called in here, and the graphs that it leaves."""
        handles = []
        for name, layer in learner.named_modules():
            kind = kind_of(name, layer)
            if kind is not None:
                handles.append(layer.register_forward_pre_hook(self._begin(kind)))
                handles.append(layer.register_forward_hook(self._end(kind)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _begin(self, kind: str) -> Callable[..., None]:
        def begin(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self._source = inputs[0].grad_fn  # a layer may write to its inputs
            self.forward[kind] -= time.perf_counter()

        return begin

    def _end(self, kind: str) -> Callable[..., None]:
        def end(layer: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
            self.forward[kind] += time.perf_counter()
            if isinstance(layer, nn.Conv2d | nn.Linear):
                once = 2 * outputs.numel() * layer.weight[0].numel()
                self.flop[kind] += once * (1 + inputs[0].requires_grad + layer.weight.requires_grad)
            if outputs.grad_fn is not None:
                self._watch(outputs.grad_fn, kind, self._source)

        return end

    def _watch(self, node: Any, kind: str, source: Any) -> None:  # noqa: ANN401 (torch declares no type of them)
        """Time this node of the graph, and those behind it up to a layer's input."""

        def begin(_: object) -> None:
            self.backward[kind] -= time.perf_counter()

        def end(_: object, __: object) -> None:
            self.backward[kind] += time.perf_counter()

        node.register_prehook(begin)
        node.register_hook(end)
        for behind, _ in node.next_functions:
            if behind is not None and behind is not source and behind.next_functions:
                self._watch(behind, kind, source)


def kind_of(name: str, layer: nn.Module) -> str | None:
    """The row of the table that a module stands in, by its name in the student; `None`: its parts do."""
    if isinstance(layer, nn.Linear):
        return "projector"
    if not isinstance(layer, nn.Conv2d | nn.BatchNorm2d | nn.AdaptiveAvgPool2d):
        return None
    if "conv_stem" in name:
        return "stem, 3x3"
    if "conv_head" in name:
        return "head, 1x1"
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        return "pooling"
    if isinstance(layer, nn.BatchNorm2d):
        what = "batch norm and ReLU6"
    else:
        what = "depthwise" if layer.groups > 1 else "pointwise"
    return f"{what}, {'trained' if layer.weight.requires_grad else 'frozen'}"


def show_layers(data: TrainingSet, recipe: Recipe) -> None:
    """Where a step's time goes, and how near its arithmetic is to the largest matrix product's."""
    learner, clock, whole = student(data), LayerClock(), Counts(float)
    optimiser = torch.optim.Adam(in_training(learner), lr=recipe.learning_rate, fused=True)
    batch_at = pixel_batches(learner, data, recipe, seed=SEED)
    images = recipe.images_per_domain * len(set(data.domains.tolist()))
    peaks = [peak()]

    def timed(part: str, work: Callable[[], Any]) -> Any:  # noqa: ANN401 (whatever the work gives)
        began = time.perf_counter()
        made = work()
        whole[part] += time.perf_counter() - began
        return made

    def step(number: int) -> None:
        pixels, targets = timed("views", lambda: batch_at(number))
        with clock.watching(learner):
            outputs = timed("forward", lambda: learner(pixels))
        loss = timed("loss", lambda: cosine_loss(outputs, targets))
        timed("optimiser", lambda: optimiser.zero_grad(set_to_none=True))
        timed("backward", loss.backward)
        timed("optimiser", optimiser.step)

    for number in range(3):  # warms up
        step(number)
    clock, whole = LayerClock(), Counts(float)
    for number in range(recipe.steps):
        step(number)
    peaks.append(peak())
    print_layers(clock, whole, steps=recipe.steps, images=images, peak=max(peaks))


def processor() -> str:
    """The kind of machine, as tables and the record name it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )
    return f"{name}, {os.cpu_count()} cores"


def peak() -> float:
    """Operations a second of the product of two large matrices in float32."""
    left, right = torch.rand(2, PEAK_SIDE, PEAK_SIDE).unbind()
    took = []
    for _ in range(4):
        began = time.perf_counter()
        left @ right
        took.append(time.perf_counter() - began)
    return 2 * PEAK_SIDE**3 / min(took)


def print_layers(clock: LayerClock, whole: dict[str, float], *, steps: int, images: int, peak: float) -> None:
    """The table: a row for each kind of layer, then what is outside of layers, then all."""
    total = sum(whole.values())

    def row(name: str, forward: float, backward: float, flop: float = 0) -> None:
        speed = flop / (forward + backward)
        counted = f"{flop / steps / 1e9:.2f} | " if flop else " | "
        reached = f"{speed / 1e9:.0f} | {speed / peak:.0%}" if flop else " | "
        milliseconds = " | ".join(f"{1000 * each / steps:.1f}" for each in (forward, backward))
        print(f"| {name} | {counted}{milliseconds} | {(forward + backward) / total:.0%} | {reached} |")

    print(
        f"| a step of {images} images of {IMAGE_SIZE} px | GFLOP | ms forward | ms backward | of the step "
        "| GFLOP/s | of the peak |\n|---|---|---|---|---|---|---|"
    )
    for kind in clock.forward:
        row(kind, clock.forward[kind], clock.backward[kind], clock.flop[kind])
    rest = [whole[way] - sum(getattr(clock, way).values()) for way in ("forward", "backward")]
    row("between layers: inputs scaled, sums, gradients collected", *rest)
    row("loss", whole["loss"], 0)
    row("optimiser", whole["optimiser"], 0)
    row("views: pixels read, cropped, coloured, restyled", whole["views"], 0)
    row("all", total - whole["backward"], whole["backward"], sum(clock.flop.values()))
    print(
        f"\nPeak: {peak / 1e9:.0f} GFLOP/s, a product of {PEAK_SIDE} x {PEAK_SIDE} matrices in float32. "
        f"{images * steps / total:.0f} images a second.\n"
    )


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
