"""`client`: plan, distill, embed, methods, and what other modules add to them."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from client.cli.account import batches, models, usage
from client.cli.cache import cache_app
from client.cli.canary import canary
from client.cli.compare import compare
from client.cli.confirm import on_terminal
from client.cli.data import data_app
from client.cli.init import init
from client.cli.lines import from_lines
from client.cli.options import (
    DEFAULT_DATA,
    DEFAULT_STUDENT,
    DEFAULT_VENDOR,
    AdaptOption,
    BatchOption,
    BudgetOption,
    CacheOption,
    ClassesOption,
    DataOption,
    DeviceOption,
    GroupByNameOption,
    JsonOption,
    KeyFileOption,
    MaxSpendOption,
    MethodOption,
    ModelOption,
    NoWaitOption,
    ProtocolOption,
    RecipeOption,
    SeedOption,
    SelectOption,
    SizeOption,
    StepsOption,
    StudentOption,
    StudentWeightsOption,
    TargetOption,
    UnlabelledOption,
    VendorOption,
    VersionOption,
    YesOption,
    is_typed,
    learnt_from,
    print_json,
    refusal_of,
    said_of_next,
)
from client.cli.receipts import receipts_app
from client.cli.serve import serve
from client.cli.settings import read_settings
from client.cli.students import evaluate, export, predict, report
from client.errors import ClientError, UsageError
from client.interrupts import interruptible
from client.progress import Display
from shared.threads import share_processors

if TYPE_CHECKING:  # torch and httpx are not imported before a command needs them
    from client.results.records import Plan

app = typer.Typer(
    name="client",
    help="Buy teacher embeddings once, and distil a small student that holds up on unseen domains.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

app.add_typer(cache_app)
app.add_typer(data_app)
app.add_typer(receipts_app)
for command in (evaluate, predict, report, export, serve, compare, init, canary, batches, models, usage):
    app.command()(command)


@app.callback()
def _options(context: typer.Context, _version: VersionOption = False) -> None:
    program = context.command
    if isinstance(program, TyperGroup) and context.invoked_subcommand != "init":
        context.default_map = read_settings(program, of=context.invoked_subcommand)


INTERRUPTED = 130
# What an installation that only serves is without.
_FOR_TRAINING = frozenset(
    {"accelerate", "httpx", "platformdirs", "safetensors", "timm", "torch", "torchvision"}
)


@app.command()
def distill(
    context: typer.Context,
    data: DataOption = DEFAULT_DATA,
    classes: ClassesOption = None,
    target_domain: TargetOption = None,
    budget: BudgetOption = None,
    max_spend: MaxSpendOption = None,
    select: SelectOption = "stratified",
    unlabelled: UnlabelledOption = None,
    adapt: AdaptOption = None,
    group_by_name: GroupByNameOption = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="The run's directory (default: runs/...).")
    ] = None,
    replace_: Annotated[
        bool, typer.Option("--replace", help="Replace a finished student whose images have changed, say.")
    ] = False,
    method: MethodOption = "vl2v-adip",
    student: StudentOption = DEFAULT_STUDENT,
    student_weights: StudentWeightsOption = None,
    image_size: SizeOption = None,
    recipe: RecipeOption = "default",
    steps: StepsOption = None,
    seed: SeedOption = 0,
    leave_one_out: Annotated[
        bool,
        typer.Option(
            "--leave-one-out",
            help="First leave each domain out in turn, to measure what a new domain would get.",
        ),
    ] = False,
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="RUN",
            is_eager=True,
            help="Make the next student from this run's: what is not typed here is as it was there, and "
            "--unlabelled and --adapt add to what it had.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan and stop; spends nothing.")
    ] = False,
    batch: BatchOption = False,
    no_wait: NoWaitOption = False,
    yes: YesOption = False,
    device: DeviceOption = "auto",
    vendor: VendorOption = DEFAULT_VENDOR,
    protocol: ProtocolOption = "tuition",
    model: ModelOption = None,
    api_key_file: KeyFileOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a student, taught by the vendor's model; with --target-domain, test it on a domain held out.

    The same command resumes an interrupted run and never pays twice. A finished student is replaced only
    with --replace or after a yes, and stands until its successor is whole.

    Example: client distill --data icons --budget 50000
    """
    from client.api import configs, distillation, planning
    from client.api.options import DistillOptions
    from client.cli.tables import print_summary

    options = DistillOptions(
        data=learnt_from(context, data, classes), target_domain=target_domain, budget=budget,
        max_spend_micros=max_spend, select=select, unlabelled=tuple(unlabelled or ()),
        adapt=tuple(adapt or ()), group_by_name=group_by_name, method=method, student=student,
        student_weights=student_weights, image_size=image_size, recipe=recipe, steps=steps, seed=seed,
        vendor=vendor, protocol=protocol, model=model, api_key_file=api_key_file, cache=cache,
        out=out, replace=replace_, yes=yes, device=device, leave_one_out=leave_one_out,
        batch=batch, wait=not no_wait, max_spend_agrees=is_typed(context, "max_spend"),
    )  # fmt: skip
    if from_ is not None:
        options = configs.next_options(from_, **said_of_next(context, options))
    if dry_run:
        _show_plan(planning.dry_run(options, progress=Display()), as_json=as_json)
        return
    run = distillation.distill(options, confirm=on_terminal(), progress=Display())
    if not run.is_first:
        return
    if as_json:
        print_json(run.summary.to_json())
    else:
        print_summary(run)


@app.command()
def plan(
    context: typer.Context,
    data: DataOption = DEFAULT_DATA,
    classes: ClassesOption = None,
    target_domain: TargetOption = None,
    budget: BudgetOption = None,
    max_spend: MaxSpendOption = None,
    select: SelectOption = "stratified",
    unlabelled: UnlabelledOption = None,
    adapt: AdaptOption = None,
    group_by_name: GroupByNameOption = False,
    method: MethodOption = "vl2v-adip",
    student: StudentOption = DEFAULT_STUDENT,
    student_weights: StudentWeightsOption = None,
    image_size: SizeOption = None,
    recipe: RecipeOption = "default",
    steps: StepsOption = None,
    seed: SeedOption = 0,
    probe: Annotated[
        int,
        typer.Option(
            "--probe",
            min=0,
            max=100_000,
            help="Buy this many of the run's first queries now, and tell by your labels how good the "
            "teacher is.",
        ),
    ] = 0,
    yes: YesOption = False,
    vendor: VendorOption = DEFAULT_VENDOR,
    protocol: ProtocolOption = "tuition",
    model: ModelOption = None,
    api_key_file: KeyFileOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a run would use, buy and cost; spends nothing without --probe.

    It writes to the cache and beside it alone: it keeps what it learns of the files, so that the next command
    is quick. `client distill --dry-run` and `client compare --dry-run` do the same.

    Example: client plan --data icons --target-domain pixel --budget 2000
    """
    from client.api import planning
    from client.api.options import DistillOptions

    options = DistillOptions(
        data=learnt_from(context, data, classes), target_domain=target_domain, budget=budget,
        max_spend_micros=max_spend, select=select, unlabelled=tuple(unlabelled or ()),
        adapt=tuple(adapt or ()), group_by_name=group_by_name, method=method, student=student,
        student_weights=student_weights, image_size=image_size, recipe=recipe, steps=steps, seed=seed,
        vendor=vendor, protocol=protocol, model=model, api_key_file=api_key_file, cache=cache,
        yes=yes, max_spend_agrees=is_typed(context, "max_spend"),
    )  # fmt: skip
    planned = planning.plan(options, probe=probe, confirm=on_terminal(), progress=Display())
    _show_plan(planned, as_json=as_json)


@app.command()
def embed(
    context: typer.Context,
    out: Annotated[
        Path, typer.Option("--out", help="FILE.npy, FILE.parquet or FILE.jsonl.", show_default=False)
    ],
    images: Annotated[
        list[str] | None,
        typer.Option(
            "--images", help="An image file, a folder, a pattern ('shots/**/*.png'), or - for paths on stdin."
        ),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", help="A text, or - for one a line on stdin.")
    ] = None,
    budget: BudgetOption = None,
    max_spend: MaxSpendOption = None,
    batch: BatchOption = False,
    no_wait: NoWaitOption = False,
    yes: YesOption = False,
    vendor: VendorOption = DEFAULT_VENDOR,
    protocol: ProtocolOption = "tuition",
    model: ModelOption = None,
    api_key_file: KeyFileOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Embed images and texts, buying what the cache lacks. Rows are in the order given: texts, then images.

    Folders are searched below; hidden files are left out. Images that cannot be embedded are listed, and the
    command ends with 1. In .npy they are rows of NaN, and FILE.index.jsonl names every row; in .parquet and
    .jsonl, which hold the names themselves, they are left out.

    Example: client embed --text "a photo of a cat" --images photos --out embeddings.npy
    """
    from client.api import embedding
    from client.api.options import EmbedOptions
    from client.runs.embedding import check_output

    check_output(out)  # before standard input is read
    texts, paths = from_lines(text or [], images or [])
    options = EmbedOptions(
        texts=tuple(texts), images=tuple(paths), out=out, budget=budget, max_spend_micros=max_spend, yes=yes,
        vendor=vendor, protocol=protocol, model=model, api_key_file=api_key_file, cache=cache,
        batch=batch, wait=not no_wait, max_spend_agrees=is_typed(context, "max_spend"),
    )  # fmt: skip
    embeddings = embedding.embed(options, confirm=on_terminal(), progress=Display())
    if as_json:
        print_json(embeddings.to_json())
    if embeddings.skipped:
        raise typer.Exit(1)


@app.command()
def methods(as_json: JsonOption = False) -> None:
    """List the methods of training, and what each asks the vendor.

    Example: client methods
    """
    from client.cli.tables import print_table
    from client.learning.methods import METHODS

    if as_json:
        print_json(
            [{"method": m.name, "asks": sorted(m.asks), "summary": m.summary} for m in METHODS.values()]
        )
    else:
        rows = [(m.name, " and ".join(sorted(m.asks)) or "nothing", m.summary) for m in METHODS.values()]
        print_table(("method", "asks the vendor about", "how"), rows, words=3)


def _show_plan(found: "Plan", *, as_json: bool) -> None:
    from client.cli.tables import print_plan

    if as_json:
        print_json(found.to_json())
    else:
        print_plan(found)


def _is_of_output() -> bool:
    """Whether standard output is what cannot be written; then nothing more is, also not as Python ends."""
    try:
        print(flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def main(arguments: list[str] | None = None) -> None:
    """Run the command line, by default that of the process; an error becomes its message and exit code."""
    share_processors()
    try:
        with interruptible():
            try:
                app(arguments)
            finally:
                if sys.stdout is not None:  # of a process that has one
                    sys.stdout.flush()  # what cannot be written is said here, and is a traceback later
    except ClientError as error:
        Display().note(f"Error: {error}")
        sys.exit(error.exit_code)
    except ValidationError as error:
        refusal = refusal_of(error)
        if refusal is None:
            raise
        Display().note(f"Error: {refusal}")
        sys.exit(UsageError.exit_code)
    except ModuleNotFoundError as error:
        if error.name not in _FOR_TRAINING:
            raise
        Display().note(
            f"Error: {error.name} is missing, which this command takes: pip install '.[client]' in Tuition's "
            "folder."
        )
        sys.exit(UsageError.exit_code)
    except OSError as error:
        if not _is_of_output():
            raise
        if not isinstance(error, BrokenPipeError):  # whoever reads no more knows that
            Display().note(f"Error: standard output cannot be written: {error.strerror}.")
        sys.exit(ClientError.exit_code)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # what Typer makes of Ctrl-C
            Display().note(
                "Interrupted. What was bought and trained is kept; the same command goes on from here."
            )
        raise
