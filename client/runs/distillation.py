"""The run: plan, buy, align, distill, evaluate. A stage whose artefact exists is skipped."""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from client.buying.teacher import Teacher
from client.data.domains import Example
from client.data.finder import Skipped, counted
from client.data.pixels import PixelStore
from client.data.views import ORIGINAL
from client.errors import ClientError
from client.learning.averaging import HOLDOUTS_AVERAGED_OVER
from client.learning.backbones import load_backbone
from client.learning.memory import keep_freed
from client.learning.methods import parse_method
from client.learning.processes import SINGLE_PROCESS, Processes
from client.learning.stages import TrainingSet
from client.learning.student import Student, load_metadata, load_student
from client.progress import Display
from client.results.calibration import calibration
from client.results.evaluation import Evaluation
from client.results.onnx_classifier import require_onnx
from client.results.onnx_export import export_onnx
from client.results.predictions import LabelledPrediction, predictions_as_csv
from client.results.records import (
    Accuracy,
    CalibrationError,
    ModelSize,
    Purchase,
    StudentSpeed,
    Summary,
    ZeroShotAccuracy,
)
from client.runs.evaluation import answers_about, read_for_evaluation, speeds
from client.runs.features import training_features
from client.runs.folder import RunConfig, RunFolder
from client.runs.memo import SharedWork
from client.runs.pages import write_pages
from client.runs.sources import Sources, describe_plan, mention, read_sources
from client.runs.targets import Lesson, Preparation, require_student
from client.runs.tensorboard import mirrored
from client.runs.trainer import Trainer, averages_over_domains, stamp_of
from client.runs.zero_shot import known_zero_shot


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
        agree: Callable[[str], None] = lambda _: None,
        shared: SharedWork | None = None,
        also: Sequence[str] = (),
        onnx: bool = True,
        processes: Processes = SINGLE_PROCESS,
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
            agree: called with the reason before a finished student is replaced, or anything is bought for
                its successor; it raises to stop.
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
        self._approve = approve
        self._agree = agree
        self._also = also

    def execute(self) -> Summary | None:
        """Run every stage that has not been run, and return the summary; in further processes, nothing.

        Raises:
            ClientError: see client/errors.py; what was bought and trained so far is kept.
        """
        config, standing, together = self._config, self._run, self._processes
        keep_freed()
        if together.is_main:
            standing.finish_replacement()
        sources = together.broadcast(self._read)
        if self._method.trains:
            together.shard(config.recipe.images_per_domain * len(sources.domains))  # or refuses, unpaid
        # Before anything is bought, so that weights that cannot be had cost nothing.
        weights = None if config.student_weights is None else Path(config.student_weights)
        backbone = load_backbone(config.student, image_size=config.image_size, weights=weights)
        if self._teacher is not None:
            require_student(self._method, config.student, backbone, self._teacher.model)
        lesson = together.broadcast(lambda: self._lesson(sources, weights))
        data = self._training_set(sources, lesson)
        stamp = self._stamp(sources, lesson, weights)
        if together.broadcast(lambda: stamp_of(self._run.student) == stamp):
            self._display.note(f"The student is trained already: {self._run.student}")
        else:
            self._train(backbone, sources, lesson, data, stamp)
        if not together.is_main:
            return None
        student = load_student(self._run.student)[0].to(self._device)
        if self._onnx:
            self._export(student, data)
        summary = self._evaluate(student, sources, data)
        if self._run is not standing:
            standing.finish_replacement(whole=True)
        return summary

    def _train(
        self, backbone: nn.Module, sources: Sources, lesson: Lesson, data: TrainingSet, stamp: str
    ) -> None:
        run, together = self._run, self._processes
        trainer = Trainer(
            self._config,
            self._method,
            run,
            self._display,
            device=str(self._device),
            shared=self._shared,
            also=self._also,
            processes=together,
        )
        if together.is_main:
            run.onnx.unlink(missing_ok=True)
        with mirrored(run) if together.is_main else nullcontext():
            trainer.train(backbone, sources, lesson, data, stamp)

    def _read(self) -> Sources:
        sources = read_sources(self._config, self._display, self._shared)
        root, listed_in = sources.folder.root, self._run.plan
        self._shared.once(
            "left out",
            f"{root}:{sources.target}",
            lambda: mention(sources.skipped, root, self._display, listed_in=listed_in),
        )
        return sources

    def _lesson(self, sources: Sources, weights: Path | None) -> Lesson:
        features = training_features(
            self._config,
            sources,
            self._display,
            device=str(self._device),
            pixels=self._pixels,
            shared=self._shared,
        )
        if self._run.student.exists():
            recalled = self._preparation.recalled(sources, features)
            known = recalled and self._stamp(sources, recalled, weights)
            if recalled is not None and stamp_of(self._run.student) == known:
                return recalled
            self._agree(self._outdated(sources, may_buy=recalled is None))
            self._run = self._run.begin_replacement()
        return self._preparation.lesson(sources, features)

    @property
    def _preparation(self) -> Preparation:
        return Preparation(
            self._config, self._method, self._run, self._teacher, self._display, approve=self._approve
        )

    def _outdated(self, sources: Sources, *, may_buy: bool) -> str:
        """Why a finished student is not the one that is asked for."""
        run = self._run
        if not averages_over_domains(run.student):
            return (
                f"{run.path} holds a finished student whose weights were chosen by the mean over all images "
                f"that are held out; now it is the mean over {HOLDOUTS_AVERAGED_OVER}. Training anew would "
                "replace it."
            )
        before = run.read(run.plan) if run.plan.exists() else {}
        now = describe_plan(self._config, sources, None, None).to_json()
        differ = [
            words
            for name, words in (("classes", "classes"), ("images_by_domain", "numbers of images"))
            if before.get(name) != now[name]
        ]
        changed = " and ".join(differ) or ("answers to buy" if may_buy else "images, answers or weights")
        return f"{run.path} holds a finished student of other {changed}, which training anew would replace."

    def _training_set(self, sources: Sources, lesson: Lesson) -> TrainingSet:
        return TrainingSet(
            images=PixelStore(sources.examples, self._pixels),
            labels=torch.tensor(sources.labels),
            domains=torch.tensor([sources.domains.index(example.domain) for example in sources.examples]),
            targets=lesson.targets,
            restyled=torch.tensor([example.view != ORIGINAL for example in sources.examples]),
            train=lesson.train,
            holdout=sources.holdout,
            texts=lesson.texts,
        )

    def _stamp(self, sources: Sources, lesson: Lesson, weights: Path | None) -> str:
        """A digest of everything that training depends on: an artefact with another stamp is made anew."""
        digest = hashlib.sha256(json.dumps(self._config.decisive(), sort_keys=True).encode())
        digest.update(json.dumps(sources.folder.classes).encode())
        digest.update(HOLDOUTS_AVERAGED_OVER.encode())
        digest.update("".join(example.digest for example in sources.examples).encode())
        digest.update(lesson.targets.numpy().tobytes())
        if lesson.texts is not None:
            digest.update(lesson.texts.numpy().tobytes())
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

    def _evaluate(self, student: Student, sources: Sources, data: TrainingSet) -> Summary:
        """Answers about the hold-outs and, read for the first time now, the target domain."""
        run, folder = self._run, sources.folder
        run.forget("evaluate", after_step=0)
        with run.timed("evaluate"):
            held_out = [sources.examples[position] for position in data.holdout]
            target, unread = read_for_evaluation(folder, [sources.target], self._display)
            pixels = (data.images, data.holdout)
            answers = [
                *answers_about(student, folder.classes, folder, held_out, seen=True, decoded=pixels),
                *answers_about(student, folder.classes, folder, target),
            ]
            run.write_text(run.answers, predictions_as_csv(answers))
            summary = self._summarise(student, sources, data, answers, target, unread)
        summary = summary.model_copy(update={"seconds": run.seconds()})
        write_pages(run, summary.to_json())
        run.write(run.summary, summary.to_json())
        return summary

    @property
    def _steps(self) -> int:
        """How many steps the last stage takes, the one whose states are chosen from."""
        recipe = self._config.recipe
        return recipe.steps if self._method.trains else recipe.align_steps

    def _summarise(
        self,
        student: Student,
        sources: Sources,
        data: TrainingSet,
        answers: Sequence[LabelledPrediction],
        target: Sequence[Example],
        unread: Sequence[Skipped],
    ) -> Summary:
        """What was asked, spent, trained and measured; the seconds of the evaluation are not among it yet."""
        run, config, teacher = self._run, self._config, self._teacher
        purchase = Purchase.model_validate(run.read(run.purchase)) if self._method.buys else None
        known = {} if teacher is None else known_zero_shot(sources, target, teacher)
        first, last = json.loads(load_metadata(run.student)["steps_kept"])
        return Summary(
            method=config.method,
            student=config.student,
            image_size=config.image_size,
            target_domain=sources.target,
            seed=config.seed,
            steps=self._steps,
            steps_kept=(first, last),
            queries_bought=purchase.queries_bought if purchase else 0,
            queries_cached=purchase.queries_cached if purchase else 0,
            cost_micros=purchase.cost_micros if purchase else 0,
            teacher=run.read(run.plan)["model"],
            train_images=len(sources.train),
            further_views=len(data.train) - len(sources.train),
            holdout_images=len(sources.holdout),
            skipped_images=len(sources.skipped),
            seconds=run.seconds(),
            left_out=counted([*sources.skipped, *unread]),
            accuracy=Accuracy.model_validate(Evaluation.of(answers).to_json()),
            calibration_error=CalibrationError(
                in_domain=calibration(a for a in answers if a.seen).error,
                out_of_domain=calibration(a for a in answers if not a.seen).error,
            ),
            teacher_zero_shot={name: ZeroShotAccuracy(**found) for name, found in known.items()},
            size=ModelSize(**asdict(student.size)),
            speed=StudentSpeed(**speeds(student, run.onnx)),
            teacher_queries_per_second=None if teacher is None else teacher.recent_rate,
        )
