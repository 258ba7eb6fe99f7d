"""The run: plan, buy, align, distill, evaluate. A stage whose artefact exists is skipped."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from client.buying.teacher import Teacher
from client.data.examples import Example
from client.data.finder import Skipped, counted
from client.data.pixels import PixelStore
from client.data.splits import Split
from client.data.views import ORIGINAL
from client.errors import ClientError
from client.learning.averaging import HOLDOUTS_AVERAGED_OVER
from client.learning.backbones import load_backbone
from client.learning.data_parallel import keep_activations
from client.learning.methods import method_of, steps_of
from client.learning.processes import SINGLE_PROCESS, Processes
from client.learning.stages import TrainingSet
from client.learning.student import Student, load_metadata, load_student, load_student_metadata
from client.progress import Display
from client.results.calibration import calibration
from client.results.evaluation import Evaluation
from client.results.onnx_classifier import require_onnx
from client.results.onnx_export import export_onnx
from client.results.predictions import (
    MISTAKES_SHOWN,
    LabelledPrediction,
    predictions_as_csv,
    tested_on,
    worst_mistakes,
)
from client.results.records import (
    CalibrationError,
    MetricsRow,
    ModelSize,
    Plan,
    Purchase,
    Summary,
    TeacherCheck,
)
from client.runs.dataset import Dataset, adapts, read_dataset
from client.runs.digest import FileContent, StageInputs, digest_of
from client.runs.evaluation import answers_about, leave_out_copies, read_for_evaluation, speeds
from client.runs.features import training_features
from client.runs.folder import RunConfig, RunFolder
from client.runs.generations import seen_before
from client.runs.memo import Memo
from client.runs.mentions import mention_skipped
from client.runs.pages import write_pages
from client.runs.plans import describe_plan
from client.runs.review import review
from client.runs.targets import TargetBuilder, Targets, require_student
from client.runs.tensorboard import mirrored
from client.runs.trainer import CURRENT_STAMP, Trainer, stamp_of
from client.runs.zero_shot import known_zero_shot


@dataclass(frozen=True)
class StudentInputs(StageInputs):
    """What a student depends on."""

    config: RunConfig
    classes: tuple[str, ...]
    images: str
    targets: NDArray[np.generic]
    texts: NDArray[np.generic] | None
    holdouts_averaged_over: str
    trained: tuple[int, ...]
    weights: FileContent | None


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
        memo: Memo | None = None,
        fixed_splits: Mapping[Path, Split] = MappingProxyType({}),
        other_selections: Sequence[str] = (),
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
            memo: what it has in common with other runs; `None` for nothing.
            fixed_splits: the side of the files whose side is fixed.
            other_selections: selections that runs to come make of the same steps (see `same_steps`).
            onnx: whether the student is written as ONNX as well.
            processes: those that train it together; the first of them does everything else alone.
        """
        self._config = config
        self._standing = run
        self._run = run
        self._display = display
        self._device = torch.device(device)
        self._memo = memo or Memo()
        self._fixed_splits = fixed_splits
        self._pixels = pixels
        self._onnx = onnx
        self._teacher = teacher
        self._processes = processes
        self._method = method_of(config.method)
        self._approve = approve
        self._agree = agree
        self._other_selections = other_selections
        self._teacher_check: TeacherCheck | None = None

    def check(self) -> Dataset:
        """Read the images and refuse a run that cannot be trained; returns the images. Nothing is bought.

        Raises:
            ClientError: as `execute`.
        """
        self._standing.finish_replacement()
        dataset = self._read()
        self._require_trainable(dataset)
        return dataset

    def prepare(self) -> None:
        """Check the run and buy what it asks, and no more.

        Raises:
            ClientError: as `execute`.
        """
        self._targets(self.check())

    def execute(self, *, leave_one_out: Mapping[str, float] | None = None) -> Summary | None:
        """Run every stage that has not been run, and return the summary; in further processes, nothing.

        Args:
            leave_one_out: what students that were trained without a domain got right in it, for the summary;
                with nothing, what an earlier command found for the same student stays.

        Raises:
            ClientError: see client/errors.py; what was bought and trained so far is kept.
        """
        self._run = standing = self._standing
        together = self._processes
        keep_activations(self._config.image_size)
        if together.is_main:
            standing.finish_replacement()
        dataset = together.broadcast(self._read)
        backbone = self._require_trainable(dataset)
        targets = together.broadcast(lambda: self._targets(dataset))
        data = self._training_set(dataset, targets)
        stamp = self._stamp(dataset, targets)
        is_trained = together.broadcast(lambda: self._is_trained(dataset, stamp))
        if is_trained:
            self._display.note(f"The student is trained already: {self._run.student}")
        else:
            self._train(backbone, dataset, targets, data, stamp)
        if not together.is_main:
            return None
        student = load_student(self._run.student)[0].to(self._device)
        if self._onnx:
            self._export(student, data)
        former = self._left_out_before() if is_trained else {}
        summary = self._evaluate(student, dataset, data, leave_one_out or former)
        if self._run is not standing:
            standing.finish_replacement(whole=True)
        return summary

    def _require_trainable(self, dataset: Dataset) -> nn.Module:
        """The pre-trained backbone; whatever cannot be trained is refused here, before anything is bought."""
        config = self._config
        if self._method.trains:
            domains = len(dataset.taught_domains)
            recipe = config.recipe.settled(domains=domains)
            labelled = recipe.images_per_domain * domains
            self._processes.shard(labelled)  # of images without labels, perhaps none will be bought
            if dataset.unlabelled:
                pool = recipe.unlabelled_in_batch(recipe.images_per_domain, domains)
                self._processes.shard(labelled + pool)
        weights = None if config.student_weights is None else Path(config.student_weights)
        backbone = load_backbone(config.student, image_size=config.image_size, weights=weights)
        if self._teacher is not None:
            require_student(self._method, config.student, backbone, self._teacher.model)
        return backbone

    def _train(
        self, backbone: nn.Module, dataset: Dataset, targets: Targets, data: TrainingSet, stamp: str
    ) -> None:
        run, together = self._run, self._processes
        trainer = Trainer(
            self._config,
            self._method,
            run,
            self._display,
            device=str(self._device),
            memo=self._memo,
            other_selections=self._other_selections,
            processes=together,
        )
        if together.is_main:
            run.onnx.unlink(missing_ok=True)
        with mirrored(run) if together.is_main else nullcontext():
            trainer.train(backbone, dataset, targets, data, stamp)

    def _read(self) -> Dataset:
        seen = seen_before(self._config, self._standing, self._display)
        dataset = read_dataset(
            self._config, self._display, self._memo, seen=seen, fixed_splits=self._fixed_splits
        )
        seen.keep(self._standing)
        mention_skipped(dataset.left_out, dataset.folder.base, self._display, listed_in=self._run.plan)
        return dataset

    def _targets(self, dataset: Dataset) -> Targets:
        features = training_features(
            self._config,
            dataset,
            self._display,
            device=str(self._device),
            pixels=self._pixels,
            memo=self._memo,
        )
        builder = self._target_builder(self._run)
        if self._run.student.exists():
            recalled = builder.recall(dataset, features)
            if recalled is not None and self._is_trained(dataset, self._stamp(dataset, recalled)):
                self._teacher_check = builder.check
                return recalled
            self._agree(self._outdated(dataset, may_buy=recalled is None))
            self._run = self._run.begin_replacement()
            dataset.seen.keep(self._run)
            builder = self._target_builder(self._run)
        targets = builder.build(dataset, features)
        self._teacher_check = builder.check
        return targets

    def _target_builder(self, run: RunFolder) -> TargetBuilder:
        return TargetBuilder(
            self._config, self._method, run, self._teacher, self._display, approve=self._approve
        )

    def _is_trained(self, dataset: Dataset, stamp: str) -> bool:
        """Whether the student is what this stamp names. One whose stamp an earlier version of Tuition wrote
        cannot be told by it: it stands as long as its run is finished and has as many images as before.
        """
        run = self._run
        if not run.student.exists() or stamp_of(run.student) == stamp:
            return run.student.exists()
        version = load_student_metadata(run.student).stamp_version
        earlier = version != CURRENT_STAMP and run.summary.exists()
        if not earlier or self._differences(dataset):
            return False
        self._display.note_once(
            f"{run.path} was finished by an earlier version of Tuition. Its student stays as it is; another "
            "--out trains a new one."
        )
        return True

    def _left_out_before(self) -> Mapping[str, float]:
        """What an earlier command found by leaving domains out."""
        run = self._run
        return run.record(Summary, run.summary).leave_one_out if run.summary.exists() else {}

    def _differences(self, dataset: Dataset) -> list[str]:
        """In what the images are others than those of which the run has a plan."""
        before = self._run.record(Plan, self._run.plan) if self._run.plan.exists() else None
        now = describe_plan(self._config, dataset, None, None)
        differ = {
            "classes": before is None or before.classes != now.classes,
            "numbers of images": before is None or before.images_by_domain != now.images_by_domain,
        }
        return [words for words, they_do in differ.items() if they_do]

    def _outdated(self, dataset: Dataset, *, may_buy: bool) -> str:
        """Why a finished student is not the one that is asked for."""
        run, differ = self._run, self._differences(dataset)
        changed = " and ".join(differ) or ("answers to buy" if may_buy else "images, answers or weights")
        return f"{run.path} holds a finished student of other {changed}, which training anew would replace."

    def _training_set(self, dataset: Dataset, targets: Targets) -> TrainingSet:
        numbers = {domain: number for number, domain in enumerate(dataset.domains)}
        return TrainingSet(
            images=PixelStore(dataset.examples, self._pixels),
            labels=torch.tensor(dataset.labels),
            domains=torch.tensor([numbers.get(example.domain, -1) for example in dataset.examples]),
            targets=targets.rows,
            restyled=torch.tensor([example.view != ORIGINAL for example in dataset.examples]),
            train=targets.train,
            holdout=dataset.holdout,
            texts=targets.texts,
        )

    def _stamp(self, dataset: Dataset, targets: Targets) -> str:
        """The digest of everything that training depends on: an artefact of another one is made anew."""
        weights = self._config.student_weights
        inputs = StudentInputs(
            config=self._config,
            classes=dataset.classes,
            images=dataset.content,
            targets=targets.rows.numpy(),
            texts=None if targets.texts is None else targets.texts.numpy(),
            holdouts_averaged_over=HOLDOUTS_AVERAGED_OVER,
            trained=tuple(targets.train),
            weights=None if weights is None else FileContent(Path(weights)),
        )
        return digest_of(inputs)

    # -- export and evaluate

    def _export(self, student: Student, data: TrainingSet) -> None:
        """Write the student as ONNX and compare the two on hold-outs, or else on training images.

        If that fails, the run goes on without.
        """
        self._run.forget("export", after_step=0)
        side, batch = student.preprocessing.image_size, 128
        shown = data.holdout or data.train[:batch]
        chunks = (shown[start : start + batch] for start in range(0, len(shown), batch))
        pictures = (data.images.load(chunk, side)[0] for chunk in chunks)
        try:
            require_onnx()
            with self._run.timed("export"):
                parity = export_onnx(student, load_metadata(self._run.student), self._run.onnx, pictures)
        except ClientError as reason:
            self._display.note(f"There will be no student.onnx: {reason}")
            return
        self._run.log(MetricsRow(stage="export", images=parity.images, max_difference=parity.max_difference))
        self._display.note(f"{parity.described}.")

    def _evaluate(
        self, student: Student, dataset: Dataset, data: TrainingSet, leave_one_out: Mapping[str, float]
    ) -> Summary:
        """Answers about the hold-outs and about the target domain, if any, which is read only here."""
        run, folder = self._run, dataset.folder
        run.forget("evaluate", after_step=0)
        with run.timed("evaluate"):
            held_out = [dataset.examples[position] for position in data.holdout]
            answers: list[LabelledPrediction] = []
            if held_out:
                pixels = (data.images, data.holdout)
                answers = answers_about(student, dataset.classes, folder, held_out, seen=True, decoded=pixels)
            target: list[Example] = []
            untested: list[Skipped] = []
            if dataset.target is not None:
                readable, unread = read_for_evaluation(folder, [dataset.target], self._display)
                target, copies = leave_out_copies(dataset, readable, self._display)
                untested = unread + copies
                answers += answers_about(student, dataset.classes, folder, target)
            run.write_text(run.answers, predictions_as_csv(answers))
            mistakes = worst_mistakes(tested_on(answers), MISTAKES_SHOWN)
            found = review(student, dataset, data.images, mistakes, self._teacher)
            run.write(run.review, found.to_json())
            summary = self._summarise(student, dataset, data, answers, target, untested)
        summary = summary.model_copy(update={"seconds": run.seconds(), "leave_one_out": dict(leave_one_out)})
        write_pages(run, summary, stands_in=self._standing.path)
        run.write(run.summary, summary.to_json())
        return summary

    def _summarise(
        self,
        student: Student,
        dataset: Dataset,
        data: TrainingSet,
        answers: Sequence[LabelledPrediction],
        target: Sequence[Example],
        untested: Sequence[Skipped],
    ) -> Summary:
        """What was asked, spent, trained and measured; what is known after the evaluation is not among it."""
        run, config, teacher = self._run, self._config, self._teacher
        purchase = run.record(Purchase, run.purchase) if self._method.buys else None
        plan, check = run.record(Plan, run.plan), self._teacher_check
        unused = 0 if check is None or check.learnt_from else _further_cached(plan)
        trained = load_student_metadata(run.student)
        assert trained.steps_kept is not None  # every version of Tuition has written it
        return Summary(
            method=config.method,
            student=config.student,
            image_size=config.image_size,
            target_domain=dataset.target,
            seed=config.seed,
            # Students of before did not say it.
            steps=steps_of(self._method, config.recipe) if trained.steps is None else trained.steps,
            images_per_domain=trained.images_per_domain,
            steps_kept=trained.steps_kept,
            queries_bought=purchase.queries_bought if purchase else 0,
            queries_cached=max(0, purchase.queries_cached - unused) if purchase else 0,
            cost_micros=purchase.cost_micros if purchase else 0,
            teacher=plan.model,
            train_images=len(dataset.train),
            further_views=len(set(data.train) & set(dataset.views)),
            unlabelled_images=len(set(data.train) & set(dataset.unlabelled)),
            adapted=adapts(config, dataset),
            weights_known=dataset.seen.is_whole,
            holdout_images=len(dataset.holdout),
            skipped_images=len(dataset.skipped),
            seconds=run.seconds(),
            left_out=counted([*dataset.left_out, *untested]),
            accuracy=Evaluation.of(answers).record,
            calibration_error=CalibrationError(
                in_domain=calibration(a for a in answers if a.seen).error
                if any(a.seen for a in answers)
                else None,
                out_of_domain=calibration(a for a in answers if not a.seen).error if target else None,
            ),
            teacher_zero_shot={} if teacher is None else known_zero_shot(dataset, target, teacher),
            teacher_check=check,
            size=ModelSize(**asdict(student.size)),
            speed=speeds(student, run.onnx),
            teacher_queries_per_second=None if teacher is None else teacher.recent_rate,
        )


def _further_cached(plan: Plan) -> int:
    """About how many unlabelled images and further views the cache had the answers, whoever bought them."""
    tranches = plan.purchase.tranches if plan.purchase else []
    return sum(each.cached for each in tranches if each.name in ("unlabelled", "views"))
