"""A run as two pages: `report.html` for people, `README.md` as the model card beside the weights."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from markupsafe import Markup

from client.data.finder import COPY_OF_ANOTHER_DOMAIN
from client.data.manifests import recognise_names
from client.learning.methods import known_method
from client.learning.prompts import ONE_PROMPT
from client.learning.recipe import RECIPES, Recipe
from client.results.asking import asking_of
from client.results.calibration import calibration
from client.results.charts import confusion_matrix, curve, reliability
from client.results.intervals import interval_of
from client.results.predictions import LabelledPrediction, confusion, tested_on
from client.results.records import (
    Disagreement,
    Exports,
    Neighbour,
    Plan,
    Review,
    Summary,
    described_check,
    described_wording,
    held_out_whole,
)
from client.results.rendering import render, shown_path

Row = Mapping[str, Any]

# More classes than this, and a square of the confusion matrix is too small to see.
_MOST_CLASSES_DRAWN = 60
# What is drawn of training: the name in `metrics.jsonl`, the caption, and factor and unit of the axis.
_CURVES = (
    ("loss", "loss in training", 1, ""),
    ("holdout_domain_mean_loss", "cross-entropy on the hold-outs, mean over source domains", 1, ""),
    ("holdout_domain_mean_accuracy", "accuracy on the hold-outs, mean over source domains", 100, "%"),
)
# Whose models compute where the student trains: `--teacher open_clip:...` and `python:...`.
_IN_PROCESS = ("open_clip", "python")
# Who teaches in place of a vendor's model, by `Method.teacher`.
_LOCAL_TEACHERS = {"twin": "its own frozen twin", "bundled": "the bundled icon-clip"}


@dataclass(frozen=True)
class Pictured:
    """An image that was found worth a look, as a data URI; `None` if it is no longer there."""

    found: Disagreement | Neighbour
    picture: str | None


@dataclass(frozen=True)
class Mistake:
    """A wrong prediction, the image as a data URI, and the training image that it resembles.

    Each is `None` if it is no longer there, or not known.
    """

    prediction: LabelledPrediction
    picture: str | None
    like: Pictured | None = None


@dataclass(frozen=True)
class ReportData:
    """The files that a finished run left.

    Attributes:
        summary: `summary.json`.
        plan: `plan.json`.
        data: the image folder.
        recipe: the training protocol.
        metrics: the rows of `metrics.jsonl`.
        predictions: of `answers.csv`.
        mistakes: of `tested`, the most confident first.
        review: `review.json`; `None` where an earlier version wrote none.
        doubted: its disagreements with their pictures.
        exports: `exports.json`; `None` where the student was not written in eight bits.
        folder: where the run is.
        in_browser: whether `web/` in it has a page on which the student answers.
    """

    summary: Summary
    plan: Plan
    data: str
    recipe: Recipe
    metrics: Sequence[Row]
    predictions: Sequence[LabelledPrediction]
    mistakes: Sequence[Mistake]
    review: Review | None = None
    doubted: Sequence[Pictured] = ()
    exports: Exports | None = None
    folder: str = "RUN"
    in_browser: bool = False

    @property
    def tested(self) -> list[LabelledPrediction]:
        """The predictions that mistakes are looked for in."""
        return tested_on(self.predictions)

    @cached_property
    def unseen(self) -> list[LabelledPrediction]:
        """The predictions about the target domain."""
        return [prediction for prediction in self.predictions if not prediction.seen]

    @cached_property
    def seen(self) -> list[LabelledPrediction]:
        """The predictions about the hold-outs of the source domains."""
        return [prediction for prediction in self.predictions if prediction.seen]


def render_report(run: ReportData) -> str:
    """The report as one HTML page that needs nothing from elsewhere."""
    return render(
        "report.html",
        **_shared(run),
        metrics=_curves(run),
        calibrated=_calibration(run),
        by_class=_by_class(run),
        matrix=_matrix(run),
        mistakes=run.mistakes,
        asking=asking_of(run.summary, run.predictions),
        review=run.review,
        doubted=run.doubted,
        exports=run.exports.files if run.exports else (),
        folder=shown_path(run.folder),
        in_browser=run.in_browser,
    )


def render_model_card(run: ReportData) -> str:
    """The model card in Markdown."""
    return render("model_card.md", **_shared(run))


def render_card(run: ReportData) -> str:
    """The beginning of the report with its drawings, as a notebook shows it."""
    return render(
        "run_card.html",
        summary=run.summary,
        told=_checked(run),
        folder=shown_path(run.folder),
        metrics=_curves(run),
        calibrated=_calibration(run),
        matrix=_matrix(run),
    )


def _shared(run: ReportData) -> dict[str, Any]:
    summary, plan = run.summary, run.plan
    target, unseen, teacher = summary.target_domain, summary.leave_one_out, summary.teacher
    return {
        "summary": summary,
        "plan": plan,
        "data": shown_path(run.data),
        "domains": _domains(run),
        "unlearnt": held_out_whole(run.plan, run.summary.accuracy),
        "kept": _kept(run),
        "taught": _taught(run),
        "local_teacher": _local_teacher(run),
        "checked": _checked(run),
        "intervals": any(summary.accuracy.intervals_by_domain),
        "asked_as": described_wording(plan.wording),
        "by_images": _named_by_images(run),
        "target": target,
        "standing": _standing(summary),
        "target_copies": summary.left_out.get(COPY_OF_ANOTHER_DOMAIN, 0),
        "target_images": summary.accuracy.images_by_domain[target] if target else 0,
        "expected": fmean(unseen.values()) if unseen else None,
        "worst_left_out": min(unseen, key=unseen.__getitem__) if unseen else None,
        "in_process": teacher is not None and teacher.owned_by in _IN_PROCESS,
        "image_micros": 0 if teacher is None else teacher.prices.image_micros,
        "zero_shot": _zero_shot(run),
        "currency": None if teacher is None else teacher.currency,
        "asked": {kind: _asked(run, kind) for kind in ("labelled", "unlabelled")},
        "published_queries": _published_queries(run),
    }


def _zero_shot(run: ReportData) -> Row:
    """The most that asking the teacher about the target buys, by a comparison of one seed."""
    summary, method = run.summary, known_method(run.summary.method)
    known, images = summary.teacher_zero_shot, summary.accuracy.images_by_domain
    # It is asked about the hold-outs as well, and by the plain class texts, which not all methods buy.
    asked = sum(n for name, n in images.items() if name not in known or not known[name].on_test_set)
    prompts = ONE_PROMPT if method is None else method.prompts
    tested = any(each.on_test_set for each in known.values())  # by a comparison, with the plain class texts
    has_texts = tested or prompts == ONE_PROMPT or run.plan.wording.templates != list(prompts.templates)
    texts = 0 if has_texts else len(run.plan.classes)
    cost = 0 if summary.teacher is None else summary.teacher.prices.cost_of({"image": asked, "text": texts})
    return {"queries": asked + texts, "cost_micros": cost}


def _published_queries(run: ReportData) -> int:
    """The queries of the paper's released code: about a fresh view at every step of both stages.

    It takes a step more in each than is published. The paper takes more steps on DomainNet.
    """
    plan, paper = run.plan, RECIPES["paper-domainnet"]
    if not run.recipe.is_protocol_of(paper):
        domains = [*plan.source_domains, *([plan.target_domain] if plan.target_domain else [])]
        known = recognise_names(Path(run.data).resolve().name, domains)
        paper = RECIPES["paper" if known is None else known.recipe]
    steps = paper.align_steps + 1 + paper.steps + 1
    return steps * paper.images_per_domain * len(plan.source_domains)


def _taught(run: ReportData) -> str:
    """A clause that names the student's teacher; where that taught nothing, the labels did."""
    if (teacher := run.summary.teacher) is not None:
        return f"taught by {teacher.id if _learnt_from(run) else 'labels alone'}"
    local = _local_teacher(run)
    return "trained without a teacher" if local is None else f"taught by {local}"


def _learnt_from(run: ReportData) -> bool:
    """Whether anything was learnt of the vendor's model, as far as it was checked."""
    check = run.summary.teacher_check
    return check is None or check.learnt_from


def _local_teacher(run: ReportData) -> str | None:
    """The model that a method asks in place of the vendor's; `None` where it asks none."""
    method = known_method(run.summary.method)
    return None if method is None else _LOCAL_TEACHERS.get(method.teacher)


def _checked(run: ReportData) -> str:
    """The evidence of the labels against the teacher, where it was weighed by them; else empty."""
    check = run.summary.teacher_check
    return described_check(check) if check is not None and check.doubts and run.recipe.weigh_teacher else ""


def _named_by_images(run: ReportData) -> list[str]:
    """The classes that are named by the mean of their images, and not by texts."""
    check = run.summary.teacher_check
    return list(check.named_by_images) if check is not None and run.recipe.weigh_teacher else []


def _standing(summary: Summary) -> str:
    """A description of the target domain's part in the run."""
    if summary.adapted:
        return "adapted to"
    return "unseen" if summary.weights_known else "held out"


def _kept(run: ReportData) -> str:
    """Which weights are the student's, in a clause."""
    first, last = run.summary.steps_kept
    if not run.summary.holdout_images:
        return f"the weights after the last step, {last}, are the student"
    if first < last:
        return f"the mean of the weights after steps {first} to {last} (SWAD) is the student"
    if run.recipe.selection == "swad":
        return f"the weights after step {last}, the only ones that SWAD averages, are the student"
    best = "best on the hold-outs by the mean over source domains"
    return f"the weights after step {last}, {best}, are the student"


def _asked(run: ReportData, kind: str) -> int:
    """How many queries of a kind were bought or cached.

    A plan is made before its teacher is checked: of one that teaches nothing, no further image is bought.
    """
    purchase = run.plan.purchase
    if purchase is None:
        return 0
    bought = kind == "labelled" or _learnt_from(run)
    return sum(each.cached + bought * each.to_buy for each in purchase.tranches if each.name == kind)


def _domains(run: ReportData) -> list[Row]:
    """The domains in the order in which they are shown: sources first, the target, if there is one, last."""
    summary, target = run.summary, run.summary.target_domain
    return [
        {
            "name": name,
            "seen": name != target,
            "accuracy": summary.accuracy.by_domain[name],
            "interval": summary.accuracy.intervals_by_domain.get(name),
            "images": summary.accuracy.images_by_domain[name],
            "teacher": summary.teacher_zero_shot.get(name),
            "left_out": summary.leave_one_out.get(name),
            "left_out_interval": summary.leave_one_out_intervals.get(name),
        }
        for name in (*run.plan.source_domains, *([target] if target else []))
        if name in summary.accuracy.by_domain
    ]


def _curves(run: ReportData) -> list[tuple[str, Markup]]:
    """Captions and drawings of how the last stage went."""
    stages = {row["stage"] for row in run.metrics if "step" in row}
    stage = "distill" if "distill" in stages else "align"
    rows = [row for row in run.metrics if row["stage"] == stage and "step" in row]
    curves = []
    for key, caption, factor, unit in _CURVES:
        points = [(row["step"], factor * row[key]) for row in rows if key in row]
        if drawing := curve(f"{caption} by step", points, run.summary.steps_kept, unit):
            curves.append((caption, drawing))
    return curves


def _calibration(run: ReportData) -> list[Row]:
    return [_calibrated(answers, seen=answers is run.seen) for answers in (run.seen, run.unseen) if answers]


def _calibrated(predictions: Sequence[LabelledPrediction], *, seen: bool) -> Row:
    found = calibration(predictions)
    return {
        "seen": seen,
        "error": found.error,
        "confidence": fmean(prediction.confidence for prediction in predictions),
        "accuracy": fmean(prediction.right for prediction in predictions),
        "drawing": reliability("Share of right answers by confidence", found, "seen" if seen else "unseen"),
    }


def _by_class(run: ReportData) -> list[Row]:
    """Each class of the images that mistakes are looked for in, the worst first, and what it is taken for."""
    answers: dict[str, Counter[str]] = {}
    for each in run.tested:
        answers.setdefault(each.label, Counter())[each.predicted] += 1
    rows = [
        {
            "name": name,
            "images": said.total(),
            "accuracy": said[name] / said.total(),
            "interval": interval_of(said[name] / said.total(), said.total()),
            "taken_for": [pair for pair in said.most_common(4) if pair[0] != name][:3],
        }
        for name, said in answers.items()
    ]
    return sorted(rows, key=lambda row: (row["accuracy"], -row["images"]))


def _matrix(run: ReportData) -> Markup | None:
    classes = run.plan.classes
    if len(classes) > _MOST_CLASSES_DRAWN:
        return None
    return confusion_matrix("Which class was taken for which", confusion(run.tested, classes), classes)
