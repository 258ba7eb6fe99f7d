"""The JSON files of a run as models, field by field; docs/files.md is made from them.

`plan.json`, `purchase.json` and `summary.json` are one record each. In `metrics.jsonl` every line is one.
Fields are declared in the order in which the files have them.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, SkipValidation

from shared.billing import Quote
from shared.embeddings import ModelCard

# The name of a file, which need not be Unicode.
Name = Annotated[str, SkipValidation]
Stage = Literal["buy", "align", "distill", "export", "evaluate"]


class Record(BaseModel):
    """One JSON file, or a part of one; it cannot be changed."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)

    def to_json(self) -> dict[str, Any]:
        """What `json.dumps` takes, in the order of the fields."""
        return self.model_dump()


class SkippedFile(Record):
    """A file that a run leaves out.

    Attributes:
        path: the file, below the image folder.
        reason: why it is left out.
    """

    path: Name
    reason: Name


class PlannedTranche(Record):
    """What a plan does with one kind of spending. A query that an earlier kind asks too is counted there.

    Attributes:
        name: "texts" (class prompts), "labelled" (images), or "unlabelled" (images).
        queries: queries needed; those that are alike, or counted earlier, are among them.
        cached: distinct queries that the cache answers.
        to_buy: distinct queries that would be bought.
        unaffordable: distinct queries that the budget does not reach.
        cost_micros: the price of `to_buy`, in millionths of the vendor's currency unit.
    """

    name: str
    queries: int
    cached: int
    to_buy: int
    unaffordable: int
    cost_micros: int


class PlannedPurchase(Record):
    """What a run needs of its teacher, has, and would buy.

    Attributes:
        prompts: class prompts needed.
        images: image queries needed, one a training image.
        duplicates: queries that are alike, and bought once.
        cached: distinct queries that the cache answers.
        to_buy: queries that would be bought, as far as the budget reaches.
        unaffordable: queries that the budget does not reach.
        cost_micros: the price of `to_buy`, in millionths of the vendor's currency unit.
        budget_left: queries that the budget would still allow afterwards; `None` for no limit.
        to_buy_by_domain_and_class: how many images of each domain and class are in `to_buy`.
        tranches: the same by kind of spending, in the order of purchase.
    """

    prompts: int
    images: int
    duplicates: int
    cached: int
    to_buy: int
    unaffordable: int
    cost_micros: int
    budget_left: int | None
    to_buy_by_domain_and_class: dict[str, dict[str, int]]
    tranches: list[PlannedTranche]


class Outlook(Record):
    """What stands in the way of a purchase, and how long it will take.

    Attributes:
        quote: the vendor's own estimate; `None` where it gives none to this key, or does not answer.
        prices_known: whether the vendor states prices; where it does not, every cost is shown as 0.
        seconds: how long buying takes, at the rate of the last comparable purchase; `None` if not known.
    """

    quote: Quote | None
    prices_known: bool
    seconds: int | float | None


class ZeroShotAccuracy(Record):
    """The teacher's own accuracy in a domain.

    Attributes:
        accuracy: from 0 to 1.
        images: on how many images.
        on_test_set: whether these are the images that the student is tested on, or those that were bought.
    """

    accuracy: float
    images: int
    on_test_set: bool


class TeacherCheck(Record):
    """What the labels of the images that were bought say of the teacher.

    Attributes:
        accuracy: how often the nearest class text is the right one, from 0 to 1: the mean over domains.
        by_domain: the same by domain.
        gap: how much nearer (cosine) an image is to the text of its class than to the others, on average.
        trusted: whether it is right so often (0.8) that distilling is likely to help.
        learnt_from: whether anything of it is learnt. Where there are 3 labelled images a class, that needs
            0.7, by the names of `named_by_images` where there are any; below it, by more than chance explains
            (95%), the student has the labels alone.
        doubtful: the classes of which it recognises too few of these images, by the names of
            `named_by_images` where there are any: fewer than seven in ten, or four in ten if it is trusted.
            Of them only those answers are learnt from that the labels do not speak against.
        named_by_images: the classes that would be doubtful, but whose images resemble each other to it. A
            student names them by the mean embedding of these images in place of the class text.
        accuracy_by_names: how often the nearest name is the right one, where those of `named_by_images` stand
            for the class texts if the run weighs its teacher.
    """

    accuracy: float
    by_domain: dict[str, ZeroShotAccuracy]
    gap: float
    trusted: bool
    learnt_from: bool
    doubtful: list[Name]
    named_by_images: list[Name]
    accuracy_by_names: float

    @property
    def doubts(self) -> bool:
        """Whether anything speaks against learning from it as it is."""
        return bool(self.doubtful or self.named_by_images or not self.trusted)


# In a sentence; the record has all of them.
_MOST_NAMED = 5


def described_check(check: TeacherCheck) -> str:
    """What a check means for a run, in a sentence or two."""
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


_OF_PLAN_ALONE = ("outlook", "teacher_check", "gains")


class Plan(Record):
    """What a run uses, buys and costs: `plan.json`, and `client plan --json`.

    Attributes:
        method: a method and its variants ("vl2v-adip+swad").
        target_domain: the domain that is held out; `None` where every domain trains.
        source_domains: the others.
        classes: the names of the classes, in the order of a student's scores.
        train_images: how many images are trained on.
        holdout_images: how many images of the source domains are held out for selection.
        images_by_domain: how many readable images each source domain has.
        unlabelled_images: how many images without labels there are.
        unseen_images: how many of these are not asked about, for so few `steps` look at no more.
        steps: how many training steps the last stage takes with what is bought.
        left_out: how many files are left out, by reason.
        skipped: these files.
        model: the vendor's model; `None` for a method that buys nothing.
        purchase: what would be bought; `None` for a method that buys nothing.
        outlook: what the vendor says of the purchase. `client.plan` asks for it; `plan.json` is without.
        teacher_check: what the labels say of the teacher, where `client.plan` was to buy a few images for it,
            or where `purchase` is without the images after the labelled ones, for nothing is learnt of it.
        gains: points of accuracy on unseen styles that kinds of spending gained on the bundled icons, on top
            of the kinds before it and of `label-only`, which asks nothing. `client.plan` tells of the method
            and the recipe that were measured; `plan.json` is without.
    """

    method: str
    target_domain: str | None
    source_domains: list[str]
    classes: list[str]
    train_images: int
    holdout_images: int
    images_by_domain: dict[str, int]
    unlabelled_images: int
    unseen_images: int
    steps: int
    left_out: dict[str, int]
    skipped: list[SkippedFile]
    model: ModelCard | None
    purchase: PlannedPurchase | None
    outlook: Outlook | None = None
    teacher_check: TeacherCheck | None = None
    gains: dict[str, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """As the file has it; without what only `client.plan` finds out, if it has not."""
        return self.model_dump(exclude={name for name in _OF_PLAN_ALONE if getattr(self, name) is None})


class Begun(Record):
    """Of `plan.json`, what a comparison's has as well.

    Attributes:
        model: the vendor's model; `None` for a method that buys nothing.
    """

    model: ModelCard | None


class RefusedQuery(Record):
    """A query that the vendor would not embed.

    Attributes:
        name: the text, or the path of the image.
        reason: why, in the vendor's words.
    """

    name: Name
    reason: str


class Purchase(Record):
    """What a run bought: `purchase.json`.

    Attributes:
        queries_bought: queries that the run paid for, over all its resumptions.
        queries_cached: queries that it has and did not pay for.
        cost_micros: what it paid, in millionths of the vendor's currency unit.
        refused: queries that the vendor would not embed; they were not charged.
    """

    queries_bought: int = 0
    queries_cached: int = 0
    cost_micros: int = 0
    refused: list[RefusedQuery] = []


class MetricsRow(Record):
    """Something that a stage logged: a line of `metrics.jsonl`, with those fields that it has a value for.

    Attributes:
        stage: the stage of the run.
        step: the training step, from 1.
        loss: of the training batch at this step.
        holdout_domain_mean_accuracy: on the hold-outs, from 0 to 1, after this step: the mean over domains.
        holdout_domain_mean_loss: the cross-entropy on the same.
        images: on how many images `student.onnx` was compared with PyTorch.
        max_difference: the largest difference of a probability between the two.
        seconds: wall-clock seconds of the stage; it has a line each time it was taken up.
    """

    stage: Stage
    step: int | None = None
    loss: float | None = None
    holdout_domain_mean_accuracy: float | None = None
    holdout_domain_mean_loss: float | None = None
    images: int | None = None
    max_difference: float | None = None
    seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As the file has it: without the fields that have no value."""
        return self.model_dump(exclude_none=True)


class Disagreement(Record):
    """A training image that the teacher takes for another class than its label says.

    Attributes:
        image: its path, relative to the data folder.
        domain: of the image.
        label: its class.
        teacher: the class whose text is the nearest to its embedding.
        lead: how much nearer (cosine) than the text of its label.
    """

    image: Name
    domain: Name
    label: Name
    teacher: Name
    lead: float


class Neighbour(Record):
    """The training image that the student finds most like one that it was wrong about.

    Attributes:
        image: its path, relative to the data folder.
        label: its class.
        cosine: of the backbone's features of the two.
    """

    image: Name
    label: Name
    cosine: float


class Review(Record):
    """What is worth looking at in the images of a run: `review.json`.

    Attributes:
        compared: how many training images were bought, so that the teacher's answer is known.
        disagree: of how many it names another class than the label.
        disagreements: those with the largest lead, at most 24, the largest first.
        neighbours: of each image among the most confident mistakes, by its path: what it resembles.
    """

    compared: int
    disagree: int
    disagreements: list[Disagreement]
    neighbours: dict[Name, Neighbour]


class ExportedFile(Record):
    """A student as one ONNX file: what it costs.

    Attributes:
        kind: "float32" or "int8".
        size_bytes: of the file.
        milliseconds: for one image on its own, on the CPU: a median.
        images_per_second: in batches of 32: a median.
        in_domain: accuracy on the hold-outs, the mean over domains; `None` where there are none.
        out_of_domain: accuracy on the target domain; `None` where there is none.
    """

    kind: str
    size_bytes: int
    milliseconds: float
    images_per_second: float
    in_domain: float | None
    out_of_domain: float | None


class Exports(Record):
    """A student's files beside each other, measured on one machine one after the other: `exports.json`.

    Attributes:
        files: the file in float32 first.
    """

    files: list[ExportedFile]


class Accuracy(Record):
    """Shares of right answers, from 0 to 1.

    Attributes:
        in_domain: the mean over the hold-outs of the source domains; `None` where there is none.
        out_of_domain: the mean over the domains that were never trained on; `None` where there is none.
        by_domain: of each domain, source domains on their hold-outs.
        images_by_domain: on how many images each was measured.
        worst_domain: the domain with the lowest; `None` where nothing is measured.
    """

    in_domain: float | None
    out_of_domain: float | None
    by_domain: dict[str, float]
    images_by_domain: dict[str, int]
    worst_domain: str | None


def held_out_whole(plan: Plan, accuracy: Accuracy) -> list[str]:
    """The source domains that a table holds out whole, so that nothing of them was trained on."""
    held, readable = accuracy.images_by_domain, plan.images_by_domain
    return [name for name in plan.source_domains if name in held and held[name] == readable.get(name)]


class CalibrationError(Record):
    """The expected calibration error, from 0 to 1.

    Attributes:
        in_domain: on the hold-outs of the source domains; `None` where there is none.
        out_of_domain: on the target domain; `None` where there is none.
    """

    in_domain: float | None
    out_of_domain: float | None


class ModelSize(Record):
    """How large a student is.

    Attributes:
        parameters: how many it has.
        weights_mib: memory of its float32 weights, in MiB.
    """

    parameters: int
    weights_mib: float


class OnnxSpeed(Record):
    """How fast `student.onnx` is on the CPU: medians.

    Attributes:
        milliseconds: for one image on its own.
        images_per_second: in batches of 32.
    """

    milliseconds: float
    images_per_second: float


class StudentSpeed(Record):
    """How fast a student is: medians.

    Attributes:
        device: where it was measured.
        milliseconds: for one image on its own.
        images_per_second: in batches of 32.
        onnx: the speed of `student.onnx`; `None` if there is none.
    """

    device: str
    milliseconds: float
    images_per_second: float
    onnx: OnnxSpeed | None


class Summary(Record):
    """What a finished run came to: `summary.json`.

    Attributes:
        method: a method and its variants.
        student: the backbone's name.
        image_size: side of the student's input in pixels.
        target_domain: the domain that was held out; `None` where every domain trained.
        seed: of the run.
        steps: training steps of the last stage.
        images_per_domain: images of each source domain in a batch of that stage, or of the images without
            labels where there is no domain.
        steps_kept: the first and the last of the steps whose weights are the student's (their mean).
        queries_bought: queries that the run paid for, over all its resumptions.
        queries_cached: queries that it used and did not pay for.
        cost_micros: what it paid, in millionths of the vendor's currency unit.
        teacher: the vendor's model; `None` for a method that buys nothing.
        train_images: how many images were trained on.
        unlabelled_images: how many images without labels were bought, and trained on.
        adapted: whether some of these show the very domain where the student will work, or some of those of
            the students before, whose weights it began with. Then its accuracy there is that of adaptation,
            and not of generalisation.
        weights_known: whether it is known which images the weights were trained on that it began with.
            Otherwise it may be tested on some of them.
        holdout_images: how many images were held out for selection.
        skipped_images: how many files of the source domains were left out.
        seconds: wall-clock seconds of each stage.
        left_out: how many files were left out, the target domain's among them, by reason.
        accuracy: of the student.
        calibration_error: of its probabilities.
        teacher_zero_shot: the teacher's own accuracy in those domains where it is known.
        teacher_check: what the labels say of the teacher; `None` where too few labelled images were bought.
        size: of the student.
        speed: of the student.
        teacher_queries_per_second: the rate at which its embeddings were last bought, if that is known.
        leave_one_out: what students that were trained without a domain got right in it, for each domain, by
            the same method and with the same seed: what to expect of a new domain. Empty unless asked for.
    """

    method: str
    student: str
    image_size: int
    target_domain: str | None
    seed: int
    steps: int
    images_per_domain: int
    steps_kept: tuple[int, int]
    queries_bought: int
    queries_cached: int
    cost_micros: int
    teacher: ModelCard | None
    train_images: int
    unlabelled_images: int
    adapted: bool
    weights_known: bool
    holdout_images: int
    skipped_images: int
    seconds: dict[str, float]
    left_out: dict[str, int]
    accuracy: Accuracy
    calibration_error: CalibrationError
    teacher_zero_shot: dict[str, ZeroShotAccuracy]
    size: ModelSize
    speed: StudentSpeed
    teacher_queries_per_second: float | None
    leave_one_out: dict[str, float]
    teacher_check: TeacherCheck | None
