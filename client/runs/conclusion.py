"""The conclusion of a run: its trained student is exported and evaluated, and its summary written."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from client.data.examples import Example
from client.data.file_memory import FileMemory
from client.data.finder import Skipped, counted
from client.errors import ClientError
from client.learning.methods import Method, method_of
from client.learning.student import StudentNetwork
from client.learning.student_file import load_student_metadata
from client.learning.teacher_weights import Named
from client.learning.tensor_file import load_metadata
from client.learning.training_set import TrainingSet
from client.progress import Display
from client.purchase.buyer import Buyer
from client.results.calibration import calibration
from client.results.evaluation import Evaluation, cross_fitted
from client.results.intervals import Interval, interval_of
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
    ZeroShotAccuracy,
)
from client.runs.config import RunConfig
from client.runs.dataset import Dataset, adapts
from client.runs.evaluation import answers_about, leave_out_copies, read_for_evaluation, speeds, twins_among
from client.runs.folder import RunFolder
from client.runs.pages import write_pages
from client.runs.review import review
from client.runs.teacher_check import named_teacher
from client.runs.zero_shot import known_zero_shot


@dataclass(frozen=True)
class Conclusion:
    """The last steps of a run whose student is trained.

    Attributes:
        config: what makes it this run.
        run: its directory.
        dataset: its images.
        data: what the student was trained on.
        teacher: who was asked; `None` for a method that buys nothing.
        teacher_check: how far the teacher is right, where it was checked.
        display: what a person sees meanwhile.
        files: what is known of image files.
    """

    config: RunConfig
    run: RunFolder
    dataset: Dataset
    data: TrainingSet
    teacher: Buyer | None
    teacher_check: TeacherCheck | None
    display: Display
    files: FileMemory

    def export(self, student: StudentNetwork) -> None:
        """Write the student as ONNX and compare the two on hold-outs, or else on training images.

        If that fails, the run goes on without.
        """
        self.run.forget("export", after_step=0)
        data = self.data
        side, batch = student.preprocessing.image_size, 128
        shown = data.holdout or data.train[:batch]
        chunks = (shown[start : start + batch] for start in range(0, len(shown), batch))
        pictures = (data.images.load(chunk, side)[0] for chunk in chunks)
        try:
            require_onnx()
            with self.run.timed("export"):
                parity = export_onnx(student, load_metadata(self.run.student), self.run.onnx, pictures)
        except ClientError as reason:
            self.display.note(f"There will be no student.onnx: {reason}")
            return
        self.run.log(MetricsRow(stage="export", images=parity.images, max_difference=parity.max_difference))
        self.display.note(f"{parity.described}.")

    def evaluate(
        self, student: StudentNetwork, leave_one_out: Mapping[str, float], *, stands_in: Path
    ) -> Summary:
        """Answer about the hold-outs and about the target domain, if any, which is read only here.

        Raises:
            DataError: the target domain has no image to evaluate on.
            ClientError: something cannot be written.
        """
        run, dataset, data, folder = self.run, self.dataset, self.data, self.dataset.folder
        run.forget("evaluate", after_step=0)
        with run.timed("evaluate"):
            held_out = [dataset.examples[position] for position in data.holdout]
            answers: list[LabelledPrediction] = []
            if held_out:
                pixels = (data.images, data.holdout)
                answers = answers_about(student, dataset.classes, folder, held_out, seen=True, decoded=pixels)
            target, untested = self._target()
            answers += answers_about(student, dataset.classes, folder, target) if target else []
            run.write_text(run.answers, predictions_as_csv(answers))
            mistakes = worst_mistakes(tested_on(answers), MISTAKES_SHOWN)
            named = self._named
            run.write(run.review, review(student, dataset, data.images, mistakes, named).to_json())
            zero_shot = (
                {}
                if self.teacher is None or named is None
                else known_zero_shot(dataset, target, self.teacher, named)
            )
            twins = twins_among(held_out + target, self.files)
            summary = self._summarise(student, answers, twins, zero_shot, untested)
        summary = summary.model_copy(
            update={
                "seconds": run.seconds(),
                "leave_one_out": dict(leave_one_out),
                "leave_one_out_intervals": self._intervals(leave_one_out),
            }
        )
        write_pages(run, summary, stands_in=stands_in)
        run.write(run.summary, summary.to_json())
        return summary

    def _intervals(self, leave_one_out: Mapping[str, float]) -> dict[str, Interval]:
        """The intervals of what students that were trained without a domain got right in it."""
        images = self.run.record(Plan, self.run.plan).images_by_domain
        found = {name: interval_of(share, images.get(name, 0)) for name, share in leave_one_out.items()}
        return {name: interval for name, interval in found.items() if interval is not None}

    @property
    def _named(self) -> Named | None:
        """What was bought of the teacher, by the names that the student learnt by."""
        if self.teacher is None:
            return None
        return named_teacher(self.config, self.dataset, self.teacher, folder=self.run.path)

    def _target(self) -> tuple[list[Example], list[Skipped]]:
        """The images of the target domain to be tested on, if there is one, and those that are left out."""
        if self.dataset.target is None:
            return [], []
        readable, unread = read_for_evaluation(
            self.dataset.folder, [self.dataset.target], self.display, self.files
        )
        target, copies = leave_out_copies(self.dataset, readable, self.display)
        return target, unread + copies

    def _summarise(
        self,
        student: StudentNetwork,
        answers: Sequence[LabelledPrediction],
        twins: Sequence[int] | None,
        zero_shot: dict[str, ZeroShotAccuracy],
        untested: Sequence[Skipped],
    ) -> Summary:
        """The summary of what was asked, spent, trained and measured, but for the evaluation's own."""
        run, config, teacher = self.run, self.config, self.teacher
        dataset, data, method = self.dataset, self.data, method_of(config.method)
        bought = run.record(Purchase, run.purchase) if method.buys else Purchase()
        plan, check = run.record(Plan, run.plan), self.teacher_check
        unused = 0 if check is None or check.learnt_from else _further_cached(plan)
        trained = load_student_metadata(run.student)
        assert trained.steps_kept is not None
        assert trained.steps is not None
        assert trained.images_per_domain is not None
        return Summary(
            method=config.method,
            student=config.student,
            image_size=config.image_size,
            target_domain=dataset.target,
            seed=config.seed,
            steps=trained.steps,
            images_per_domain=trained.images_per_domain,
            steps_kept=trained.steps_kept,
            queries_bought=bought.queries_bought,
            queries_cached=max(0, bought.queries_cached - unused),
            cost_micros=bought.cost_micros,
            teacher=plan.model,
            train_images=len(dataset.train),
            unlabelled_images=len(set(data.train) & set(dataset.unlabelled)),
            adapted=adapts(config, dataset),
            weights_known=dataset.seen.is_whole,
            holdout_images=len(dataset.holdout),
            skipped_images=len(dataset.skipped),
            seconds={},
            left_out=counted([*dataset.left_out, *untested]),
            accuracy=Evaluation.of(answers, twins).record.model_copy(
                update={"in_domain_cross_fitted": self._cross_fitted(method)}
            ),
            calibration_error=_calibration_error(answers),
            teacher_zero_shot=zero_shot,
            teacher_check=check,
            size=ModelSize(**asdict(student.size)),
            speed=speeds(student, run.onnx),
            teacher_queries_per_second=None if teacher is None else teacher.recent_rate,
            leave_one_out={},
        )

    def _cross_fitted(self, method: Method) -> float | None:
        if self.config.recipe.selection != "best":
            return None
        return cross_fitted(self.run.rows("distill" if method.trains else "align"))


def _calibration_error(answers: Sequence[LabelledPrediction]) -> CalibrationError:
    seen, unseen = ([each for each in answers if each.seen is side] for side in (True, False))
    return CalibrationError(
        in_domain=calibration(seen).error if seen else None,
        out_of_domain=calibration(unseen).error if unseen else None,
    )


def _further_cached(plan: Plan) -> int:
    """Of about how many unlabelled images the cache had the answers, whoever bought them."""
    tranches = plan.purchase.tranches if plan.purchase else []
    return sum(each.cached for each in tranches if each.name == "unlabelled")
