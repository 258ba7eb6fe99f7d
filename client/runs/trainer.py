"""The training of a run's student: align, then distil. A stage whose artefact exists is skipped."""

import copy
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client.errors import ClientError
from client.interrupts import raise_lost_interrupt
from client.learning.backbones import local_files
from client.learning.methods import Method, images_per_domain_of, method_of, steps_of
from client.learning.processes import SINGLE_PROCESS, Processes
from client.learning.recipe import Augmentation
from client.learning.rejection import Rejection, sureness
from client.learning.reliability import Reliability
from client.learning.stages import align, align_features, class_scores, distill, views_to_align
from client.learning.student import StudentNetwork, build_student, bundled_teacher
from client.learning.student_file import load_student_metadata, save_student
from client.learning.student_metadata import StudentMetadata
from client.learning.temperature import fitted_temperature
from client.learning.tensor_file import load_tensors, save_tensors
from client.learning.training import Checkpoint, TrainingStep
from client.learning.training_set import TrainingSet
from client.learning.weight_selection import SelectedWeights
from client.progress import Display
from client.results.evaluation import HALVES
from client.results.records import MetricsRow, Stage
from client.runs.checkpoint import read_checkpoint, save_checkpoint
from client.runs.code import code_of
from client.runs.config import RunConfig
from client.runs.dataset import Dataset, adapts
from client.runs.digest import FileContent, StageInputs, contents
from client.runs.folder import RunFolder
from client.runs.memo import Memo
from client.runs.targets import Targets
from shared.memory import collect_all, keep_freed

_LOG_EVERY = 20


@dataclass(frozen=True)
class FeatureInputs(StageInputs):
    """The inputs of the features of the align stage."""

    student: str
    weights: tuple[FileContent, ...]
    image_size: int
    seed: int
    views: int
    augmentation: Augmentation
    transform: str | None
    images: str


@dataclass(frozen=True)
class DistillInputs(StageInputs):
    """The inputs of the steps on pixels, and not what is kept of them."""

    config: RunConfig
    images: str
    targets: tuple[NDArray[np.generic], ...]
    texts: NDArray[np.generic] | None
    code: str


@dataclass(frozen=True)
class Trained:
    """Steps on pixels: the run that took them, what each selection kept of them, and the rows it logged."""

    run: Path
    kept: dict[str, SelectedWeights]
    rows: list[dict[str, Any]]


class Trainer:
    """Trains the student of one run, from wherever the run stands."""

    def __init__(
        self,
        config: RunConfig,
        method: Method,
        run: RunFolder,
        display: Display,
        *,
        device: str,
        memo: Memo,
        other_selections: Sequence[str] = (),
        processes: Processes = SINGLE_PROCESS,
    ) -> None:
        """Take up a run."""
        self._config = config
        self._method = method
        self._run = run
        self._display = display
        self._device = torch.device(device)
        self._memo = memo
        self._other_selections = other_selections
        self._processes = processes
        self._recipe = config.recipe

    def train(
        self, backbone: nn.Module, dataset: Dataset, targets: Targets, data: TrainingSet, stamp: str
    ) -> None:
        """Train, and leave the student in its file."""
        keep_freed()
        collect_all()
        with tensor_cores(self._device):
            self._train(backbone, dataset, targets, data, stamp)

    def _train(
        self, backbone: nn.Module, dataset: Dataset, targets: Targets, data: TrainingSet, stamp: str
    ) -> None:
        self._settle(dataset, data)
        student = self._new_student(backbone, targets)
        data = replace(data, teacher=self._local_teacher(student))
        recipe = self._recipe
        # A stage left half done depends on what follows from the data; a finished student stands.
        settled = f"{stamp} {recipe.steps}x{recipe.images_per_domain} {recipe.align_images_per_domain}"
        kept = (0, 0)
        if self._method.aligns:
            state, told = self._processes.broadcast(lambda: self._align(student, dataset, data, settled))
            student.projector.load_state_dict(state)
            first, last = json.loads(told["steps_kept"])
            kept = first, last
        if self._method.trains:
            chosen = self._distill(student, dataset, data, settled)
            kept = chosen.first, chosen.last
        if self._processes.is_main:
            self._save(student, dataset, targets, data, stamp, kept)

    def _settle(self, dataset: Dataset, data: TrainingSet) -> None:
        """Take over from the data what the recipe leaves to it."""
        config = self._config
        unlabelled = len(set(data.train) & set(dataset.unlabelled))
        labelled = len(data.train) - unlabelled
        self._recipe = config.recipe.settled(
            domains=len(dataset.taught_domains), labelled=labelled, unlabelled=unlabelled
        )
        if self._method.trains and self._recipe.steps > config.recipe.steps:
            self._display.note(
                f"Training takes {self._recipe.steps:,} steps and not {config.recipe.steps:,}, so that it "
                f"sees {labelled:,} labelled and {unlabelled:,} other images at least {config.recipe.passes} "
                "times each, in the mean. --steps sets another number."
            )

    def _new_student(self, backbone: nn.Module, targets: Targets) -> StudentNetwork:
        config = self._config
        torch.manual_seed(config.seed)
        student = build_student(
            backbone,
            outputs=targets.outputs,
            text_head=targets.text_head,
            image_size=config.image_size,
            own_projector=self._method.projector == "own",
            trains_texts=self._method.head == "tuned",
        ).to(self._device)
        self._display.note(f"Student: {config.student} at {config.image_size} px, {student.size.described}.")
        return student

    def _local_teacher(self, student: StudentNetwork) -> StudentNetwork | None:
        """The model that is asked about every view, for a method whose teacher is not the vendor's."""
        if self._method.teacher == "twin":
            return copy.deepcopy(student).eval()
        if self._method.teacher == "bundled":
            return bundled_teacher().to(self._device)
        return None

    def _save(
        self,
        student: StudentNetwork,
        dataset: Dataset,
        targets: Targets,
        data: TrainingSet,
        stamp: str,
        kept: tuple[int, int],
    ) -> None:
        run, config = self._run, self._config
        metadata = targets.teacher or StudentMetadata()
        if data.holdout:
            metadata = _calibrate(student, data, metadata)
        seen = dataset.seen.write(
            run.seen,
            [dataset.examples[position] for position in data.train],
            [dataset.examples[position] for position in data.holdout],
        )
        metadata = replace(
            metadata,
            stamp=stamp,
            steps=steps_of(self._method, self._recipe),
            images_per_domain=images_per_domain_of(self._method, self._recipe),
            steps_kept=kept,
            method=config.method,
            classes=dataset.classes,
            adapted=adapts(config, dataset),
            seen=seen,
        )
        save_student(student, config.student, run.student, metadata.to_file())
        run.checkpoint.unlink(missing_ok=True)

    # -- align

    def _align(
        self, student: StudentNetwork, dataset: Dataset, data: TrainingSet, stamp: str
    ) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The fitted projector as its file has it, which is made if it is not there.

        It takes seconds on features, so the first process does it for all.
        """
        run, seed = self._run, self._config.seed
        if stamp_of(run.aligned) == stamp:
            return load_tensors(run.aligned)
        run.forget("align", after_step=0)
        views, seconds = self._memo.once(
            self._feature_inputs(dataset, data), lambda: self._align_features(student, data)
        )
        started = time.monotonic()
        with self._display.track("Aligning", self._recipe.align_steps) as advance:
            kept = align(
                student, data, views, self._method, self._recipe,
                seed=seed, on_step=self._logger("align", advance),
            )  # fmt: skip
        seconds += time.monotonic() - started  # those of the features count where another run made them, too
        run.log(MetricsRow(stage="align", seconds=round(seconds, 3)))
        told = {"stamp": stamp, "steps_kept": json.dumps([kept.first, kept.last])}
        save_tensors(student.projector.state_dict(), run.aligned, told)
        return load_tensors(run.aligned)

    def _feature_inputs(self, dataset: Dataset, data: TrainingSet) -> FeatureInputs:
        config, recipe = self._config, self._recipe
        return FeatureInputs(
            student=config.student,
            weights=contents(local_files(config.student, config.student_weights)),
            image_size=config.image_size,
            seed=config.seed,
            views=recipe.align_views,
            augmentation=recipe.augmentation,
            transform=config.transform,
            images=dataset.content_of(data.aligned_on(config.seed)),
        )

    def _align_features(self, student: StudentNetwork, data: TrainingSet) -> Tensor:
        recipe, seed = self._recipe, self._config.seed
        with self._display.track("Features", views_to_align(recipe, data, seed)) as advance:
            return align_features(student, data, recipe, seed=seed, on_image=lambda done: advance(done, ""))

    # -- distill

    def _distill(
        self, student: StudentNetwork, dataset: Dataset, data: TrainingSet, stamp: str
    ) -> SelectedWeights:
        """Take the steps on pixels, or keep another selection of those that an earlier run took."""
        run = self._run
        texts = None if data.texts is None else data.texts.numpy()
        rows = (data.targets,) if isinstance(data.targets, Tensor) else data.targets
        arrays, code = tuple(each.numpy() for each in rows), code_of(self._config)
        inputs = DistillInputs(same_steps(self._config), dataset.content, arrays, texts, code)
        trained, _ = self._memo.once(inputs, lambda: self._take_steps(student, data, stamp))
        kept = trained.kept[self._recipe.selection]
        if trained.run != run.path:
            run.forget("distill", after_step=0)
            for row in trained.rows:
                run.log(MetricsRow.model_validate(row))
            student.load_state_dict(kept.state, strict=False)
        return kept

    def _take_steps(self, student: StudentNetwork, data: TrainingSet, stamp: str) -> Trained:
        recipe, run = self._recipe, self._run
        stamp = f"{stamp} {'+'.join(sorted({recipe.selection, *self._other_selections}))}"
        resume = self._load_checkpoint(stamp)
        run.forget("distill", after_step=resume["step"] if resume else 0)
        title = "Distilling" if self._method.head != "linear" else "Fine-tuning"

        def save(checkpoint: Checkpoint) -> None:
            if self._processes.is_main:
                save_checkpoint(checkpoint, stamp, run.checkpoint)

        with run.timed("distill"), self._display.track(title, recipe.steps) as advance:
            kept = distill(
                student,
                data,
                self._method,
                recipe,
                seed=self._config.seed,
                other_selections=self._other_selections,
                resume=resume,
                save=save,
                on_step=self._logger("distill", advance),
                processes=self._processes,
                mixed_precision=is_mixed(self._config, self._device),
            )
        return Trained(run.path, kept, run.rows("distill"))

    def _load_checkpoint(self, stamp: str) -> Checkpoint | None:
        file = self._run.checkpoint
        content = self._processes.broadcast(lambda: file.read_bytes() if file.exists() else None)
        if content is None:
            return None
        saved = read_checkpoint(content, self._device)
        if saved.stamp != stamp:
            self._display.note(
                f"Training begins anew: the steps that are kept in {file} are of other images, answers, "
                "weights or settings, or of another version of Tuition."
            )
            return None
        self._display.note(f"Going on after step {saved.checkpoint['step']} of {self._recipe.steps}.")
        return saved.checkpoint

    def _logger(self, stage: Stage, advance: Callable[[int, str], None]) -> Callable[[TrainingStep], None]:
        before = (row.get("holdout_domain_mean_accuracy", 0.0) for row in self._run.rows(stage))
        best, words = max(before, default=0.0), ""  # of the steps that a resumed run took before

        def on_step(progress: TrainingStep) -> None:
            nonlocal best, words
            raise_lost_interrupt()
            if progress.score is not None:
                best = max(best, progress.score.accuracy)
            if progress.score is not None or progress.step % _LOG_EVERY == 0:
                row = _logged(stage, progress)
                self._run.log(row)
                words = f"loss {row.loss:.3f}" + (f", best hold-out {100 * best:.1f}%" if best else "")
            advance(progress.step, words)

        return on_step


def _logged(stage: Stage, progress: TrainingStep) -> MetricsRow:
    """A step as metrics.jsonl has it.

    Raises:
        ClientError: the loss is not finite.
    """
    score, loss = progress.score, progress.loss.item()
    if not math.isfinite(loss):
        raise ClientError(
            f"Training has diverged: the loss of step {progress.step} is {loss}. Another --seed "
            "may do; --recipe paper learns at a twentieth of the default's rate."
        )
    row = MetricsRow(stage=stage, step=progress.step, loss=round(loss, 6))
    if score is None:
        return row
    found = {"holdout_domain_mean_accuracy": score.accuracy, "holdout_domain_mean_loss": score.loss}
    for name, half in zip(HALVES, score.halves, strict=False):
        found |= {f"{name}_accuracy": half.accuracy, f"{name}_loss": half.loss}
    return row.model_copy(update=found)


def _calibrate(student: StudentNetwork, data: TrainingSet, metadata: StudentMetadata) -> StudentMetadata:
    """Fit the student's temperature on the hold-outs.

    Returns the metadata with how sure it is of them, how often right, and when to turn images away.
    """
    scores, labels = class_scores(student, data.images, data.holdout), data.labels[data.holdout]
    student.temperature.fill_(fitted_temperature(scores, labels))
    probabilities = student.probabilities(scores)
    confidence, predicted = probabilities.max(dim=1)
    return replace(
        metadata,
        reliability=Reliability.of(confidence.numpy(), (predicted == labels).numpy()),
        rejection=Rejection.of(sureness(probabilities.numpy())),
    )


def is_mixed(config: RunConfig, device: torch.device) -> bool:
    """Whether steps on pixels compute in bfloat16: not on a CPU, where convolutions in it take far longer."""
    return config.mixed_precision and device.type != "cpu"


@contextmanager
def tensor_cores(device: torch.device) -> Iterator[None]:
    """Have a GPU multiply float32 matrices as it convolves: in TF32, where it has that."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if device.type == "cuda" else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def same_steps(config: RunConfig) -> RunConfig:
    """The configuration without what only chooses among the states of the last stage: equal, equal steps."""
    recipe = replace(config.recipe, selection="best")
    return config.changed(method=method_of(config.method).name, recipe=recipe)


def stamp_of(path: Path) -> str | None:
    """The stamp of an artefact; `None` where it is missing or was cut short."""
    try:
        return load_student_metadata(path).stamp
    except ClientError:
        return None
