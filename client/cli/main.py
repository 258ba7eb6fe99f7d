"""`client`: plan, distill, embed, models, methods, usage, and what other modules add to them."""

import sys
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.cli.cache import cache_app
from client.cli.compare import compare
from client.cli.confirm import asking, replacing
from client.cli.data import data_app
from client.cli.options import (
    DEFAULT_STUDENT,
    DEFAULT_VENDOR,
    BudgetOption,
    CacheOption,
    DataOption,
    DeviceOption,
    GroupByNameOption,
    JsonOption,
    KeyFileOption,
    MaxSpendOption,
    MethodOption,
    ModelOption,
    ProtocolOption,
    RecipeName,
    RecipeOption,
    SeedOption,
    SelectOption,
    SizeOption,
    StepsOption,
    StudentOption,
    StudentWeightsOption,
    TargetOption,
    VendorOption,
    VersionOption,
    ViewsOption,
    YesOption,
    chosen_device,
    print_json,
    require_file,
    require_outside,
)
from client.cli.students import evaluate, export, predict, report
from client.errors import ClientError, UsageError
from client.learning.threads import share_processors
from client.progress import Display
from shared.billing import GroupBy

if TYPE_CHECKING:  # torch takes seconds to import, and most commands do not need it
    from client.buying.selection import SelectionStrategy
    from client.runs.connection import Connection
    from client.runs.folder import RunConfig

app = typer.Typer(
    name="client",
    help="Buy teacher embeddings once, and distil a small student that holds up on unseen domains.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

app.add_typer(cache_app)
app.add_typer(data_app)
for command in (evaluate, predict, report, export, compare):
    app.command()(command)


@app.callback()
def _options(_version: VersionOption = False) -> None:
    pass


INTERRUPTED = 130


@app.command()
def distill(
    data: DataOption,
    target_domain: TargetOption,
    budget: BudgetOption = None,
    max_spend: MaxSpendOption = None,
    select: SelectOption = "stratified",
    views: ViewsOption = 0,
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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan and stop; spends nothing.")
    ] = False,
    yes: YesOption = False,
    device: DeviceOption = "auto",
    vendor: VendorOption = DEFAULT_VENDOR,
    protocol: ProtocolOption = "tuition",
    model: ModelOption = None,
    api_key_file: KeyFileOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a student on all domains but one, taught by the vendor's model, and test it on that one.

    The same command resumes an interrupted run and never pays twice. A finished student is replaced only
    with --replace, and stands until its successor is whole.

    Example: client distill --data icons --target-domain pixel --budget 2000
    """
    from client.cli.tables import print_summary
    from client.learning.processes import launched
    from client.runs.connection import Connection
    from client.runs.distillation import Distillation
    from client.runs.folder import RunFolder, WatchedRun, default_run_path

    config = _config(
        data, target_domain, method, student, student_weights, image_size, recipe, steps, seed, select, views,
        group_by_name,
    )  # fmt: skip
    buys = _buys(config)
    if budget is None and buys and not dry_run:
        raise UsageError(
            "Say how many queries may be paid for: --budget N. `client plan` shows how many it takes."
        )
    display = Display()
    connection = Connection(vendor, api_key_file, cache, display, protocol, model)
    if dry_run:
        _show_plan(config, connection, budget, max_spend, as_json=as_json)
        return
    path = out or default_run_path(config)
    require_outside(path, data)
    approve = asking(yes=yes, max_spend_micros=max_spend)
    with ExitStack() as stack:
        processes, place = stack.enter_context(launched(chosen_device(device)))
        if not processes.is_main:
            Distillation(
                config, WatchedRun(path), None, Display.of_nobody(),
                device=place, pixels=connection.pixels, processes=processes,
            ).execute()  # fmt: skip
            return
        run = RunFolder(path)
        run_id = run.begin(config)
        stack.enter_context(run.claimed())
        teacher = None
        if buys:
            teacher = stack.enter_context(
                connection.teacher(run_id=run_id, budget=budget, max_spend_micros=max_spend, run=run)
            )
        summary = Distillation(
            config, run, teacher, display,
            device=place, pixels=connection.pixels, approve=approve, agree=replacing(replace=replace_),
            processes=processes,
        ).execute()  # fmt: skip
    if as_json:
        print_json(summary)
    else:
        print_summary(summary, run)


@app.command()
def plan(
    data: DataOption,
    target_domain: TargetOption,
    budget: BudgetOption = None,
    max_spend: MaxSpendOption = None,
    select: SelectOption = "stratified",
    views: ViewsOption = 0,
    group_by_name: GroupByNameOption = False,
    method: MethodOption = "vl2v-adip",
    student: StudentOption = DEFAULT_STUDENT,
    student_weights: StudentWeightsOption = None,
    image_size: SizeOption = None,
    recipe: RecipeOption = "default",
    steps: StepsOption = None,
    seed: SeedOption = 0,
    vendor: VendorOption = DEFAULT_VENDOR,
    protocol: ProtocolOption = "tuition",
    model: ModelOption = None,
    api_key_file: KeyFileOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a run would use, buy and cost; spends nothing and writes nothing.

    Example: client plan --data icons --target-domain pixel --budget 2000
    """
    from client.runs.connection import Connection

    config = _config(
        data, target_domain, method, student, student_weights, image_size, recipe, steps, seed, select, views,
        group_by_name,
    )  # fmt: skip
    connection = Connection(vendor, api_key_file, cache, Display(), protocol, model)
    _show_plan(config, connection, budget, max_spend, as_json=as_json)


@app.command()
def embed(
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
    from client.data.finder import counted, described
    from client.runs.connection import Connection
    from client.runs.embedding import check_output, collect_inputs, embed_to_file, from_lines, run_id_of

    check_output(out)
    display = Display()
    inputs = collect_inputs(*from_lines(text or [], images or [], sys.stdin), display)
    queries = inputs.queries
    connection = Connection(vendor, api_key_file, cache, display, protocol, model)
    approve = asking(yes=yes, max_spend_micros=max_spend)
    with connection.teacher(run_id=run_id_of(queries), budget=budget, max_spend_micros=max_spend) as teacher:
        offer = teacher.quote(queries)
        approve(offer.cost_micros)
        with display.track("Buying", offer.to_buy) as advance:
            purchase, rows, embedded = embed_to_file(
                teacher,
                inputs.rows,
                out,
                lambda progress: advance(progress.done, progress.described(cached=offer.cached)),
            )
    skipped = inputs.unreadable | {query.name: reason for query, reason in purchase.refused.items()}
    display.note_skipped(skipped, listed_in="--json")
    if purchase.lost:
        display.note(
            f"{purchase.lost} queries may have been charged without an answer, and were asked again; they "
            "count in the budget."
        )
    left_out = counted(inputs.left_out)
    if left_out:
        display.note(f"Left out: {described(left_out)}.")
    display.note(
        f"{embedded} of {len(inputs.rows)} embeddings in {out}: {purchase.bought} bought "
        f"for {purchase.cost_micros} micros, the others from the cache."
    )
    if as_json:
        bought = {"queries_bought": purchase.bought, "cost_micros": purchase.cost_micros}
        told = {"out": str(out), "rows": rows, "embedded": embedded, **bought}
        files = {str(file.path): file.reason for file in inputs.passed_over}
        print_json({**told, "skipped": skipped, "left_out": left_out, "passed_over": files})
    if skipped:
        raise typer.Exit(1)


@app.command()
def models(
    vendor: VendorOption = DEFAULT_VENDOR, api_key_file: KeyFileOption = None, as_json: JsonOption = False
) -> None:
    """List the models that the vendor sells, with fingerprints and with the prices that this account pays.

    Example: client models --vendor http://127.0.0.1:8000
    """
    from client.cli.tables import print_models
    from client.runs.connection import Connection

    with Connection(vendor, api_key_file, None, Display()).vendor() as client:
        cards = client.models()
    if as_json:
        print_json([card.model_dump(mode="json") for card in cards])
    else:
        print_models(cards)


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


@app.command()
def usage(
    group_by: Annotated[GroupBy, typer.Option("--group-by", help="What a row sums up.")] = "day",
    reconcile: Annotated[
        bool,
        typer.Option(
            "--reconcile", help="Compare the vendor's ledger with the receipts here; exit 1 if they differ."
        ),
    ] = False,
    vendor: VendorOption = DEFAULT_VENDOR,
    api_key_file: KeyFileOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what the vendor says this account used, was billed, and has left.

    Example: client usage --group-by kind
    """
    from client.cli.tables import print_usage
    from client.runs.connection import Connection

    connection = Connection(vendor, api_key_file, cache, Display())
    if reconcile:
        _reconcile(connection, as_json=as_json)
        return
    with connection.vendor() as client:
        account, used = client.account(), client.usage(group_by)
    if as_json:
        print_json({"account": account.model_dump(mode="json"), "usage": used.model_dump(mode="json")})
    else:
        print_usage(account, used)


def _reconcile(connection: "Connection", *, as_json: bool) -> None:
    from client.buying.reconciliation import reconcile
    from client.cli.tables import print_reconciliation

    with connection.vendor() as client, connection.cache() as cache:
        found = reconcile(
            client.ledger(),
            cache.receipts(),
            client.key_id,
            owed=cache.pending_batches.of_run(),
            refused=cache.billed.refused(),
        )
    if as_json:
        print_json(asdict(found))
    else:
        print_reconciliation(found)
    if found.differences:
        raise typer.Exit(1)


def _config(
    data: Path,
    target_domain: str,
    method: str,
    student: str,
    student_weights: Path | None,
    image_size: int | None,
    recipe: RecipeName,
    steps: int | None,
    seed: int,
    select: "SelectionStrategy",
    views: int,
    group_by_name: bool,
) -> "RunConfig":
    from client.data.domains import composed
    from client.learning.backbones import native_image_size
    from client.learning.methods import parse_method, with_steps
    from client.learning.recipe import RECIPES
    from client.runs.folder import RunConfig

    require_file("--student-weights", student_weights)
    native = native_image_size(student)  # asked in any case: it refuses a name that nobody knows
    _, chosen = parse_method(method, with_steps(replace(RECIPES[recipe], views=views), method, steps))
    return RunConfig(
        data=str(data.resolve()),
        target_domain=composed(target_domain),
        method=method,
        student=student,
        image_size=image_size or native,
        seed=seed,
        select=select,
        recipe=chosen,
        student_weights=None if student_weights is None else str(student_weights.resolve()),
        group_by_name=group_by_name,
    )


def _buys(config: "RunConfig") -> bool:
    from client.learning.methods import parse_method

    return parse_method(config.method, config.recipe)[0].buys


def _show_plan(
    config: "RunConfig",
    connection: "Connection",
    budget: int | None,
    max_spend: int | None,
    *,
    as_json: bool,
) -> None:
    from client.cli.tables import print_plan
    from client.runs.features import training_features
    from client.runs.sources import describe_outlook, describe_plan, mention, read_sources
    from client.runs.teacher_queries import plan_of, questions

    sources = read_sources(config, connection.display)
    described = describe_plan(config, sources, None, None)
    if _buys(config):
        place, pixels = chosen_device("auto"), connection.pixels
        features = training_features(config, sources, connection.display, device=place, pixels=pixels)
        with connection.teacher(run_id="plan", budget=budget, max_spend_micros=max_spend) as teacher:
            purchase = plan_of(config, questions(config, sources, features), teacher)
            described = describe_plan(config, sources, teacher.model, purchase)
            described["outlook"] = describe_outlook(teacher.outlook(purchase.to_buy))
    mention(sources.skipped, sources.folder.root, connection.display, listed_in="--json")
    if as_json:
        print_json(described)
    else:
        print_plan(described)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line, by default that of the process; an error becomes its message and exit code."""
    share_processors()
    try:
        app(arguments)
    except ClientError as error:
        Display().note(f"Error: {error}")
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # what Typer makes of Ctrl-C
            Display().note(
                "Interrupted. What was bought and trained is kept; the same command goes on from here."
            )
        raise
