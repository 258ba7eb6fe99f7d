"""`client compare`: parse, call, print."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.cli.confirm import asking
from client.cli.options import (
    DEFAULT_STUDENT,
    DEFAULT_VENDOR,
    CacheOption,
    DataOption,
    DeviceOption,
    GroupByNameOption,
    JsonOption,
    KeyFileOption,
    MaxSpendOption,
    ModelOption,
    ProtocolOption,
    RecipeName,
    RecipeOption,
    SelectOption,
    SizeOption,
    StepsOption,
    StudentOption,
    StudentWeightsOption,
    VendorOption,
    ViewsOption,
    YesOption,
    chosen_device,
    print_json,
    require_file,
    require_outside,
)
from client.errors import UsageError
from client.progress import Display

if TYPE_CHECKING:  # torch takes seconds to import
    from client.runs.comparison import Variant

OutOption = Annotated[
    Path, typer.Option("--out", help="The comparison's folder: runs and tables.", show_default=False)
]
MethodsOption = Annotated[
    str,
    typer.Option(
        "--methods",
        help="Rows, comma-separated, as `client methods` lists them, each with or without +swad and +wise; "
        "and zero-shot, the teacher itself, for which target images are sent to the vendor.",
    ),
]
TargetsOption = Annotated[
    str, typer.Option("--target-domain", help="Domains to hold out, comma-separated, or all.")
]
SeedsOption = Annotated[int, typer.Option("--seeds", min=1, max=1000, help="How many, counted from 0.")]
RunBudgetOption = Annotated[
    int | None,
    typer.Option(
        "--budget",
        min=1,
        max=10**12,
        help="Embeddings that each run may use, prompts included, whoever paid (default: all it asks for); "
        "zero-shot and unlimited are not limited.",
    ),
]


def compare(
    data: DataOption,
    out: OutOption,
    methods: MethodsOption = "erm,vl2v-adip",
    target_domain: TargetsOption = "all",
    seeds: SeedsOption = 3,
    budget: RunBudgetOption = None,
    max_spend: MaxSpendOption = None,
    select: SelectOption = "stratified",
    views: ViewsOption = 0,
    group_by_name: GroupByNameOption = False,
    student: StudentOption = DEFAULT_STUDENT,
    student_weights: StudentWeightsOption = None,
    image_size: SizeOption = None,
    recipe: RecipeOption = "default",
    steps: StepsOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what all runs would buy and stop; spends nothing.")
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
    """Hold each domain out in turn, by every method and seed, and print one table.

    Each image is paid for once over all runs, and no run uses more than --budget. The same command resumes
    an interrupted comparison; with more methods or seeds it adds to a finished one.

    Example: client compare --data icons --methods erm,vl2v-adip,vl2v-adip+swad --out table
    """
    from client.data.domains import composed
    from client.learning.backbones import native_image_size
    from client.learning.processes import is_distributed
    from client.results.comparison_table import as_json as to_json
    from client.results.comparison_table import as_text
    from client.runs.comparison import Comparison, ComparisonConfig
    from client.runs.connection import Connection

    if is_distributed():
        raise UsageError(
            "A comparison is one process. For several GPUs, start one on each, with other domains, seeds or "
            "methods and another --out; they may share the cache."
        )
    require_outside(out, data)
    require_file("--student-weights", student_weights)
    native = native_image_size(student)  # asked in any case: it refuses a name that nobody knows
    config = ComparisonConfig(
        data=data,
        variants=_variants(methods, recipe, steps, views),
        targets=() if target_domain == "all" else _names("--target-domain", composed(target_domain)),
        seeds=range(seeds),
        student=student,
        image_size=image_size or native,
        student_weights=student_weights,
        select=select,
        queries=budget,
        group_by_name=group_by_name,
    )
    comparison = Comparison(
        config,
        out,
        Connection(vendor, api_key_file, cache, Display(), protocol, model),
        device=chosen_device(device),
        max_spend_micros=max_spend,
        approve=asking(yes=yes, max_spend_micros=max_spend),
    )
    if dry_run:
        quote = {"runs": len(comparison.cells), **comparison.quote()._asdict()}
        if as_json:
            print_json(quote)
        else:
            print(
                f"{quote['runs']} runs would buy {quote['to_buy']} queries for {quote['cost_micros']} micros "
                f"in all; {quote['cached']} are in the cache."
            )
        return
    results = comparison.execute()
    if as_json:
        print_json(to_json(results, comparison.setting))
    else:
        print(as_text(results, comparison.setting), end="")
        print(f"The same as CSV, Markdown, LaTeX and JSON: {out}/table.*")


def _variants(methods: str, recipe: RecipeName, steps: int | None, views: int) -> "list[Variant]":
    from client.learning.methods import with_steps
    from client.learning.recipe import RECIPES
    from client.runs.comparison import Variant

    chosen = replace(RECIPES[recipe], views=views)
    names = _names("--methods", methods)
    return [Variant(name, name, with_steps(chosen, name, steps)) for name in names]


def _names(option: str, words: str) -> list[str]:
    names = [name.strip() for name in words.split(",") if name.strip()]
    if not names or len(set(names)) < len(names):
        raise UsageError(f"{option} takes different names, comma-separated, not {words!r}.")
    return names
