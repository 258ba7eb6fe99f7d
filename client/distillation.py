"""The run: plan, buy, align, distill, evaluate. A stage whose artefact exists is skipped."""

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from client.buying.teacher import Teacher
from client.coverage import training_features
from client.data.pixels import PixelStore
from client.display import Display
from client.errors import ClientError, UsageError
from client.examination import answers_about, read_for_evaluation, speeds
from client.learning.averaging import Kept
from client.learning.backbones import load_backbone
from client.learning.methods import parse_method
from client.learning.stages import TrainingSet, align, align_features, distill
from client.learning.student import (
    Student,
    build_student,
    bundled_teacher,
    load_metadata,
    load_student,
    load_tensors,
    save_student,
    save_tensors,
)
from client.learning.training import Checkpoint, Progress
from client.lesson import Lesson, Preparation
from client.pages import write_pages
from client.results.answers import answers_as_csv
from client.results.calibration import calibration
from client.results.evaluation import Evaluation
from client.results.onnx_classifier import require_onnx
from client.results.onnx_export import export_onnx
from client.run_folder import RunConfig, RunFolder
from client.shared_work import SharedWork
from client.sources import Sources, mention, read_sources
from client.tensorboard import mirrored
from client.zero_shot import known_zero_shot

_LOG_EVERY = 20


@dataclass(frozen=True)
class Aligned:
    """A fitted projector: its state, the steps that were kept, and the rows that were logged on the way."""

    state: dict[str, Tensor]
    first: int
    last: int
    rows: list[dict[str, Any]]


class Distillation:
    """One run in one folder. `execute` takes it from wherever it stands to its summary."""

    def __init__(
        self,
        config: RunConfig,
        run: RunFolder,
        teacher: Teacher | None,
        display: Display,
        *,
        device: str,
        pixels: Path,
        approve: Callable[[int], None] = lambda _: None,
        shared: SharedWork | None = None,
        onnx: bool = True,
    ) -> None:
        """Take up a run.

        Args:
            config: what makes it this run.
            run: its directory.
            teacher: where to buy; `None` for a method that buys nothing.
            display: what a person sees meanwhile.
            device: where to train.
            pixels: the folder of decoded images, which runs share.
            approve: called with the price before anything is bought; it raises to stop.
            shared: what it has in common with other runs; `None` for nothing.
            onnx: whether the student is written as ONNX as well.
        """
        self._config = config
        self._run = run
        self._display = display
        self._device = torch.device(device)
        self._shared = shared or SharedWork()
        self._pixels = pixels
        self._onnx = onnx
        self._teacher = teacher
        self._method, _ = parse_method(config.method, config.recipe)
        self._preparation = Preparation(config, self._method, run, teacher, display, approve=approve)

    def execute(self) -> dict[str, Any]:
        """Run every stage that has not been run, and return the summary.

        Raises:
            ClientError: see client/errors.py; what was bought and trained so far is kept.
        """
        config = self._config
        sources = read_sources(config, self._display, self._shared)
        mention(sources.skipped, sources.folder.root, self._display, listed_in=self._run.plan)
        # Before anything is bought, so that weights that cannot be had cost nothing.
        weights = None if config.student_weights is None else Path(config.student_weights)
        backbone = load_backbone(config.student, image_size=config.image_size, weights=weights)
        features = training_features(
            config, sources, self._display, device=str(self._device), pixels=self._pixels, shared=self._shared
        )
        lesson = self._preparation.lesson(sources, features)
        data = self._training_set(sources, lesson)
        stamp = self._stamp(sources, lesson, weights)
        with mirrored(self._run):
            student = self._train(backbone, sources, lesson, data, stamp)
        if self._onnx:
            self._export(student, data)
        return self._evaluate(student, sources, data)

    # -- train

    def _training_set(self, sources: Sources, lesson: Lesson) -> TrainingSet:
        return TrainingSet(
            images=PixelStore(sources.examples, self._pixels),
            labels=torch.tensor(sources.labels),
            domains=torch.tensor([sources.domains.index(example.domain) for example in sources.examples]),
            targets=lesson.targets,
            train=lesson.train,
            holdout=sources.holdout,
        )

    def _stamp(self, sources: Sources, lesson: Lesson, weights: Path | None) -> str:
        """A digest of everything that training depends on: an artefact with another stamp is made anew."""
        digest = hashlib.sha256(json.dumps(asdict(self._config), sort_keys=True).encode())
        digest.update("".join(example.digest for example in sources.examples).encode())
        digest.update(lesson.targets.numpy().tobytes())
        if weights is not None:
            digest.update(hashlib.sha256(weights.read_bytes()).digest())
        return digest.hexdigest()

    def _train(
        self, backbone: nn.Module, sources: Sources, lesson: Lesson, data: TrainingSet, stamp: str
    ) -> Student:
        run, config = self._run, self._config
        if _stamp_of(run.student) == stamp:
            self._display.note(f"The student is trained already: {run.student}")
            return load_student(run.student)[0].to(self._device)
        torch.manual_seed(config.seed)
        student = build_student(
            backbone,
            outputs=lesson.outputs,
            text_head=lesson.text_head,
            image_size=config.image_size,
            own_projector=self._method.projector == "own",
        ).to(self._device)
        self._display.note(f"Student: {config.student} at {config.image_size} px, {student.size.described}.")
        data = replace(data, teacher=self._local_teacher(student))
        first, last = self._run_stages(student, sources, data, stamp)
        metadata = {
            "stamp": stamp,
            "steps_kept": json.dumps([first, last]),
            "method": config.method,
            "classes": json.dumps(sources.folder.classes),
        }
        save_student(student, config.student, run.student, metadata)
        run.checkpoint.unlink(missing_ok=True)
        return student

    def _local_teacher(self, student: Student) -> Student | None:
        """The model that is asked about every view, for a method whose teacher is not the vendor's."""
        if self._method.teacher == "twin":
            return copy.deepcopy(student).eval()
        if self._method.teacher == "bundled":
            return bundled_teacher().to(self._device)
        return None

    def _run_stages(
        self, student: Student, sources: Sources, data: TrainingSet, stamp: str
    ) -> tuple[int, int]:
        """Train in place; returns the first and the last of the steps whose states were kept."""
        kept = (0, 0)
        if self._method.aligns:
            kept = self._align(student, sources, data, stamp)
        if self._method.trains:
            chosen = self._distill(student, data, stamp)
            kept = chosen.first, chosen.last
        return kept

    def _align(self, student: Student, sources: Sources, data: TrainingSet, stamp: str) -> tuple[int, int]:
        if _stamp_of(self._run.aligned) == stamp:
            tensors, metadata = load_tensors(self._run.aligned)
            student.projector.load_state_dict(tensors)
            first, last = json.loads(metadata["steps_kept"])
            return first, last
        run = self._run
        run.forget("align", after_step=0)
        of_features, of_projector = self._align_keys(sources, data)
        views, feature_seconds = self._shared.once(
            "features", of_features, lambda: self._align_features(student, data)
        )
        aligned, seconds = self._shared.once("aligned", of_projector, lambda: self._fit(student, data, views))
        student.projector.load_state_dict(aligned.state)
        if not run.rows("align"):  # another run fitted it
            for row in aligned.rows:
                run.log(**row)
        run.log("align", seconds=round(feature_seconds + seconds, 3))
        steps_kept = json.dumps([aligned.first, aligned.last])
        save_tensors(aligned.state, run.aligned, {"stamp": stamp, "steps_kept": steps_kept})
        return aligned.first, aligned.last

    def _align_keys(self, sources: Sources, data: TrainingSet) -> tuple[str, str]:
        """Digests of what the features of the align stage depend on, and of what the projector does."""
        config, method = self._config, self._method
        recipe = config.recipe
        views = (config.student, config.student_weights, config.image_size, config.seed, recipe.align_views)
        content = "".join(sources.examples[position].digest for position in data.train)
        features = hashlib.sha256(repr((views, recipe.augmentation, content)).encode())
        projector = features.copy()
        fit = replace(recipe, steps=0, images_per_domain=0, learning_rate=0.0, frozen=0.0, interpolation=1.0)
        projector.update(repr((fit, method.loss, method.compares, bool(method.trains))).encode())
        projector.update(data.targets.numpy().tobytes())
        return features.hexdigest(), projector.hexdigest()

    def _align_features(self, student: Student, data: TrainingSet) -> Tensor:
        recipe = self._config.recipe
        with self._display.track("Features", recipe.align_views * len(data.train)) as advance:
            return align_features(
                student, data, recipe, seed=self._config.seed, on_image=lambda done: advance(done, "")
            )

    def _fit(self, student: Student, data: TrainingSet, views: Tensor) -> Aligned:
        recipe = self._config.recipe
        with self._display.track("Aligning", recipe.align_steps) as advance:
            kept = align(
                student, data, views, self._method, recipe,
                seed=self._config.seed, on_step=self._logger("align", advance),
            )  # fmt: skip
        state = {name: tensor.clone() for name, tensor in student.projector.state_dict().items()}
        return Aligned(state, kept.first, kept.last, self._run.rows("align"))

    def _distill(self, student: Student, data: TrainingSet, stamp: str) -> Kept:
        recipe, run = self._config.recipe, self._run
        resume = self._load_checkpoint(stamp)
        run.forget("distill", after_step=resume["step"] if resume else 0)
        title = "Distilling" if self._method.head == "texts" else "Fine-tuning"
        with run.timed("distill"), self._display.track(title, recipe.steps) as advance:
            return distill(
                student,
                data,
                self._method,
                recipe,
                seed=self._config.seed,
                resume=resume,
                save=lambda checkpoint: self._save_checkpoint(checkpoint, stamp),
                on_step=self._logger("distill", advance),
            )

    def _load_checkpoint(self, stamp: str) -> Checkpoint | None:
        if not self._run.checkpoint.exists():
            return None
        saved = torch.load(self._run.checkpoint, map_location=self._device, weights_only=True)
        if saved["stamp"] != stamp:
            return None
        checkpoint: Checkpoint = saved["checkpoint"]
        self._display.note(f"Going on after step {checkpoint['step']} of {self._config.recipe.steps}.")
        return checkpoint

    def _save_checkpoint(self, checkpoint: Checkpoint, stamp: str) -> None:
        part = self._run.checkpoint.with_suffix(".part")
        torch.save({"stamp": stamp, "checkpoint": checkpoint}, part)
        part.replace(self._run.checkpoint)

    def _logger(self, stage: str, advance: Callable[[int, str], None]) -> Callable[[Progress], None]:
        best, words = 0.0, ""

        def on_step(progress: Progress) -> None:
            nonlocal best, words
            if progress.score is not None:
                best = max(best, progress.score.accuracy)
            if progress.score is not None or progress.step % _LOG_EVERY == 0:
                score, loss = progress.score, progress.loss.item()
                self._run.log(
                    stage,
                    step=progress.step,
                    loss=round(loss, 6),
                    holdout_accuracy=None if score is None else score.accuracy,
                    holdout_loss=None if score is None else score.loss,
                )
                words = f"loss {loss:.3f}" + (f", best hold-out {100 * best:.1f}%" if best else "")
            advance(progress.step, words)

        return on_step

    # -- export and evaluate

    def _export(self, student: Student, data: TrainingSet) -> None:
        """Write the student as ONNX, compared with it on the hold-outs, if that is installed."""
        try:
            require_onnx()
        except UsageError as missing:
            self._display.note(f"student.onnx is not written: {missing}")
            return
        side, batch = student.preprocessing.image_size, 128
        chunks = (data.holdout[start : start + batch] for start in range(0, len(data.holdout), batch))
        pictures = (data.images.load(chunk, side)[0] for chunk in chunks)
        with self._run.timed("export"):
            parity = export_onnx(student, load_metadata(self._run.student), self._run.onnx, pictures)
        self._run.log("export", images=parity.images, max_difference=parity.max_difference)
        self._display.note(f"{parity.described}.")

    def _evaluate(self, student: Student, sources: Sources, data: TrainingSet) -> dict[str, Any]:
        """Answers about the hold-outs and, read for the first time now, the target domain."""
        run, folder = self._run, sources.folder
        with run.timed("evaluate"):
            held_out = [sources.examples[position] for position in data.holdout]
            target = read_for_evaluation(folder, [sources.target], self._display)
            pixels = (data.images, data.holdout)
            answers = [
                *answers_about(student, folder.classes, folder, held_out, seen=True, decoded=pixels),
                *answers_about(student, folder.classes, folder, target),
            ]
            run.write_text(run.answers, answers_as_csv(answers))
            teacher = self._teacher
            known = {} if teacher is None else known_zero_shot(sources, target, teacher)
            rate = None if teacher is None else teacher.recent_rate
            measured = {
                "accuracy": Evaluation.of(answers).to_json(),
                "calibration_error": {
                    name: calibration(a for a in answers if a.seen == seen).error
                    for name, seen in (("in_domain", True), ("out_of_domain", False))
                },
                "teacher_zero_shot": known,
                "size": asdict(student.size),
                "speed": speeds(student, run.onnx),
                "teacher_queries_per_second": rate,
            }
        summary = {**self._summarise(sources, further_views=len(data.train) - len(sources.train)), **measured}
        write_pages(run, summary)
        run.write(run.summary, summary)
        return summary

    @property
    def _steps(self) -> int:
        """How many steps the last stage takes, the one whose states are chosen from."""
        recipe = self._config.recipe
        return recipe.steps if self._method.trains else recipe.align_steps

    def _summarise(self, sources: Sources, *, further_views: int) -> dict[str, Any]:
        """What was asked, spent and trained."""
        run = self._run
        purchase = run.read(run.purchase) if self._method.buys else {}
        return {
            "method": self._config.method,
            "student": self._config.student,
            "image_size": self._config.image_size,
            "target_domain": sources.target,
            "seed": self._config.seed,
            "steps": self._steps,
            "steps_kept": json.loads(load_metadata(run.student)["steps_kept"]),
            "queries_bought": purchase.get("queries_bought", 0),
            "queries_cached": purchase.get("queries_cached", 0),
            "cost_micros": purchase.get("cost_micros", 0),
            "teacher": run.read(run.plan)["model"],
            "train_images": len(sources.train),
            "further_views": further_views,
            "holdout_images": len(sources.holdout),
            "skipped_images": len(sources.skipped),
            "seconds": run.seconds(),
        }


def _stamp_of(path: Path) -> str | None:
    """The stamp of an artefact; `None` where it is missing or was cut short."""
    try:
        return load_metadata(path).get("stamp")
    except ClientError:
        return None
