"""The run: plan, buy, align, distill, evaluate. A stage whose artefact exists is skipped."""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from client.buying.teacher import Teacher
from client.coverage import training_features
from client.data.pixels import PixelStore
from client.data.views import ORIGINAL
from client.display import Display
from client.errors import ClientError
from client.examination import answers_about, read_for_evaluation, speeds
from client.learning.backbones import load_backbone
from client.learning.memory import keep_freed
from client.learning.methods import parse_method
from client.learning.processes import ALONE, Processes
from client.learning.stages import TrainingSet
from client.learning.student import Student, load_metadata, load_student
from client.lesson import Lesson, Preparation, require_student
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
from client.trainer import Trainer, stamp_of
from client.zero_shot import known_zero_shot


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
        also: Sequence[str] = (),
        onnx: bool = True,
        processes: Processes = ALONE,
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
            also: selections that runs to come make of the same steps (see `same_steps`).
            onnx: whether the student is written as ONNX as well.
            processes: those that train it together; the first of them does everything else alone.
        """
        self._config = config
        self._run = run
        self._display = display
        self._device = torch.device(device)
        self._shared = shared or SharedWork()
        self._pixels = pixels
        self._onnx = onnx
        self._teacher = teacher
        self._processes = processes
        self._method, _ = parse_method(config.method, config.recipe)
        self._preparation = Preparation(config, self._method, run, teacher, display, approve=approve)
        self._trainer = Trainer(
            config,
            self._method,
            run,
            display,
            device=device,
            shared=self._shared,
            also=also,
            processes=processes,
        )

    def execute(self) -> dict[str, Any]:
        """Run every stage that has not been run, and return the summary; in further processes, nothing.

        Raises:
            ClientError: see client/errors.py; what was bought and trained so far is kept.
        """
        config, run, together = self._config, self._run, self._processes
        keep_freed()
        sources = together.once(self._read)
        if self._method.trains:
            together.share(config.recipe.images_per_domain * len(sources.domains))  # or refuses, unpaid
        # Before anything is bought, so that weights that cannot be had cost nothing.
        weights = None if config.student_weights is None else Path(config.student_weights)
        backbone = load_backbone(config.student, image_size=config.image_size, weights=weights)
        if self._teacher is not None:
            require_student(self._method, config.student, backbone, self._teacher.model)
        lesson = together.once(lambda: self._lesson(sources))
        data = self._training_set(sources, lesson)
        stamp = self._stamp(sources, lesson, weights)
        if together.once(lambda: stamp_of(run.student) == stamp):
            self._display.note(f"The student is trained already: {run.student}")
        else:
            if together.first:
                run.onnx.unlink(missing_ok=True)
            with mirrored(run) if together.first else nullcontext():
                self._trainer.train(backbone, sources, lesson, data, stamp)
        if not together.first:
            return {}
        student = load_student(run.student)[0].to(self._device)
        if self._onnx:
            self._export(student, data)
        return self._evaluate(student, sources, data)

    def _read(self) -> Sources:
        sources = read_sources(self._config, self._display, self._shared)
        mention(sources.skipped, sources.folder.root, self._display, listed_in=self._run.plan)
        return sources

    def _lesson(self, sources: Sources) -> Lesson:
        features = training_features(
            self._config,
            sources,
            self._display,
            device=str(self._device),
            pixels=self._pixels,
            shared=self._shared,
        )
        return self._preparation.lesson(sources, features)

    def _training_set(self, sources: Sources, lesson: Lesson) -> TrainingSet:
        return TrainingSet(
            images=PixelStore(sources.examples, self._pixels),
            labels=torch.tensor(sources.labels),
            domains=torch.tensor([sources.domains.index(example.domain) for example in sources.examples]),
            targets=lesson.targets,
            restyled=torch.tensor([example.view != ORIGINAL for example in sources.examples]),
            train=lesson.train,
            holdout=sources.holdout,
        )

    def _stamp(self, sources: Sources, lesson: Lesson, weights: Path | None) -> str:
        """A digest of everything that training depends on: an artefact with another stamp is made anew."""
        digest = hashlib.sha256(json.dumps(asdict(self._config), sort_keys=True).encode())
        digest.update(json.dumps(sources.folder.classes).encode())
        digest.update("".join(example.digest for example in sources.examples).encode())
        digest.update(lesson.targets.numpy().tobytes())
        if weights is not None:
            digest.update(hashlib.sha256(weights.read_bytes()).digest())
        return digest.hexdigest()

    # -- export and evaluate

    def _export(self, student: Student, data: TrainingSet) -> None:
        """Write the student as ONNX, compared with it on the hold-outs; if that fails, go on without."""
        self._run.forget("export", after_step=0)
        side, batch = student.preprocessing.image_size, 128
        chunks = (data.holdout[start : start + batch] for start in range(0, len(data.holdout), batch))
        pictures = (data.images.load(chunk, side)[0] for chunk in chunks)
        try:
            require_onnx()
            with self._run.timed("export"):
                parity = export_onnx(student, load_metadata(self._run.student), self._run.onnx, pictures)
        except ClientError as reason:
            self._display.note(f"There will be no student.onnx: {reason}")
            return
        self._run.log("export", images=parity.images, max_difference=parity.max_difference)
        self._display.note(f"{parity.described}.")

    def _evaluate(self, student: Student, sources: Sources, data: TrainingSet) -> dict[str, Any]:
        """Answers about the hold-outs and, read for the first time now, the target domain."""
        run, folder = self._run, sources.folder
        run.forget("evaluate", after_step=0)
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
