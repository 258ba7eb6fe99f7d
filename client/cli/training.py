"""`client distill`, `plan`, `compare` and `methods`: what would be bought and learnt, and students."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from client.cli.command import Printed, app, command, on_terminal, print_json, print_line
from client.options.training import CompareOptions, DistillOptions
from client.progress import Display
from shared.declared import Option

if TYPE_CHECKING:  # torch takes seconds to import
    from client.results.records import Plan

_PANEL = "Train students"


class Distill(DistillOptions, Printed):
    """The options of `client distill`."""

    from_: Annotated[Path | None, Option(name="from", metavar="RUN")] = Field(
        default=None,
        description=(
            "Make the next student from this run's: options that you leave out stay as they were "
            "there, and `unlabelled` and `adapt` add to what it had."
        ),
    )
    dry_run: Annotated[bool, Option(typed=True)] = Field(
        default=False, description="Show the plan and stop; spends nothing."
    )


@command(app, panel=_PANEL)
def distill(given: Distill) -> None:
    """Train a student, taught by the vendor's model; with --target-domain, test it on a domain held out.

    The same command resumes an interrupted run and never pays twice. A finished student is replaced only
    with --replace or after a yes, and stands until its successor is whole.

    Example: client distill --data icons --budget 50000
    """
    from client.api import distillation, generations, planning
    from client.cli.tables import print_summary

    options = given if given.from_ is None else generations.of_next(given.from_, given)
    if given.dry_run:
        _show_plan(planning.dry_run(options, progress=Display()), as_json=given.as_json)
        return
    run = distillation.distill(options, confirm=on_terminal(), progress=Display())
    if not run.is_first:
        return
    if given.as_json:
        print_json(run.summary.to_json())
    else:
        print_summary(run)


class PlanRun(DistillOptions, Printed):
    """The options of `client plan`."""

    probe: Annotated[int, Option(typed=True)] = Field(
        default=0,
        ge=0,
        le=100_000,
        description="Buy this many of the run's first queries now, and tell by your labels how good the "
        "teacher is.",
    )
    try_prompts: Annotated[bool, Option(typed=True)] = Field(
        default=False,
        description="Buy the texts of each `prompt`, or of common ones, and up to 100 labelled images, and "
        "tell which wording your labels prefer.",
    )
    study: Annotated[bool, Option(typed=True)] = Field(
        default=False,
        description="Measure on your labels what labels and queries are worth: short runs that hold a domain "
        "out, with fewer labels and queries and with all. It buys what the runs ask, which stays in the "
        "cache.",
    )


@command(app, panel=_PANEL, without=("leave_one_out", "out", "replace", "batch", "wait", "device"))
def plan(given: PlanRun) -> None:
    """Show what a run would use, buy and cost; spends nothing without --probe, --try-prompts or --study.

    It writes to the cache and beside it alone: it keeps what it learns of the files, so that the next command
    is quick. `client distill --dry-run` and `client compare --dry-run` do the same.

    Example: client plan --data icons --target-domain pixel --budget 2000
    """
    from client.api import planning

    planned = planning.plan(
        given,
        probe=given.probe,
        try_prompts=given.try_prompts,
        confirm=on_terminal(),
        progress=Display(),
    )
    if not given.study:
        _show_plan(planned, as_json=given.as_json)
        return
    if not given.as_json:
        _show_plan(planned, as_json=False)
    found = planning.study(given, planned, confirm=on_terminal(), progress=Display())
    print_json(found.to_json()) if given.as_json else print(found.text, end="")


class Compare(CompareOptions, Printed):
    """The options of `client compare`."""

    dry_run: Annotated[bool, Option(typed=True)] = Field(
        default=False, description="Show what all runs would buy and stop; spends nothing."
    )


@command(app, panel=_PANEL)
def compare(given: Compare) -> None:
    """Hold each domain out in turn, by every method and seed, and print one table.

    Each image is paid for once over all runs, and no run uses more than --budget. The same command resumes
    an interrupted comparison; with more methods or seeds it adds to a finished one.

    Example: client compare --data icons --methods erm,vl2v-adip,vl2v-adip+swad --out table
    """
    from client.api import comparison
    from client.cli.tables import print_joint_plan

    if given.dry_run:
        planned = comparison.plan_comparison(given, progress=Display())
        print_json(planned.to_json()) if given.as_json else print_joint_plan(planned)
        return
    found = comparison.compare(given, confirm=on_terminal(), progress=Display())
    if given.as_json:
        print_json(found.to_json())
    else:
        print(found.text, end="")
        print_line(f"As a page, with what asking brings: {given.out}/table.html")
        print_line(f"The same as CSV, Markdown, LaTeX and JSON: {given.out}/table.*")


@command(app, panel=_PANEL)
def methods(given: Printed) -> None:
    """List the methods of training, and what each asks the vendor.

    Example: client methods
    """
    from client.cli.tables import print_table
    from client.learning.methods import all_methods

    known = all_methods().values()
    if given.as_json:
        print_json([{"method": m.name, "asks": sorted(m.asks), "summary": m.summary} for m in known])
    else:
        rows = [(m.name, " and ".join(sorted(m.asks)) or "nothing", m.summary) for m in known]
        print_table(("method", "asks the vendor about", "how"), rows, words=3)


def _show_plan(found: "Plan", *, as_json: bool) -> None:
    from client.cli.tables import print_plan

    print_json(found.to_json()) if as_json else print_plan(found)
