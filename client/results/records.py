"""The JSON files of a run as models, field by field; the reference of files is made from them.

`plan.json`, `purchase.json` and `summary.json` are one record each. In `metrics.jsonl` every line is one.
Fields are declared in the order in which the files have them.
"""

import shlex
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SkipValidation, computed_field

from client.results.frames import data_frame
from client.results.intervals import Interval, coin_tosses, interval_of, interval_of_mean
from shared.billing import Quote
from shared.embeddings import ModelCard

if TYPE_CHECKING:
    from pandas import DataFrame

# The name of a file, which need not be Unicode.
Name = Annotated[str, SkipValidation]
Stage = Literal["buy", "align", "distill", "export", "evaluate"]


class Record(BaseModel):
    """One JSON file, or a part of one; it cannot be changed."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)

    def to_json(self) -> dict[str, Any]:
        """The record as `json.dumps` takes it, in the order of the fields."""
        return self.model_dump()


class SkippedFile(Record):
    """A file that a run leaves out."""

    path: Name = Field(description="the file, below the image folder")
    reason: Name = Field(description="why it is left out")


class PlannedTranche(Record):
    """One kind of spending of a plan. A query that an earlier kind asks too is counted there."""

    name: str = Field(description='"texts" (class prompts), "labelled" (images), or "unlabelled" (images)')
    queries: int = Field(
        description="queries needed; those that are alike, or counted earlier, are among them"
    )
    cached: int = Field(description="distinct queries that the cache answers")
    to_buy: int = Field(description="distinct queries that would be bought")
    unaffordable: int = Field(description="distinct queries that the budget does not reach")
    cost_micros: int = Field(description="the price of `to_buy`, in millionths of the vendor's currency unit")


class PlannedPurchase(Record):
    """The queries that a run needs of its teacher, has, and would buy."""

    prompts: int = Field(description="class prompts needed")
    images: int = Field(description="image queries needed, one a training image")
    duplicates: int = Field(description="queries that are alike, and bought once")
    cached: int = Field(description="distinct queries that the cache answers")
    to_buy: int = Field(description="queries that would be bought, as far as the budget reaches")
    unaffordable: int = Field(description="queries that the budget does not reach")
    cost_micros: int = Field(description="the price of `to_buy`, in millionths of the vendor's currency unit")
    budget_left: int | None = Field(
        description="queries that the budget would still allow afterwards; `None` for no limit"
    )
    to_buy_by_domain_and_class: dict[str, dict[str, int]] = Field(
        description="how many images of each domain and class are in `to_buy`"
    )
    tranches: list[PlannedTranche] = Field(
        description="the same by kind of spending, in the order of purchase"
    )


class Outlook(Record):
    """The obstacles to a purchase, and how long it will take."""

    quote: Quote | None = Field(
        description="the vendor's own estimate; `None` where it gives none to this key, or does not answer"
    )
    prices_known: bool = Field(
        description="whether prices are known; where they are not, every cost is shown as 0"
    )
    seconds: int | float | None = Field(
        description="how long buying takes, at the rate of the last comparable purchase; `None` if not known"
    )


class ZeroShotAccuracy(Record):
    """The teacher's own accuracy in a domain."""

    accuracy: float = Field(description="from 0 to 1")
    images: int = Field(description="on how many images")
    on_test_set: bool = Field(
        description="whether these are the images that the student is tested on, or those that were bought"
    )

    @computed_field(description="the 95% interval of `accuracy`; `None` from 1,000 images on")  # type: ignore[prop-decorator]
    @property
    def interval(self) -> Interval | None:
        """The 95% interval of the accuracy; `None` from 1,000 images on."""
        return interval_of(self.accuracy, self.images)


class TeacherCheck(Record):
    """The verdict on the teacher by the labels of the images that were bought."""

    accuracy: float = Field(
        description="how often the nearest class text is the right one, from 0 to 1: the mean over domains"
    )
    by_domain: dict[str, ZeroShotAccuracy] = Field(description="the same by domain")
    gap: float = Field(
        description="how much nearer (cosine) an image is to the text of its class than to the others, on "
        "average"
    )
    trusted: bool = Field(description="whether it is right so often (0.8) that distilling is likely to help")
    learnt_from: bool = Field(
        description="whether anything of it is learnt. Where there are 3 labelled images a class, that "
        "needs 0.7, by the names of `named_by_images` where there are any; below it, by more "
        "than chance explains (95%), the student has the labels alone"
    )
    doubtful: list[Name] = Field(
        description="the classes of which it recognises too few of these images, by the names of "
        "`named_by_images` where there are any: fewer than seven in ten, or four in ten if it "
        "is trusted. Of them only those answers are learnt from that the labels do not speak "
        "against"
    )
    named_by_images: list[Name] = Field(
        description="the classes that would be doubtful, but whose images resemble each other to it. A "
        "student names them by the mean embedding of these images in place of the class text"
    )
    accuracy_by_names: float = Field(
        description="how often the nearest name is the right one, where those of `named_by_images` stand "
        "for the class texts if the run weighs its teacher"
    )
    by_class: dict[Name, float] = Field(
        default={},
        description="how often the nearest name is the right one for images of each class of which some were "
        "bought, by the same names",
    )
    more_to_settle: int | None = Field(
        default=0,
        description="how many more labelled images, bought, would tell (95%) on which side of 0.7 and of 0.8 "
        "`accuracy_by_names` is, if it stays as it is; `None` for more than there are",
    )

    @computed_field(description="the 95% interval of `accuracy`; `None` from 1,000 images on")  # type: ignore[prop-decorator]
    @property
    def interval(self) -> Interval | None:
        """The 95% interval of the accuracy; `None` from 1,000 images on."""
        return interval_of_mean((each.accuracy, each.images) for each in self.by_domain.values())

    @property
    def doubts(self) -> bool:
        """Whether anything speaks against learning from it as it is."""
        return bool(self.doubtful or self.named_by_images or not self.trusted)


class TriedWording(Record):
    """A wording of the class texts, judged by labelled images."""

    templates: list[str] = Field(
        description="its sentences about any class; several are averaged, and none are the usual one"
    )
    prompts_of_classes: int = Field(description="how many classes it has prompts of their own for")
    texts: int = Field(description="how many sentences that are in all")
    by_domain: dict[str, ZeroShotAccuracy] = Field(
        description="how often the teacher names the class of labelled images right by them"
    )
    gained: int = Field(description="how many images are named right by it, and not by the usual prompt")
    lost: int = Field(description="how many by the usual prompt, and not by it")

    @computed_field(description="the mean over domains, from 0 to 1")  # type: ignore[prop-decorator]
    @property
    def accuracy(self) -> float:
        """The mean over domains."""
        return fmean(each.accuracy for each in self.by_domain.values())

    @computed_field(description="the 95% interval of `accuracy`; `None` from 1,000 images on")  # type: ignore[prop-decorator]
    @property
    def interval(self) -> Interval | None:
        """The 95% interval of the accuracy; `None` from 1,000 images on."""
        return interval_of_mean((each.accuracy, each.images) for each in self.by_domain.values())


def described_trial(tried: Sequence[TriedWording]) -> str:
    """The wording that labelled images prefer, in a sentence; `tried` are in order, the best first."""
    best = tried[0]
    chance = coin_tosses(best.gained, best.lost)
    named = " ".join(f"--prompt {shlex.quote(each)}" for each in best.templates)
    if best.prompts_of_classes:
        named = f"the file of --prompts{f' with {named}' if named else ''}"
    if best.gained <= best.lost:
        return "No wording names more of your labelled images right than the usual prompt: stay with that."
    if chance >= 0.05:
        return (
            f"No wording is better than the usual prompt beyond chance: {named} names {best.gained} images "
            f"right that the usual one does not, which names {best.lost} others."
        )
    return (
        f"Your labelled images prefer {named}: {best.gained} are named right by it alone, and {best.lost} by "
        f"the usual prompt alone (chance: {chance:.2g})."
    )


# In a sentence; the record has all of them.
_MOST_NAMED = 5


def described_check(check: TeacherCheck) -> str:
    """The meaning of a check for a run, in a sentence or two."""
    share = f"The teacher names the class of {100 * check.accuracy:.0f}% of your labelled images right"
    if len(check.by_domain) > 1:
        share += ", in the mean over domains"
    told = [f"{share}: distilling from it is likely to help."]
    if not check.learnt_from:
        return f"{share}: too little. The student learns from your labels alone; buy no more of this teacher."
    if not check.trusted:
        advice = "Compare with fine-tuning, which buys nothing (--method erm), before you spend more."
        told = [f"{share}, which is little.", advice]
    if check.named_by_images:
        told.append(
            f"It does not know {_some(check.named_by_images)} by name, but knows their images: they are "
            "named by the mean of these."
        )
    if check.doubtful:
        told.append(
            f"It recognises too few images of {_some(check.doubtful)}: of these, only those of its answers "
            "are learnt from that the labels do not speak against."
        )
    return " ".join(told)


def _some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - _MOST_NAMED
    rest = f" and {more} more class{'' if more == 1 else 'es'}" if more > 0 else ""
    return ", ".join(names[:_MOST_NAMED]) + rest


class AskedWording(Record):
    """How a teacher is asked about classes."""

    templates: list[str] = Field(
        description="sentences about any class, whose name takes the place of `{}`; several are averaged"
    )
    words: dict[Name, str] = Field(
        description="the names of classes in sentences, where they are not those of their folders"
    )
    prompts: dict[Name, list[str]] = Field(
        description="the sentences about single classes, in place of `templates`"
    )


# Templates of which each is shown in a sentence.
_TEMPLATES_SHOWN = 3


def described_wording(wording: AskedWording) -> str:
    """How a teacher is asked about classes, in a clause."""
    shown = [f"“{each.replace('{}', '{class}')}”" for each in wording.templates[:_TEMPLATES_SHOWN]]
    more = len(wording.templates) - len(shown)
    told = [", ".join(shown) + (f" and {more} more" if more else "")]
    if len(wording.templates) > 1:
        told[0] = f"the mean of {told[0]}"
    if wording.words:
        told.append(f"with other words for {len(wording.words)} classes than their folders'")
    if wording.prompts:
        told.append(f"{len(wording.prompts)} classes by prompts of their own")
    return "; ".join(told)


_OF_PLAN_ALONE = ("outlook", "teacher_check", "tried_prompts", "gains", "training_seconds", "advice")


class Plan(Record):
    """The use, purchase and price of a run: `plan.json`, and `client plan --json`."""

    method: str = Field(description='a method and its variants ("vl2v-adip+swad")')
    target_domain: str | None = Field(
        description="the domain that is held out; `None` where every domain trains"
    )
    source_domains: list[str] = Field(description="the others")
    classes: list[str] = Field(description="the names of the classes, in the order of a student's scores")
    wording: AskedWording = Field(description="how the teacher is asked about them")
    train_images: int = Field(description="how many images are trained on")
    holdout_images: int = Field(
        description="how many images of the source domains are held out for selection"
    )
    images_by_domain: dict[str, int] = Field(description="how many readable images each source domain has")
    unlabelled_images: int = Field(description="how many images without labels there are")
    unseen_images: int = Field(
        description="how many of these are not asked about, for so few `steps` look at no more"
    )
    steps: int = Field(description="how many training steps the last stage takes with what is bought")
    left_out: dict[str, int] = Field(description="how many files are left out, by reason")
    skipped: list[SkippedFile] = Field(description="these files")
    model: ModelCard | None = Field(description="the vendor's model; `None` for a method that buys nothing")
    purchase: PlannedPurchase | None = Field(
        description="what would be bought; `None` for a method that buys nothing"
    )
    outlook: Outlook | None = Field(
        default=None,
        description="what the vendor says of the purchase. `tuition.plan` asks; `plan.json` is without",
    )
    teacher_check: TeacherCheck | None = Field(
        default=None,
        description="what the labels say of the teacher, where `tuition.plan` was to buy a few images for "
        "it, or where `purchase` is without the images after the labelled ones, for nothing is "
        "learnt of it",
    )
    tried_prompts: list[TriedWording] | None = Field(
        default=None,
        description="wordings of the class texts, the best first, where `tuition.plan` was to try some",
    )
    gains: dict[str, float] | None = Field(
        default=None,
        description="points of accuracy on unseen styles that kinds of spending gained on the bundled "
        "icons, on top of the kinds before it and of `label-only`, which asks nothing. "
        "`tuition.plan` tells of the method and the recipe that were measured; `plan.json` is "
        "without",
    )
    advice: str | None = Field(
        default=None,
        description="what as many labels and queries came to on the bundled icons, and when not to buy, of "
        "the method and recipe that were measured; `plan.json` is without",
    )
    training_seconds: float | None = Field(
        default=None,
        description="about how many seconds training takes on this machine, by a few images of noise that "
        "`tuition.plan` sends through the student; `None` of a student whose name does not suffice to "
        "build it; `plan.json` is without",
    )

    def to_json(self) -> dict[str, Any]:
        """As the file has it; without what only `tuition.plan` finds out, if it has not."""
        return self.model_dump(exclude={name for name in _OF_PLAN_ALONE if getattr(self, name) is None})

    def to_pandas(self) -> "DataFrame":
        """A row a domain and class, with how many images are to be bought.

        Raises:
            UsageError: pandas is not installed.
        """
        by_domain = {} if self.purchase is None else self.purchase.to_buy_by_domain_and_class
        return data_frame(
            {"domain": domain, "class": name, "to_buy": by_domain.get(domain, {}).get(name, 0)}
            for domain in self.source_domains
            for name in self.classes
        )

    def _repr_html_(self) -> str:
        from client.results.rendering import render

        told = "" if self.teacher_check is None else described_check(self.teacher_check)
        return render("plan_card.html", plan=self, told=told)


class Begun(Record):
    """Of `plan.json`, what a comparison's has as well."""

    model: ModelCard | None = Field(description="the vendor's model; `None` for a method that buys nothing")


class RefusedQuery(Record):
    """A query that the vendor would not embed."""

    name: Name = Field(description="the text, or the path of the image")
    reason: str = Field(description="why, in the vendor's words")


class Purchase(Record):
    """The purchase of a run: `purchase.json`."""

    queries_bought: int = Field(
        default=0, description="queries that the run paid for, over all its resumptions"
    )
    queries_cached: int = Field(default=0, description="queries that it has and did not pay for")
    cost_micros: int = Field(
        default=0, description="what it paid, in millionths of the vendor's currency unit"
    )
    refused: list[RefusedQuery] = Field(
        default=[], description="queries that the vendor would not embed; they were not charged"
    )


class MetricsRow(Record):
    """Something that a stage logged: a line of `metrics.jsonl`, with those fields that it has a value for."""

    stage: Stage = Field(description="the stage of the run")
    step: int | None = Field(default=None, description="the training step, from 1")
    loss: float | None = Field(default=None, description="of the training batch at this step")
    holdout_domain_mean_accuracy: float | None = Field(
        default=None, description="on the hold-outs, from 0 to 1, after this step: the mean over domains"
    )
    holdout_domain_mean_loss: float | None = Field(default=None, description="the cross-entropy on the same")
    first_half_accuracy: float | None = Field(
        default=None, description="the accuracy on the first half of the hold-outs, mean over domains"
    )
    first_half_loss: float | None = Field(default=None, description="the cross-entropy on the same")
    second_half_accuracy: float | None = Field(default=None, description="the accuracy on the other half")
    second_half_loss: float | None = Field(default=None, description="the cross-entropy on the same")
    images: int | None = Field(
        default=None, description="on how many images `student.onnx` was compared with PyTorch"
    )
    max_difference: float | None = Field(
        default=None, description="the largest difference of a probability between the two"
    )
    seconds: float | None = Field(
        default=None, description="wall-clock seconds of the stage; it has a line each time it was taken up"
    )

    def to_json(self) -> dict[str, Any]:
        """As the file has it: without the fields that have no value."""
        return self.model_dump(exclude_none=True)


class Disagreement(Record):
    """A training image that the teacher takes for another class than its label says."""

    image: Name = Field(description="its path, relative to the data folder")
    domain: Name = Field(description="of the image")
    label: Name = Field(description="its class")
    teacher: Name = Field(description="the class whose text, or name by its images, is the nearest to it")
    lead: float = Field(description="how much nearer (cosine) than that of its label")


class Neighbour(Record):
    """The training image that the student finds most like one that it was wrong about."""

    image: Name = Field(description="its path, relative to the data folder")
    label: Name = Field(description="its class")
    cosine: float = Field(description="of the backbone's features of the two")


class Review(Record):
    """Images of a run that are worth a look: `review.json`."""

    compared: int = Field(
        description="how many training images were bought, so that the teacher's answer is known"
    )
    disagree: int = Field(description="of how many it names another class than the label")
    disagreements: list[Disagreement] = Field(
        description="those with the largest lead, at most 24, the largest first"
    )
    neighbours: dict[Name, Neighbour] = Field(
        description="of each image among the most confident mistakes, by its path: what it resembles"
    )


class MeanAccuracy(Record):
    """Shares of right answers, from 0 to 1, each the mean over domains."""

    in_domain: float | None = Field(
        description="on the hold-outs of the source domains; `None` where there is none"
    )
    out_of_domain: float | None = Field(
        description="on the domains that were never trained on; `None` where there is none"
    )
    in_domain_interval: Interval | None = Field(
        default=None, description="95%, of `in_domain`; `None` from 1,000 images on"
    )
    out_of_domain_interval: Interval | None = Field(
        default=None, description="95%, of `out_of_domain`; `None` from 1,000 images on"
    )


class ExportedFile(MeanAccuracy):
    """A student as one ONNX file: what it costs, and how often it is right."""

    kind: str = Field(description='"float32" or "int8"')
    size_bytes: int = Field(description="of the file")
    milliseconds: float = Field(description="for one image on its own, on the CPU: a median")
    images_per_second: float = Field(description="in batches of 32: a median")


class Exports(Record):
    """A student's files beside each other, measured on one machine one after the other: `exports.json`."""

    files: list[ExportedFile] = Field(description="the file in float32 first")


class GroupedAccuracy(Record):
    """A share of right answers, from 0 to 1, where a group of near twins counts as one image."""

    accuracy: float = Field(description="the mean over domains of the mean over groups of the share right")
    interval: Interval | None = Field(
        default=None, description="95%, of groups in place of images; `None` from 1,000 groups on"
    )


class Accuracy(MeanAccuracy):
    """Shares of right answers, from 0 to 1, also of each domain."""

    by_domain: dict[str, float] = Field(description="of each domain, source domains on their hold-outs")
    images_by_domain: dict[str, int] = Field(description="on how many images each was measured")
    worst_domain: str | None = Field(
        description="the domain with the lowest; `None` where nothing is measured"
    )
    intervals_by_domain: dict[str, Interval] = Field(
        default={}, description="the 95% intervals of domains of fewer than 1,000 images"
    )
    in_domain_over_classes: float | None = Field(
        default=None,
        description="as `in_domain`, but of each domain the mean over its classes, so that a class of few "
        "images counts as much as one of many",
    )
    out_of_domain_over_classes: float | None = Field(default=None, description="`out_of_domain` likewise")
    in_domain_cross_fitted: float | None = Field(
        default=None,
        description="as `in_domain`, but on images that chose nothing: of the state that is best on one half "
        "of the hold-outs, the accuracy on the other half; the mean of both. `None` with SWAD, whose weights "
        "are no state that was scored",
    )
    in_domain_over_twins: GroupedAccuracy | None = Field(
        default=None, description="as `in_domain`, but near twins of a domain count as one image together"
    )
    out_of_domain_over_twins: GroupedAccuracy | None = Field(
        default=None, description="`out_of_domain` likewise"
    )
    twin_groups_by_domain: dict[str, int] = Field(
        default={}, description="how many groups there are, an image without a near twin being one"
    )


def held_out_whole(plan: Plan, accuracy: Accuracy) -> list[str]:
    """The source domains that a table holds out whole, so that nothing of them was trained on."""
    held, readable = accuracy.images_by_domain, plan.images_by_domain
    return [name for name in plan.source_domains if name in held and held[name] == readable.get(name)]


class CalibrationError(Record):
    """The expected calibration error, from 0 to 1."""

    in_domain: float | None = Field(
        description="on the hold-outs of the source domains; `None` where there is none"
    )
    out_of_domain: float | None = Field(description="on the target domain; `None` where there is none")


class ModelSize(Record):
    """How large a student is."""

    parameters: int = Field(description="how many it has")
    weights_mib: float = Field(description="memory of its float32 weights, in MiB")


class OnnxSpeed(Record):
    """How fast `student.onnx` is on the CPU: medians."""

    milliseconds: float = Field(description="for one image on its own")
    images_per_second: float = Field(description="in batches of 32")


class StudentSpeed(Record):
    """How fast a student is: medians."""

    device: str = Field(description="where it was measured")
    milliseconds: float = Field(description="for one image on its own")
    images_per_second: float = Field(description="in batches of 32")
    onnx: OnnxSpeed | None = Field(description="the speed of `student.onnx`; `None` if there is none")

    @property
    def as_served(self) -> "OnnxSpeed | StudentSpeed":
        """The speed of the file that is deployed: `student.onnx` where there is one."""
        return self.onnx or self

    @property
    def where(self) -> str:
        """Where `as_served` was measured, in a few words."""
        if self.onnx is not None:
            return "as ONNX on this CPU"
        return "on this " + {"cuda": "GPU", "cpu": "CPU"}.get(self.device, self.device)


class Summary(Record):
    """The results of a finished run: `summary.json`."""

    method: str = Field(description="a method and its variants")
    student: str = Field(description="the backbone's name")
    image_size: int = Field(description="side of the student's input in pixels")
    target_domain: str | None = Field(
        description="the domain that was held out; `None` where every domain trained"
    )
    seed: int = Field(description="of the run")
    steps: int = Field(description="training steps of the last stage")
    images_per_domain: int = Field(
        description="images of each source domain in a batch of that stage, or of the images without labels "
        "where there is no domain"
    )
    steps_kept: tuple[int, int] = Field(
        description="the first and the last of the steps whose weights are the student's (their mean)"
    )
    queries_bought: int = Field(description="queries that the run paid for, over all its resumptions")
    queries_cached: int = Field(description="queries that it used and did not pay for")
    cost_micros: int = Field(description="what it paid, in millionths of the vendor's currency unit")
    teacher: ModelCard | None = Field(description="the vendor's model; `None` for a method that buys nothing")
    train_images: int = Field(description="how many images were trained on")
    unlabelled_images: int = Field(description="how many images without labels were bought, and trained on")
    adapted: bool = Field(
        description="whether some of these show the very domain where the student will work, or some of "
        "those of the students before, whose weights it began with. Then its accuracy there is "
        "that of adaptation, and not of generalisation"
    )
    weights_known: bool = Field(
        description="whether it is known which images the weights were trained on that it began with. "
        "Otherwise it may be tested on some of them"
    )
    holdout_images: int = Field(description="how many images were held out for selection")
    skipped_images: int = Field(description="how many files of the source domains were left out")
    seconds: dict[str, float] = Field(description="wall-clock seconds of each stage")
    left_out: dict[str, int] = Field(
        description="how many files were left out, the target domain's among them, by reason"
    )
    accuracy: Accuracy = Field(description="of the student")
    calibration_error: CalibrationError = Field(description="of its probabilities")
    teacher_zero_shot: dict[str, ZeroShotAccuracy] = Field(
        description="the teacher's own accuracy in those domains where it is known"
    )
    size: ModelSize = Field(description="of the student")
    speed: StudentSpeed = Field(description="of the student")
    teacher_queries_per_second: float | None = Field(
        description="the rate at which its embeddings were last bought, if that is known"
    )
    leave_one_out: dict[str, float] = Field(
        description="what students that were trained without a domain got right in it, for each domain, by "
        "the same method and with the same seed: what to expect of a new domain. Empty unless "
        "asked for"
    )
    leave_one_out_intervals: dict[str, Interval] = Field(
        default={}, description="the 95% intervals of those that were measured on fewer than 1,000 images"
    )
    teacher_check: TeacherCheck | None = Field(
        description="what the labels say of the teacher; `None` where too few labelled images were bought"
    )

    def to_pandas(self) -> "DataFrame":
        """A row a domain: the student's accuracy there, its interval, and the teacher's accuracy.

        Raises:
            UsageError: pandas is not installed.
        """
        found = self.accuracy
        return data_frame(
            {
                "domain": name,
                "seen": name != self.target_domain,
                "accuracy": accuracy,
                "low": (found.intervals_by_domain.get(name) or (None, None))[0],
                "high": (found.intervals_by_domain.get(name) or (None, None))[1],
                "images": found.images_by_domain[name],
                "teacher": self.teacher_zero_shot[name].accuracy if name in self.teacher_zero_shot else None,
            }
            for name, accuracy in found.by_domain.items()
        )

    def _repr_html_(self) -> str:
        from client.results.rendering import render

        check = self.teacher_check
        told = described_check(check) if check is not None and check.doubts else ""
        return render("summary_card.html", summary=self, told=told)
