"""The run: plan, buy, align, distill, evaluate. A stage whose artefact exists is skipped."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from client.buying.budget import Plan
from client.buying.teacher import Teacher
from client.data.domains import ImageFolder, Skipped, relative
from client.data.images import PixelStore
from client.display import Display
from client.errors import BudgetExhausted, ClientError, DataError, FingerprintChanged
from client.learning.averaging import Kept
from client.learning.losses import teacher_targets
from client.learning.methods import METHODS, Method
from client.learning.stages import TrainingSet, align, align_features, class_scores, distill
from client.learning.student import (
    Student,
    build_student,
    load_backbone,
    load_metadata,
    load_student,
    load_tensors,
    save_student,
    save_tensors,
)
from client.learning.training import Checkpoint, Progress
from client.results.evaluation import DomainAccuracy, Evaluation, accuracy_by_domain
from client.results.report import render_model_card, render_report
from client.run_folder import RunConfig, RunFolder
from client.sources import Sources, describe_plan, plan_of, read_sources

# Decoded images are kept this much larger than the student's side, so that a random crop is rarely enlarged.
_STORED_SIDE = 256 / 224
_LOG_EVERY = 20


@dataclass(frozen=True)
class Lesson:
    """What the student learns from: targets of the training set, and the text head it predicts by."""

    targets: Tensor
    text_head: Tensor | None
    outputs: int


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
        approve: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Take up a run.

        Args:
            config: what makes it this run.
            run: its directory.
            teacher: where to buy; `None` for a method that buys nothing.
            display: what a person sees meanwhile.
            device: where to train.
            approve: called with the price before anything is bought; it raises to stop.
        """
        self._config = config
        self._run = run
        self._teacher = teacher
        self._display = display
        self._device = torch.device(device)
        self._approve = approve
        self._method: Method = METHODS[config.method]

    def execute(self) -> dict[str, Any]:
        """Run every stage that has not been run, and return the summary.

        Raises:
            ClientError: see client/errors.py; what was bought and trained so far is kept.
        """
        sources = read_sources(self._config, self._display)
        self._mention(sources.skipped, sources.folder.root)
        # Before anything is bought, so that weights that cannot be had cost nothing.
        backbone = load_backbone(self._config.student, image_size=self._config.image_size)
        lesson = (
            self._learn_from_teacher(sources) if self._method.uses_teacher else self._labels_only(sources)
        )
        data = self._training_set(sources, lesson)
        stamp = self._stamp(sources, lesson)
        student = self._train(backbone, sources, lesson, data, stamp)
        return self._evaluate(student, sources, data)

    # -- buy

    def _learn_from_teacher(self, sources: Sources) -> Lesson:
        assert self._teacher is not None
        plan = self._buy(sources)
        texts, known = self._teacher.lookup(sources.prompts)
        if not known.all():
            missing = [query.name for query, ok in zip(sources.prompts, known, strict=True) if not ok]
            raise BudgetExhausted(
                f"{len(missing)} of the {len(known)} class prompts were not bought (e.g. {missing[0]!r}), "
                "and a student cannot name its classes without them. They come first: start again with a "
                f"--budget of at least {len(known)}. What was bought is kept."
            )
        text_head = torch.from_numpy(texts)
        labels = torch.tensor(sources.labels)
        images = torch.zeros(len(sources.examples), text_head.shape[1])
        bought = torch.zeros(len(sources.examples), dtype=torch.bool)
        vectors, have = self._teacher.lookup(sources.images)
        images[sources.train] = torch.from_numpy(vectors)
        bought[sources.train] = torch.from_numpy(have)
        if not have.all():
            why = "the budget ended" if plan.unaffordable else "the vendor refused them"
            self._display.note(
                f"{int((~have).sum())} of {len(have)} training images have no teacher embedding ({why}); "
                "they learn from their class prompt alone."
            )
        targets = teacher_targets(
            images, bought, text_head[labels], image_weight=self._config.recipe.image_weight
        )
        return Lesson(targets, text_head, outputs=text_head.shape[1])

    def _buy(self, sources: Sources) -> Plan:
        """Buy what the plan names; `purchase.json` says what came of it, also when buying stopped early."""
        run, teacher = self._run, self._teacher
        assert teacher is not None
        paid_before = teacher.spending.queries
        plan = plan_of(self._config, sources, teacher)
        if not run.plan.exists():
            run.write(run.plan, describe_plan(self._config, sources, teacher.model, plan))
        began_with = run.read(run.plan)["model"]["fingerprint"]
        if began_with != teacher.model.fingerprint:
            raise FingerprintChanged(
                f"This run began with the model {began_with}; the vendor now serves "
                f"{teacher.model.fingerprint}, and their embeddings do not mix. What was bought is kept. "
                f"A new run, with another --out, would buy {len(plan.to_buy)} queries for "
                f"{plan.cost_micros} micros."
            )
        self._approve(plan.cost_micros)
        with self._timed("buy"), self._display.track("Buying", len(plan.to_buy)) as advance:
            purchase = teacher.buy(plan.to_buy, lambda progress: advance(progress.done, progress.words))
        refused = [Skipped(Path(query.name), reason) for query, reason in purchase.refused.items()]
        self._mention(refused, sources.folder.root)
        spending = teacher.spending
        run.write(
            run.purchase,
            {
                "queries_bought": spending.queries,
                "queries_cached": plan.cached - paid_before,
                "cost_micros": spending.cost_micros,
                "refused": [
                    {"name": query.name, "reason": reason} for query, reason in purchase.refused.items()
                ],
            },
        )
        return plan

    def _labels_only(self, sources: Sources) -> Lesson:
        self._run.write(self._run.plan, describe_plan(self._config, sources, None, None))
        labels = torch.tensor(sources.labels)
        return Lesson(labels, None, outputs=len(sources.folder.classes))

    # -- train

    def _training_set(self, sources: Sources, lesson: Lesson) -> TrainingSet:
        side = round(self._config.image_size * _STORED_SIDE)
        return TrainingSet(
            images=PixelStore([example.path for example in sources.examples], short_side=side),
            labels=torch.tensor(sources.labels),
            domains=torch.tensor([sources.domains.index(example.domain) for example in sources.examples]),
            targets=lesson.targets,
            train=sources.train,
            holdout=sources.holdout,
        )

    def _stamp(self, sources: Sources, lesson: Lesson) -> str:
        """A digest of everything that training depends on: an artefact with another stamp is made anew."""
        digest = hashlib.sha256(json.dumps(asdict(self._config), sort_keys=True).encode())
        digest.update("".join(example.digest for example in sources.examples).encode())
        digest.update(lesson.targets.numpy().tobytes())
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
            backbone, outputs=lesson.outputs, text_head=lesson.text_head, image_size=config.image_size
        ).to(self._device)
        if self._method.aligns:
            self._align(student, data, stamp)
        kept = self._distill(student, data, stamp)
        metadata = {
            "stamp": stamp,
            "steps_kept": json.dumps([kept.first, kept.last]),
            "method": config.method,
            "classes": json.dumps(sources.folder.classes),
        }
        save_student(student, config.student, run.student, metadata)
        run.checkpoint.unlink(missing_ok=True)
        return student

    def _align(self, student: Student, data: TrainingSet, stamp: str) -> None:
        if _stamp_of(self._run.aligned) == stamp:
            student.projector.load_state_dict(load_tensors(self._run.aligned)[0])
            return
        recipe, seed = self._config.recipe, self._config.seed
        self._run.forget("align", after_step=0)
        with self._timed("align"):
            with self._display.track("Features", recipe.align_views * len(data.train)) as advance:
                views = align_features(student, data, recipe, seed=seed, on_image=lambda n: advance(n, ""))
            with self._display.track("Aligning", recipe.align_steps) as advance:
                align(
                    student,
                    data,
                    views,
                    self._method,
                    recipe,
                    seed=seed,
                    on_step=self._logger("align", advance),
                )
        save_tensors(student.projector.state_dict(), self._run.aligned, {"stamp": stamp})

    def _distill(self, student: Student, data: TrainingSet, stamp: str) -> Kept:
        recipe, run = self._config.recipe, self._run
        resume = self._load_checkpoint(stamp)
        run.forget("distill", after_step=resume["step"] if resume else 0)
        title = "Distilling" if self._method.uses_teacher else "Fine-tuning"
        with self._timed("distill"), self._display.track(title, recipe.steps) as advance:
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
        best = 0.0

        def on_step(progress: Progress) -> None:
            nonlocal best
            if progress.score is not None:
                best = max(best, progress.score.accuracy)
            if progress.score is not None or progress.step % _LOG_EVERY == 0:
                score = progress.score
                self._run.log(
                    stage,
                    step=progress.step,
                    loss=round(progress.loss, 6),
                    holdout_accuracy=None if score is None else score.accuracy,
                    holdout_loss=None if score is None else score.loss,
                )
            words = f"loss {progress.loss:.3f}" + (f", best hold-out {100 * best:.1f}%" if best else "")
            advance(progress.step, words)

        return on_step

    # -- evaluate

    def _evaluate(self, student: Student, sources: Sources, data: TrainingSet) -> dict[str, Any]:
        """Accuracy on the hold-outs and, read for the first time now, on the target domain."""
        with self._timed("evaluate"):
            labels = data.labels[data.holdout]
            predicted = class_scores(student, data.images, data.holdout).argmax(dim=1)
            domains = [sources.examples[i].domain for i in data.holdout]
            evaluation = Evaluation(
                sources=accuracy_by_domain(predicted, labels, domains),
                targets=evaluate_domains(
                    student, sources.folder.classes, sources.folder, [sources.target], self._display
                ),
            )
        summary = self._summarise(evaluation, sources)
        write_pages(self._run, summary)
        self._run.write(self._run.summary, summary)
        return summary

    def _summarise(self, evaluation: Evaluation, sources: Sources) -> dict[str, Any]:
        run = self._run
        purchase = run.read(run.purchase) if self._method.uses_teacher else {}
        return {
            "method": self._config.method,
            "student": self._config.student,
            "image_size": self._config.image_size,
            "target_domain": sources.target,
            "seed": self._config.seed,
            "steps": self._config.recipe.steps,
            "steps_kept": json.loads(load_metadata(run.student)["steps_kept"]),
            "accuracy": evaluation.to_json(),
            "queries_bought": purchase.get("queries_bought", 0),
            "queries_cached": purchase.get("queries_cached", 0),
            "cost_micros": purchase.get("cost_micros", 0),
            "teacher": run.read(run.plan)["model"],
            "train_images": len(sources.train),
            "holdout_images": len(sources.holdout),
            "skipped_images": len(sources.skipped),
            "seconds": run.seconds(),
        }

    # -- small things

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self._run.log(stage, seconds=round(time.monotonic() - started, 3))

    def _mention(self, skipped: list[Skipped], root: Path) -> None:
        for file in skipped[:10]:
            self._display.note(f"Skipped {relative(file.path, root)}: {file.reason}")
        if len(skipped) > 10:
            self._display.note(f"... and {len(skipped) - 10} more; plan.json lists all.")


def write_pages(run: RunFolder, summary: dict[str, Any]) -> None:
    """Write the report and the model card of a run."""
    plan = run.read(run.plan)
    run.write_text(run.report, render_report(summary, plan, run.rows()))
    run.write_text(run.model_card, render_model_card(summary, plan))


def _stamp_of(path: Path) -> str | None:
    """The stamp of an artefact; `None` where it is missing or was cut short."""
    try:
        return load_metadata(path).get("stamp")
    except ClientError:
        return None


def evaluate_domains(
    student: Student, classes: Sequence[str], folder: ImageFolder, domains: list[str], display: Display
) -> dict[str, DomainAccuracy]:
    """Accuracy of a student of these classes on every readable image of some domains.

    Raises:
        DataError: a domain does not exist or has no readable image, or the student does not know a class.
    """
    folder.require_domains(domains)
    unknown = sorted(set(folder.classes) - set(classes))
    if unknown:
        raise DataError(f"The student does not know these classes of {folder.root}: {', '.join(unknown)}.")
    with display.track("Evaluating", sum(map(folder.count, domains))) as advance:
        examples, _ = folder.read(domains, lambda done: advance(done, ""))
    for domain in domains:
        if not any(example.domain == domain for example in examples):
            raise DataError(f"{folder.root} has no readable image in the domain {domain!r} to evaluate on.")
    images = PixelStore(
        [example.path for example in examples],
        short_side=round(student.preprocessing.image_size * _STORED_SIDE),
    )
    predicted = class_scores(student, images, range(len(examples))).argmax(dim=1)
    labels = torch.tensor([classes.index(folder.classes[example.label]) for example in examples])
    return accuracy_by_domain(predicted, labels, [example.domain for example in examples])
