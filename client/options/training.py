"""The options of a run, and of a comparison of many: a student's images, its method and its recipe."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, Field, TypeAdapter

from client.learning.backbones import DEFAULT_BACKBONE
from client.learning.recipe import Recipe, RecipeName, Variant
from client.options.base import Options
from client.options.vendor import BulkOptions, PurchaseOptions
from client.purchase.selection import ACQUISITIONS, SelectionStrategy, is_known
from shared.declared import Option

DEFAULT_DATA = Path("data")


def _sound(recipe: Recipe) -> Recipe:
    """A recipe whose numbers are within their bounds: a dataclass does not check them by itself."""
    return TypeAdapter(Recipe).validate_python(asdict(recipe))


def _sound_row(row: Variant) -> Variant:
    _sound(row.recipe)
    return row


def _method(given: Any) -> Any:  # noqa: ANN401 (it is checked when it is registered: that takes torch)
    if isinstance(given, str | Variant) or not hasattr(given, "loss"):
        raise ValueError("It has to be the name of a method, or a tuition.Method.")
    return given


def _student(given: Any) -> Any:  # noqa: ANN401 (it is checked when it is made: that takes torch)
    if not callable(given):
        raise ValueError("It has to be the name of a student, an nn.Module, or what makes one.")
    return given


def _transform(given: Any) -> Any:  # noqa: ANN401 (the same)
    if not callable(given):
        raise ValueError("It has to be the name of a transform, or a function.")
    return given


def _acquisition(given: Any) -> Any:  # noqa: ANN401 (the same)
    if not (is_known(given) if isinstance(given, str) else hasattr(given, "next")):
        names = ", ".join((*get_args(SelectionStrategy), *ACQUISITIONS.names()))
        raise ValueError(f"Images are chosen by {names}, or python:MODULE:NAME, not by {given!r}.")
    return given


_Student = Annotated[Any, AfterValidator(_student)]
_Transform = Annotated[Any, AfterValidator(_transform)]
_Recipe = Annotated[Recipe, AfterValidator(_sound)]
_Method = Annotated[Any, AfterValidator(_method)]
_Row = Annotated[Variant, AfterValidator(_sound_row)]


_Budget = Annotated[int, Field(ge=0, le=10**12)] | Literal["all"]
_Labels = Annotated[int, Field(ge=0, le=1_000_000)] | Literal["all"]


class DeviceOptions(Options):
    """Where a student computes."""

    device: Annotated[str, Option(safe=True)] = Field(
        default="auto", description="cpu, cuda, cuda:1 ...; auto takes a GPU if there is one."
    )


class DataOptions(Options):
    """The labelled images."""

    panel: ClassVar[str | None] = "The images"

    data: Annotated[Path, Option(env="TUITION_DATA")] = Field(
        default=DEFAULT_DATA,
        description="Labelled images: a folder, ROOT/<domain>/<class>/<image> or ROOT/<class>/<image>; "
        "a table (.csv, .jsonl, .parquet) with the columns path, label, perhaps domain and split; or "
        "hf:FOLDER, webdataset:SHARDS, torchvision:NAME:ROOT, fiftyone:FOLDER.",
    )

    layout: Annotated[str | None, Option(metavar="LAYOUT")] = Field(
        default=None,
        description="Which folders are domains and classes: class, domain/class, or with names between, "
        "kfold/domain/class (default: seen from where the images lie, and asked for where that is unclear).",
    )
    columns: Annotated[tuple[str, ...], Option(commas=True)] = Field(
        default=(),
        description="What a table or a source calls its columns, if something else: "
        "path=filename,label=class. domain=split makes the parts of a data set domains.",
    )

    @property
    def labelled(self) -> Path:
        """The labelled images, or what stands in their place."""
        return self.data


class ImageOptions(DataOptions):
    """Which images a student learns from."""

    unlabelled: tuple[str | Path, ...] = Field(
        default=(),
        description="Images without labels, of any thing in any style, to learn from once all labelled "
        "ones are bought: a folder, a file, a pattern, a table (CSV, JSON lines, Parquet) with a "
        "column path, or a source as for data. Give it again for more.",
    )
    group_by_name: bool = Field(
        default=False,
        description="Files named <set>__<name> may be variants of one drawing: keep these on one side of "
        "the split.",
    )
    select: Annotated[str | Any, AfterValidator(_acquisition)] = Field(
        default="stratified",
        description="Which images to buy when the budget does not reach all. stratified: the same number "
        "of each class in each domain, drawn at random; random: drawn from all alike; uncertainty, "
        "python:MODULE:NAME or a package's: round by round. In Python also an `Acquisition`.",
    )


class PromptOptions(Options):
    """How a teacher is asked about classes."""

    panel: ClassVar[str | None] = "The prompts"

    prompt: Annotated[tuple[str, ...], Option(metavar="TEXT")] = Field(
        default=(),
        description="How the teacher is asked about a class, whose name takes the place of {}: 'a photo of a "
        "{}, a kind of running shoe'. Give it again for more, which are averaged (default: the method's).",
    )
    prompts: Annotated[Path | None, Option(metavar="FILE")] = Field(
        default=None,
        description="A CSV file with the columns class and prompt: prompts of single classes, in the place "
        "of `prompt`. Several rows of a class are averaged.",
    )
    names: Annotated[Path | None, Option(metavar="FILE")] = Field(
        default=None,
        description="A CSV file with the columns class and name: the words for classes whose folders are "
        "named by codes (default: names.csv in the image folder, if there is one).",
    )


class DatasetOptions(Options):
    """Labelled images that are a Python object."""

    dataset: Annotated[Any, Option(hidden=True, instead_of="data")] = Field(
        default=None,
        description="Instead of `data`, a data set of (image, label, domain), as PyTorch has them; the "
        "domain may be left out. It is written beside the cache, as files that are read like others.",
    )


class StudentOptions(Options):
    """The student, and the recipe by which it learns."""

    panel: ClassVar[str | None] = "The student"

    student: str | _Student = Field(
        default=DEFAULT_BACKBONE,
        description="A timm backbone, or open_clip:MODEL/PRETRAINED, open_clip:FOLDER, open_clip:icon-clip, "
        "or python:MODULE:NAME. In Python also an `nn.Module` with `num_features`, or what makes one.",
    )
    student_weights: Path | None = Field(
        default=None,
        description="The backbone's weights (safetensors or torch), instead of the model hub's. Images "
        "that another run's student was trained on are not held out from one that begins with its "
        "weights.",
    )
    image_size: Annotated[int | None, Option(safe=True)] = Field(
        default=None,
        ge=16,
        le=1024,
        description="Side of the student's input in pixels (default: its own). Where images are smaller, "
        "a size a little above theirs is faster, and can be more accurate.",
    )
    transform: str | _Transform | None = Field(
        default=None,
        description="A random view of an image in training, in place of the recipe's: python:MODULE:NAME, a "
        "function of one image (uint8, shape (3, side, side)). In Python also the function.",
    )
    mixed_precision: bool = Field(
        default=False,
        description="On a GPU, compute steps on pixels in bfloat16 where that suffices.",
    )
    recipe: RecipeName | _Recipe = Field(
        default="default",
        description="Training protocol: Tuition's own, or the paper's (hours on a CPU).",
    )


class TrainingOptions(StudentOptions):
    """The same, and how long it trains."""

    steps: Annotated[int | None, Option(safe=True)] = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Training steps (default: the recipe's, or as many as show each image twice).",
    )


class RunOptions(ImageOptions, PromptOptions, StudentOptions):
    """The identity of a run: other values make another run."""

    panel: ClassVar[str | None] = "The run"

    target_domain: str | None = Field(
        default=None,
        description="A domain to hold out and be tested on (default: none; every domain trains).",
    )
    adapt: tuple[str | Path, ...] = Field(
        default=(),
        description="As `unlabelled`, but images of the very domain where the student will work; its "
        "accuracy there is then reported as adaptation.",
    )
    method: str | _Method = Field(
        default="vl2v-adip",
        description="How to train; `client methods` lists all. NAME+swad averages weights; "
        "python:MODULE:NAME is one of your own. In Python also a `Method`.",
    )
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of splits, batches and views.")


class DistillOptions(RunOptions, DatasetOptions, TrainingOptions, BulkOptions, DeviceOptions):
    """One run: `tuition.distill`, and `tuition.plan`."""

    panel: ClassVar[str | None] = None

    classes: Annotated[Path | None, Option(instead_of="data")] = Field(
        default=None,
        description=(
            "Instead of `data`, where no image has a label: a .txt file of class names, one per "
            "line; images come from `unlabelled`."
        ),
    )
    leave_one_out: bool = Field(
        default=False,
        description="First leave each domain out in turn, to measure what a new domain would get.",
    )
    out: Annotated[Path | None, Option(one_command=True)] = Field(
        default=None, description="The run's directory (default: runs/...)."
    )
    replace: Annotated[bool, Option(typed=True)] = Field(
        default=False, description="Replace a finished student whose images have changed, say."
    )

    @property
    def labelled(self) -> Path:
        """The labelled images, or the names of the classes in their place."""
        return self.data if self.classes is None else self.classes


class CompareOptions(
    ImageOptions, PromptOptions, DatasetOptions, TrainingOptions, PurchaseOptions, DeviceOptions
):
    """Many runs over one purchase: `tuition.compare`, and `tuition.plan_comparison`."""

    panel: ClassVar[str | None] = None

    out: Annotated[Path, Option(one_command=True)] = Field(
        description="The comparison's folder: runs and tables."
    )
    methods: Annotated[tuple[str | _Row | _Method, ...], Option(commas=True)] = Field(
        default=("erm", "vl2v-adip"),
        min_length=1,
        description="Rows, comma-separated, as `client methods` lists them, each with or without +swad; "
        "and zero-shot, the teacher itself, for which target images are sent to the vendor. In Python "
        "also `Method`s and `Variant`s.",
    )
    target_domains: Annotated[tuple[str, ...], Option(name="target_domain", commas=True, nothing="all")] = (
        Field(default=(), description="Domains to hold out, comma-separated, or all.")
    )
    seeds: int = Field(default=3, ge=1, le=1000, description="How many seeds, counted from 0.")
    budget: int | None = Field(
        default=None,
        ge=1,
        le=10**12,
        description="Embeddings that each run may use, prompts included, whoever paid (default: all it "
        "asks for); zero-shot and unlimited are not limited.",
    )
    budgets: Annotated[tuple[_Budget, ...], Option(commas=True, instead_of="budget")] = Field(
        default=(),
        description="Several budgets in the place of one: each row that asks is run with each that reaches "
        "its class prompts. `all` is no limit.",
    )
    labels: Annotated[tuple[_Labels, ...], Option(commas=True)] = Field(
        default=(),
        description="Each row is run with so many labels a class, `0`, `1` or `all`, say, over all source "
        "domains together; the other images there have none, for methods that learn from such.",
    )
