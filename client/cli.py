"""`client`: plan, distill, evaluate, predict, report, embed, models, usage. Each parses, calls, prints."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from client.display import Display
from client.errors import ClientError, UsageError, VendorUnreachable
from shared.billing import GroupBy

if TYPE_CHECKING:  # torch takes seconds to import, and most commands do not need it
    from client.buying.cache import EmbeddingCache
    from client.buying.teacher import Teacher
    from client.buying.vendor_api import VendorClient
    from client.run_folder import RunConfig, RunFolder

app = typer.Typer(
    name="client",
    help="Buy teacher embeddings once, and distil a small student that holds up on unseen domains.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

INTERRUPTED = 130


class MethodName(StrEnum):
    """The names of client/learning/methods.py, which is not imported before it is needed."""

    VL2V_ADIP = "vl2v-adip"
    ERM = "erm"


DataOption = Annotated[
    Path, typer.Option("--data", help="Folder of images: ROOT/<domain>/<class>/<image>.", show_default=False)
]
TargetOption = Annotated[
    str, typer.Option("--target-domain", help="The domain to hold out and be tested on.", show_default=False)
]
VendorOption = Annotated[
    str, typer.Option("--vendor", envvar="TUITION_VENDOR_URL", help="Where the vendor is.")
]
KeyFileOption = Annotated[
    Path | None,
    typer.Option("--api-key-file", help="File with the API key; otherwise TUITION_API_KEY is used."),
]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache", envvar="TUITION_CACHE", help="Cache of bought embeddings (default: in your cache folder)."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
MethodOption = Annotated[MethodName, typer.Option("--method", help="How to train.")]
StudentOption = Annotated[str, typer.Option("--student", help="A timm backbone.")]
SizeOption = Annotated[
    int | None,
    typer.Option(
        "--image-size", min=16, max=1024, help="Side of the student's input in pixels (default: its own)."
    ),
]
StepsOption = Annotated[
    int | None, typer.Option("--steps", min=1, max=1_000_000, help="Training steps (default: the recipe's).")
]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, max=2**31 - 1, help="Of splits, batches and views.")
]
BudgetOption = Annotated[
    int | None,
    typer.Option(
        "--budget", min=0, max=10**12, help="Queries that may be newly paid for, over all resumptions."
    ),
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="cpu, cuda, cuda:1 ...; auto takes a GPU if there is one.")
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run's directory.", show_default=False)]

DEFAULT_VENDOR = "http://127.0.0.1:8000"
DEFAULT_STUDENT = "efficientnet_lite0"


@app.command()
def distill(
    data: DataOption,
    target_domain: TargetOption,
    budget: BudgetOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The run's directory (default: runs/...).")
    ] = None,
    method: MethodOption = MethodName.VL2V_ADIP,
    student: StudentOption = DEFAULT_STUDENT,
    image_size: SizeOption = None,
    steps: StepsOption = None,
    seed: SeedOption = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan and stop; spends nothing.")
    ] = False,
    device: DeviceOption = "auto",
    vendor: VendorOption = DEFAULT_VENDOR,
    api_key_file: KeyFileOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a student on all domains but one, taught by the vendor's model, and test it on that one.

    The same command resumes an interrupted run and never pays twice.

    Example: client distill --data icons --target-domain pixel --budget 2000
    """
    from client.distillation import Distillation
    from client.run_folder import RunFolder, default_run_path

    if dry_run:
        plan(
            data,
            target_domain,
            budget,
            method,
            student,
            image_size,
            steps,
            seed,
            vendor,
            api_key_file,
            cache,
            as_json,
        )
        return
    config = _config(data, target_domain, method, student, image_size, steps, seed)
    if budget is None and method is not MethodName.ERM:
        raise UsageError(
            "Say how many queries may be paid for: --budget N. `client plan` shows how many it takes."
        )
    run = RunFolder(out or default_run_path(config))
    run_id = run.begin(config)
    display = Display()
    with _teacher(
        vendor, api_key_file, cache, display, method, run_id=run_id, budget=budget, run=run
    ) as teacher:
        summary = Distillation(config, run, teacher, display, device=_device(device)).execute()
    if as_json:
        print(json.dumps(summary, indent=2))
    else:
        _print_summary(summary, run)


@app.command()
def plan(
    data: DataOption,
    target_domain: TargetOption,
    budget: BudgetOption = None,
    method: MethodOption = MethodName.VL2V_ADIP,
    student: StudentOption = DEFAULT_STUDENT,
    image_size: SizeOption = None,
    steps: StepsOption = None,
    seed: SeedOption = 0,
    vendor: VendorOption = DEFAULT_VENDOR,
    api_key_file: KeyFileOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a run would use, buy and cost; spends nothing and writes nothing.

    Example: client plan --data icons --target-domain pixel --budget 2000
    """
    from client.sources import describe_plan, read_sources

    config = _config(data, target_domain, method, student, image_size, steps, seed)
    display = Display()
    with _teacher(vendor, api_key_file, cache, display, method, run_id="plan", budget=budget) as teacher:
        sources = read_sources(config, display)
        if teacher is None:
            described = describe_plan(config, sources, None, None)
        else:
            purchase = teacher.plan(sources.prompts, sources.images, sources.strata, seed=seed)
            described = describe_plan(config, sources, teacher.model, purchase)
    if as_json:
        print(json.dumps(described, indent=2))
    else:
        _print_plan(described, display)


@app.command()
def evaluate(
    run: RunArgument,
    data: DataOption,
    domain: Annotated[list[str] | None, typer.Option("--domain", help="Only these (default: all).")] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure a trained student on every image of a folder, by domain; spends nothing.

    Images that it was trained on count too: summary.json has its accuracy on hold-outs.

    Example: client evaluate runs/icons-pixel-vl2v-adip-seed0 --data icons --domain pixel
    """
    from client.data.domains import list_folder
    from client.distillation import evaluate_domains

    model, classes = _load(run, device)
    folder = list_folder(data)
    accuracy = evaluate_domains(model, classes, folder, domain or list(folder.domains), Display())
    if as_json:
        print(
            json.dumps(
                {name: {"accuracy": d.accuracy, "images": d.images} for name, d in accuracy.items()}, indent=2
            )
        )
        return
    table = _table("domain", "accuracy (%)", "images")
    for name, result in accuracy.items():
        table.add_row(name, f"{100 * result.accuracy:.1f}", str(result.images))
    Console().print(table)


@app.command()
def predict(
    run: RunArgument,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Image files.", show_default=False)
    ],
    top: Annotated[int, typer.Option("--top", min=1, help="How many classes to name.")] = 5,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Classify images with a trained student; spends nothing.

    Example: client predict runs/icons-pixel-vl2v-adip-seed0 cat.png dog.png --top 3
    """
    from client.prediction import classify

    model, classes = _load(run, device)
    predictions, unreadable = classify(model, classes, images, top=top)
    display = Display()
    for path, reason in unreadable.items():
        display.note(f"Skipped {path}: {reason}")
    if as_json:
        print(
            json.dumps(
                [{"image": str(path), "classes": ranked} for path, ranked in predictions.items()], indent=2
            )
        )
    else:
        table = _table("image", "class", "probability (%)")
        for path, ranked in predictions.items():
            for position, (name, probability) in enumerate(ranked.items()):
                table.add_row("" if position else str(path), name, f"{100 * probability:.1f}")
        Console().print(table)
    if unreadable:
        raise typer.Exit(1)


@app.command()
def report(run: RunArgument) -> None:
    """Write a finished run's report.html and README.md again.

    Example: client report runs/icons-pixel-vl2v-adip-seed0
    """
    from client.distillation import write_pages
    from client.run_folder import RunFolder

    folder = RunFolder(run)
    write_pages(folder, folder.read(folder.summary))
    print(folder.report)


@app.command()
def embed(
    out: Annotated[Path, typer.Option("--out", help="FILE.npy or FILE.jsonl.", show_default=False)],
    images: Annotated[
        list[Path] | None, typer.Option("--images", help="An image file, or a folder of them.")
    ] = None,
    text: Annotated[list[str] | None, typer.Option("--text", help="A text.")] = None,
    budget: BudgetOption = None,
    vendor: VendorOption = DEFAULT_VENDOR,
    api_key_file: KeyFileOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Embed images and texts, buying what the cache lacks. Rows are in the order given: texts, then images.

    Images that cannot be embedded are listed; they are rows of NaN in .npy, and left out of .jsonl.

    Example: client embed --text "a photo of a cat" --images photos --out embeddings.npy
    """
    from client.embedding import check_output, collect_queries, embed_to_file, run_id_of

    check_output(out)
    display = Display()
    queries, unreadable = collect_queries(text or [], images or [])
    run_id = run_id_of(queries)
    with _teacher(
        vendor, api_key_file, cache, display, MethodName.VL2V_ADIP, run_id=run_id, budget=budget
    ) as teacher:
        assert teacher is not None
        with display.track("Embedding", len(queries)) as advance:
            purchase, rows = embed_to_file(
                teacher,
                queries,
                out,
                lambda p: advance(len(queries) - p.total + p.done, f"{p.cost_micros} micros"),
            )
    skipped = {str(path): reason for path, reason in unreadable.items()}
    skipped |= {query.name: reason for query, reason in purchase.refused.items()}
    for name, reason in skipped.items():
        display.note(f"Skipped {name}: {reason}")
    display.note(
        f"{rows} of {len(queries)} embeddings in {out}: {purchase.bought} bought "
        f"for {purchase.cost_micros} micros, the others from the cache."
    )
    if as_json:
        bought = {"queries_bought": purchase.bought, "cost_micros": purchase.cost_micros}
        print(json.dumps({"out": str(out), "rows": rows, **bought, "skipped": skipped}, indent=2))


@app.command()
def models(vendor: VendorOption = DEFAULT_VENDOR, as_json: JsonOption = False) -> None:
    """List the models that the vendor sells, with prices and fingerprints.

    Example: client models --vendor http://127.0.0.1:8000
    """
    from client.buying.vendor_api import VendorClient

    with VendorClient(vendor, None) as client:
        cards = client.models()
    if as_json:
        print(json.dumps([card.model_dump(mode="json") for card in cards], indent=2))
        return
    table = _table("model", "dimensions", "micros an image", "micros a text", "fingerprint")
    for card in cards:
        prices = card.prices
        table.add_row(
            card.id, str(card.dimensions), str(prices.image_micros), str(prices.text_micros), card.fingerprint
        )
    Console().print(table)


@app.command()
def usage(
    group_by: Annotated[GroupBy, typer.Option("--group-by", help="What a row sums up.")] = "day",
    vendor: VendorOption = DEFAULT_VENDOR,
    api_key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what the vendor says this account used, was billed, and has left.

    Example: client usage --group-by kind
    """
    with _vendor(vendor, api_key_file, Display()) as client:
        account, used = client.account(), client.usage(group_by)
    if as_json:
        print(
            json.dumps(
                {"account": account.model_dump(mode="json"), "usage": used.model_dump(mode="json")}, indent=2
            )
        )
        return
    table = _table(group_by, "requests", "images", "texts", "billed queries", "cost (micros)")
    for row in [*used.rows, used.total]:
        numbers = (row.requests, row.images, row.texts, row.billed_queries, row.cost_micros)
        table.add_row(row.group, *map(str, numbers))
    Console().print(table)
    left = (
        "no quota" if account.quota_left is None else f"{account.quota_left} of {account.quota} queries left"
    )
    print(f"Account {account.account}: {left}, {account.spent_micros} micros spent.")


def _config(
    data: Path,
    target_domain: str,
    method: MethodName,
    student: str,
    image_size: int | None,
    steps: int | None,
    seed: int,
) -> "RunConfig":
    from client.learning.recipe import Recipe
    from client.learning.student import native_image_size
    from client.run_folder import RunConfig

    native = native_image_size(student)
    return RunConfig(
        data=str(data.resolve()),
        target_domain=target_domain,
        method=method.value,
        student=student,
        image_size=image_size or native,
        seed=seed,
        recipe=Recipe().with_steps(steps),
    )


def _device(name: str) -> str:
    import torch

    try:
        return str(torch.device(name)) if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    except RuntimeError as error:
        raise UsageError(f"--device {name!r} is no device: cpu, cuda, cuda:1 or auto.") from error


def _load(run: Path, device: str) -> "tuple[Any, list[str]]":
    from client.learning.student import load_student
    from client.run_folder import RunFolder

    student, metadata = load_student(RunFolder(run).student)
    return student.to(_device(device)), json.loads(metadata["classes"])


def _api_key(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get("TUITION_API_KEY")
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The API key cannot be read from {file}: {error}.") from error


def _open_cache(path: Path | None, display: Display) -> "EmbeddingCache":
    from platformdirs import user_cache_path

    from client.buying.cache import EmbeddingCache

    path = path or user_cache_path("tuition") / "embeddings.db"
    return EmbeddingCache(path, on_damage=display.note)


@contextmanager
def _vendor(url: str, api_key_file: Path | None, display: Display) -> "Iterator[VendorClient]":
    from client.buying.vendor_api import VendorClient

    with VendorClient(url, _api_key(api_key_file), on_wait=display.note) as client:
        yield client


@contextmanager
def _teacher(
    url: str,
    api_key_file: Path | None,
    cache: Path | None,
    display: Display,
    method: MethodName,
    *,
    run_id: str,
    budget: int | None,
    run: "RunFolder | None" = None,
) -> "Iterator[Teacher | None]":
    """The teacher of a run; `None` for a method that has none.

    A run that has bought before goes on without a vendor that is away, if the cache has what it needs.
    """
    from client.buying.teacher import Teacher
    from shared.embeddings import ModelCard

    if method is MethodName.ERM:
        yield None
        return
    with _vendor(url, api_key_file, display) as client, _open_cache(cache, display) as store:
        try:
            model = client.model()
        except VendorUnreachable:
            if run is None or not run.purchase.exists():
                raise
            display.note(f"No vendor answers at {url}; going on with what was bought.")
            model = ModelCard.model_validate(run.read(run.plan)["model"])
        yield Teacher(client, store, model=model, run_id=run_id, budget=budget)


def _table(*columns: str) -> Table:
    table = Table()
    for position, column in enumerate(columns):
        table.add_column(column, justify="right" if position else "left", overflow="fold")
    return table


def _print_summary(summary: dict[str, Any], run: "RunFolder") -> None:
    accuracy = summary["accuracy"]
    table = _table("domain", "accuracy (%)", "images")
    for name, share in accuracy["by_domain"].items():
        unseen = " (unseen)" if name == summary["target_domain"] else ""
        table.add_row(name + unseen, f"{100 * share:.1f}", str(accuracy["images_by_domain"][name]))
    table.add_section()
    table.add_row("in-domain", f"{100 * accuracy['in_domain']:.1f}", "")
    table.add_row("out-of-domain", f"{100 * accuracy['out_of_domain']:.1f}", "")
    Console().print(table)
    print(
        f"Bought {summary['queries_bought']} queries for {summary['cost_micros']} micros; "
        f"{summary['queries_cached']} came from the cache."
    )
    print(f"Report:  {run.report}\nStudent: {run.student}")


def _print_plan(described: dict[str, Any], display: Display) -> None:
    for file in described["skipped"]:
        display.note(f"Skipped {file['path']}: {file['reason']}")
    table = _table("domain", "images")
    for name, count in described["images_by_domain"].items():
        table.add_row(name, str(count))
    Console().print(table)
    print(
        f"{described['train_images']} training images, {described['holdout_images']} held out for selection."
    )
    purchase = described["purchase"]
    if purchase is None:
        print(f"The method {described['method']} buys nothing.")
        return
    needed = purchase["prompts"] + purchase["images"] - purchase["duplicates"]
    print(
        f"Needs {needed} queries ({purchase['prompts']} class prompts, {purchase['images']} images, "
        f"{purchase['duplicates']} duplicates bought once): {purchase['cached']} are in the cache, "
        f"{purchase['to_buy']} would be bought for {purchase['cost_micros']} micros."
    )
    if purchase["unaffordable"]:
        print(f"{purchase['unaffordable']} are beyond the budget and would go without.")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line, by default that of the process; an error becomes its message and exit code."""
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
