"""`client compare`: parse, call, print."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.cli.confirm import on_terminal
from client.cli.options import (
    DEFAULT_DATA,
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
    RecipeOption,
    SelectOption,
    SizeOption,
    StepsOption,
    StudentOption,
    StudentWeightsOption,
    UnlabelledOption,
    VendorOption,
    YesOption,
    is_typed,
    print_json,
    print_line,
)
from client.errors import UsageError
from client.progress import Display

if TYPE_CHECKING:  # torch takes seconds to import
    from client.api.comparison import ComparisonPlan

OutOption = Annotated[
    Path, typer.Option("--out", help="The comparison's folder: runs and tables.", show_default=False)
]
MethodsOption = Annotated[
    str,
    typer.Option(
        "--methods",
        help="Rows, comma-separated, as `client methods` lists them, each with or without +swad; "
        "and zero-shot, the teacher itself, for which target images are sent to the vendor.",
    ),
]
TargetsOption = Annotated[
    str, typer.Option("--target-domain", help="Domains to hold out, comma-separated, or all.")
]
SeedsOption = Annotated[int, typer.Option("--seeds", min=1, max=1000, help="How many seeds, counted from 0.")]
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
    context: typer.Context,
    out: OutOption,
    data: DataOption = DEFAULT_DATA,
    methods: MethodsOption = "erm,vl2v-adip",
    target_domain: TargetsOption = "all",
    seeds: SeedsOption = 3,
    budget: RunBudgetOption = None,
    max_spend: MaxSpendOption = None,
    select: SelectOption = "stratified",
    unlabelled: UnlabelledOption = None,
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
    from client.api import comparison
    from client.api.options import CompareOptions

    options = CompareOptions(
        data=data, out=out, methods=_names("--methods", methods), seeds=seeds, budget=budget,
        target_domains=() if target_domain == "all" else _names("--target-domain", target_domain),
        max_spend_micros=max_spend, select=select, unlabelled=tuple(unlabelled or ()),
        group_by_name=group_by_name, student=student, student_weights=student_weights,
        image_size=image_size, recipe=recipe, steps=steps, yes=yes,
        max_spend_agrees=is_typed(context, "max_spend"),
        device=device, vendor=vendor, protocol=protocol, model=model, api_key_file=api_key_file, cache=cache,
    )  # fmt: skip
    if dry_run:
        _show_plan(comparison.plan_comparison(options, progress=Display()), as_json=as_json)
        return
    found = comparison.compare(options, confirm=on_terminal(), progress=Display())
    if as_json:
        print_json(found.to_json())
    else:
        print(found.text, end="")
        print_line(f"The same as CSV, Markdown, LaTeX and JSON: {out}/table.*")


def _show_plan(found: "ComparisonPlan", *, as_json: bool) -> None:
    if as_json:
        print_json(found.to_json())
    else:
        print_line(
            f"{found.runs} runs would buy {found.to_buy} queries for {found.cost_micros} micros "
            f"in all; {found.cached} are in the cache."
        )
        if found.unaffordable:
            print_line(
                f"--max-spend does not reach {found.unaffordable} more, so no run would be started: it takes "
                f"a --max-spend of at least {found.enough_micros}."
            )


def _names(option: str, words: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in words.split(",") if name.strip())
    if not names or len(set(names)) < len(names):
        raise UsageError(f"{option} takes different names, comma-separated, not {words!r}.")
    return names
