"""The options that several commands share, and how they print data."""

import json
import os
from importlib.metadata import version
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import ValidationError

from client.api.defaults import DEFAULT_STUDENT, DEFAULT_VENDOR
from client.cli.settings import SETTINGS_FILE
from client.errors import UsageError
from client.learning.recipe import RecipeName
from client.paths import absence, is_file, is_there
from client.progress import printable

if TYPE_CHECKING:
    from client.api.options import DistillOptions

__all__ = ["DEFAULT_DATA", "DEFAULT_STUDENT", "DEFAULT_VENDOR"]

DEFAULT_DATA = Path("data")


def _labelled_set(context: typer.Context, parameter: typer.CallbackParam, data: Path) -> Path:
    """The folder that was named, or the default one where that has anything in it."""
    source = context.get_parameter_source("data")
    if source is None or source.name != "DEFAULT":
        return data
    if context.params.get("classes") or context.params.get("from_"):
        return data
    try:
        if any(data.iterdir()):
            return data
        what = "is empty"
    except FileNotFoundError:
        what = "does not exist"
    except OSError:
        return data  # whoever reads it says what is wrong
    how = "as DIR" if parameter.param_type_name == "argument" else "with --data"
    raise UsageError(
        f"No labelled images were named, and the folder ./{data} {what}. Name yours {how}, with "
        f"TUITION_DATA, or as `data` in {SETTINGS_FILE} (`client init` writes one), or put them into "
        f"./{data}. `client data example icons` unpacks bundled icons to try."
    )


def a_number(value: float | None) -> float | None:
    """The value, which is no NaN: that is neither below a least nor above a greatest one."""
    if value is not None and isnan(value):
        raise typer.BadParameter("nan is not a number.")
    return value


BatchOption = Annotated[
    bool, typer.Option("--batch", help="Buy by bulk jobs: within a day, and cheaper (`client models`).")
]
NoWaitOption = Annotated[
    bool, typer.Option("--no-wait", help="Do not wait for bulk jobs; the same command fetches them later.")
]
DataOption = Annotated[
    Path,
    typer.Option(
        "--data",
        envvar="TUITION_DATA",
        help="Labelled images: a folder, ROOT/<domain>/<class>/<image> or ROOT/<class>/<image>; or a table "
        "(.csv, .jsonl, .parquet) with the columns path, label, perhaps domain and split.",
        callback=_labelled_set,
    ),
]
ClassesOption = Annotated[
    Path | None,
    typer.Option(
        "--classes",
        help="Instead of --data, where no image has a label: a .txt file of class names, a line each; images "
        "come from --unlabelled.",
        is_eager=True,
    ),
]
DataArgument = Annotated[
    Path,
    typer.Argument(
        metavar="DIR",
        envvar="TUITION_DATA",
        help="The labelled images: a folder or a table.",
        callback=_labelled_set,
    ),
]
TargetOption = Annotated[
    str | None,
    typer.Option(
        "--target-domain",
        help="A domain to hold out and be tested on (default: none; every domain trains).",
    ),
]
VendorOption = Annotated[str, typer.Option("--vendor", envvar="TUITION_VENDOR_URL", help="The vendor's URL.")]
ProtocolOption = Annotated[
    Literal["tuition", "infinity", "jina"],
    typer.Option(
        "--protocol",
        envvar="TUITION_PROTOCOL",
        help="The vendor's protocol: Tuition's own, or OpenAI's with images as infinity-emb or Jina does.",
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="Which of the vendor's models to ask (default: the vendor's own default)."),
]


def _key_file(context: typer.Context, file: Path | None) -> Path | None:
    """The file that was named; a key of the environment comes before a file that tuition.toml names."""
    source = context.get_parameter_source("api_key_file")
    filed = source is not None and source.name == "DEFAULT_MAP"
    return None if filed and os.environ.get("TUITION_API_KEY") else file


KeyFileOption = Annotated[
    Path | None,
    typer.Option(
        "--api-key-file",
        help="File with the API key; otherwise TUITION_API_KEY is used.",
        callback=_key_file,
    ),
]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache", envvar="TUITION_CACHE", help="Cache of bought embeddings (default: in your cache folder)."
    ),
]
AskVendorOption = Annotated[
    str | None,
    typer.Option(
        "--ask-vendor",
        metavar="URL",
        help="Ask this vendor about the images of which the student is least sure (default: ask nobody).",
    ),
]
AskShareOption = Annotated[
    float | None,
    typer.Option(
        "--ask-share",
        min=0,
        max=1,
        help="Ask about this share of the images (default: 0.2).",
        callback=a_number,
    ),
]
AskBelowOption = Annotated[
    float | None,
    typer.Option(
        "--ask-below",
        min=0,
        max=1,
        help="Instead of a share: ask about images of which the student is less sure than this.",
        callback=a_number,
    ),
]
AskAccuracyOption = Annotated[
    float | None,
    typer.Option(
        "--ask-accuracy",
        min=0,
        max=1,
        help="Instead of a share: ask about as many images as gave this accuracy on the hold-outs.",
        callback=a_number,
    ),
]
AskBudgetOption = Annotated[
    int | None,
    typer.Option(
        "--ask-budget",
        min=0,
        max=10**12,
        help="Pay for at most this many queries in a period, whatever asks through this cache "
        "(default: no limit).",
    ),
]
AskPeriodOption = Annotated[
    Literal["day", "month", "total"],
    typer.Option("--ask-period", help="When the budget is filled up again: days and months are UTC's."),
]
KeepOption = Annotated[
    Path | None,
    typer.Option(
        "--keep",
        metavar="DIR",
        help="Keep the images that the vendor answered about, for the next student (`client distill --from "
        "RUN --adapt DIR --budget N`); `client cache forget DIR` deletes them.",
    ),
]
KeepAtMostOption = Annotated[
    int,
    typer.Option(
        "--keep-at-most", min=1, max=10**7, help="Keep at most this many images; the oldest are deleted."
    ),
]
RejectOption = Annotated[
    float | None,
    typer.Option(
        "--reject",
        min=0.01,
        max=0.5,
        help="Answer 'none of these' about images that seem to show no class, at this rate of false rejects "
        "on the hold-outs; 0.05, say (default: always name a class).",
        callback=a_number,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
MethodOption = Annotated[
    str,
    typer.Option(
        "--method",
        help="How to train; `client methods` lists all. NAME+swad averages weights.",
    ),
]
RecipeOption = Annotated[
    RecipeName,
    typer.Option("--recipe", help="Training protocol: Tuition's own, or the paper's (hours on a CPU)."),
]
StudentOption = Annotated[
    str,
    typer.Option(
        "--student",
        help="A timm backbone, or open_clip:MODEL/PRETRAINED, open_clip:FOLDER, open_clip:icon-clip.",
    ),
]
StudentWeightsOption = Annotated[
    Path | None,
    typer.Option(
        "--student-weights",
        help="The backbone's weights (safetensors or torch), instead of the model hub's.",
    ),
]
SizeOption = Annotated[
    int | None,
    typer.Option(
        "--image-size",
        min=16,
        max=1024,
        help="Side of the student's input in pixels (default: its own). Where images are smaller, "
        "a size a little above theirs is faster, and can be more accurate.",
    ),
]
StepsOption = Annotated[
    int | None,
    typer.Option(
        "--steps",
        min=1,
        max=1_000_000,
        help="Training steps (default: the recipe's, or as many as show each image twice).",
    ),
]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, max=2**31 - 1, help="Seed of splits, batches and views.")
]
BudgetOption = Annotated[
    int | None,
    typer.Option(
        "--budget",
        min=0,
        max=10**12,
        help="Queries that may be newly paid for, over all resumptions; `client distill` wants it, unless "
        "its method buys nothing.",
    ),
]
MaxSpendOption = Annotated[
    int | None,
    typer.Option(
        "--max-spend",
        min=0,
        max=10**15,
        metavar="MICROS",
        help="Money that may be paid, over all resumptions, in millionths of the vendor's currency unit.",
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask before a large purchase.")]
SelectOption = Annotated[
    Literal["stratified", "random"],
    typer.Option(
        "--select",
        help="Which images to buy when the budget does not reach all. stratified: the same number of each "
        "class in each domain, drawn at random; random: drawn from all alike.",
    ),
]
UnlabelledOption = Annotated[
    list[str] | None,
    typer.Option(
        "--unlabelled",
        help="Images without labels, of any thing in any style, to learn from once all labelled ones are "
        "bought: a folder, a file, a pattern, or a table (CSV, JSON lines, Parquet) with a column `path`. "
        "Give it again for more.",
    ),
]
AdaptOption = Annotated[
    list[str] | None,
    typer.Option(
        "--adapt",
        help="As --unlabelled, but images of the very domain where the student will work; its accuracy there "
        "is then reported as adaptation.",
    ),
]
GroupByNameOption = Annotated[
    bool,
    typer.Option(
        "--group-by-name",
        help="Files named <set>__<name> may be variants of one drawing: keep these on one side of the split.",
    ),
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="cpu, cuda, cuda:1 ...; auto takes a GPU if there is one.")
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run's directory.", show_default=False)]


def _show_version(wanted: bool) -> None:
    if wanted:
        print(version("tuition"))
        raise typer.Exit


VersionOption = Annotated[
    bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
]


# Options that stand under another name where they are passed on.
PASSED_ON_AS = {
    "max_spend_micros": "max_spend",
    "max_spend_agrees": "max_spend",
    "replace": "replace_",
    "wait": "no_wait",
}
# Where the value of an option comes from; the later comes before the earlier.
_SOURCES = ("DEFAULT", "DEFAULT_MAP", "ENVIRONMENT", "COMMANDLINE")
# What a run is: of its next generation, only what is typed is otherwise.
_OF_RUN = frozenset({
    "data", "target_domain", "select", "unlabelled", "adapt", "group_by_name", "method", "student",
    "student_weights", "image_size", "recipe", "steps", "seed", "out",
})  # fmt: skip


def said_of_next(context: typer.Context, options: "DistillOptions") -> dict[str, Any]:
    """The options of a next generation that somebody said.

    Of what a run is, these are those that were typed; of the rest also what the environment or tuition.toml
    sets.
    """

    def is_said(name: str) -> bool:
        source = context.get_parameter_source(PASSED_ON_AS.get(name, name))
        said = None if source is None else source.name
        return said == "COMMANDLINE" or (said not in (None, "DEFAULT") and name not in _OF_RUN)

    said = {name: value for name, value in options if is_said(name)}
    return said | ({"data": options.data} if is_typed(context, "classes") else {})


def learnt_from(context: typer.Context, data: Path, classes: Path | None) -> Path:
    """The labelled images, or the class names in their place where these come from no lower a source.

    Raises:
        UsageError: both are typed, or the names are to be taken and there is no such text file.
    """
    if classes is None:
        return data
    if is_typed(context, "data") and is_typed(context, "classes"):
        raise UsageError("Give one of --data and --classes.")
    rank_of_data, rank_of_classes = (
        0 if source is None else _SOURCES.index(source.name)
        for source in map(context.get_parameter_source, ("data", "classes"))
    )
    if rank_of_classes < rank_of_data:
        return data
    from client.data.domains import CLASSES_SUFFIX

    is_taken = is_typed(context, "classes") or not context.params.get("from_")
    if is_taken and not (is_file(classes) and classes.suffix.lower() == CLASSES_SUFFIX):
        what = f"is no {CLASSES_SUFFIX} file" if is_there(classes) else absence(classes)
        raise UsageError(
            f"{classes} {what}. --classes takes a {CLASSES_SUFFIX} file of class names, a line each."
        )
    return classes


def is_typed(context: typer.Context, name: str) -> bool:
    """Whether an option was typed, and does not come from tuition.toml or the environment."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def amount_to_ask(
    context: typer.Context,
    vendor: str | None,
    share: float | None,
    below: float | None,
    accuracy: float | None,
) -> dict[str, float]:
    """About how many images to ask, as `AskOptions` takes it: a fifth where nothing is said.

    What tuition.toml says gives way to what is typed, and holds only where somebody is asked.

    Raises:
        UsageError: more than one thing is said, or nobody is to be asked.
    """
    named = {"share": share, "below": below, "accuracy": accuracy}
    said = {name: value for name, value in named.items() if value is not None}
    typed = {name: value for name, value in said.items() if is_typed(context, f"ask_{name}")}
    if vendor is None:
        if typed or is_typed(context, "ask_budget"):
            raise UsageError("Name whom to ask: --ask-vendor URL.")
        return {}
    said = typed or said
    if len(said) > 1:
        raise UsageError("Give one of --ask-share, --ask-below and --ask-accuracy.")
    return said or {"share": 0.2}


def refusal_of(error: ValidationError) -> str | None:
    """What to say of an option whose value is not one of its own; `None` where it is about something else."""
    if not error.title.endswith("Options"):
        return None
    first = error.errors()[0]
    name = "".join(f"`{each}`: " for each in first["loc"][:1])
    return f"{name}{first['msg']}, not {first['input']!r}." if name else str(first["msg"])


def print_line(text: str) -> None:
    """Print a line for people; text from outside cannot move or style anything."""
    print(printable(text))


def print_json(data: object) -> None:
    """Print data for scripts."""
    print(json.dumps(data, indent=2))
