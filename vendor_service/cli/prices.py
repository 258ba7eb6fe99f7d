"""`vendor prices`: what a query costs, by plan, model and kind, and since when."""

from datetime import datetime
from typing import Annotated

import typer

from vendor_service.acts import prices
from vendor_service.cli.books import AsJson, DatabaseUrl, acting, print_rows, reading
from vendor_service.cli.confirm import Yes, confirm
from vendor_service.cli.parsers import micro_units, moment, whole_number
from vendor_service.clock import from_datetime, system_clock
from vendor_service.database.tables import STANDARD_PLAN
from vendor_service.money.prices import BATCH_PERCENT, PriceKind

Plan = Annotated[str, typer.Option(help="The plan whose price it is.")]

app = typer.Typer(help="What a query costs: by plan, model and kind, and since when.", no_args_is_help=True)


@app.command("set")
def set_price(
    model: str,
    kind: PriceKind,
    micros: Annotated[str, typer.Argument(help="Micro-units a query; for batch-percent, percent of them.")],
    plan: Plan = STANDARD_PLAN,
    new: Annotated[
        bool, typer.Option("--new", help="Make a plan, or price a model that was not served here yet.")
    ] = False,
    since: Annotated[
        datetime | None,
        typer.Option("--from", parser=moment, help="First moment, UTC, not in the past. (default: now)"),
    ] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Let a price hold from a moment on. What was charged before keeps its price.

    A plan that names no price for a model and kind has the standard one. batch-percent is what bulk jobs pay
    of the other two: 50 where nobody has said anything else.

    Example: vendor prices set icon-clip image 80 --plan research --new
    """
    begin = None if since is None else from_datetime(since)
    number = (whole_number if kind == BATCH_PERCENT else micro_units)(micros)
    with acting(database_url) as act:
        prices.set_price(act, plan, model, kind, number, begin, new=new)
    _print(database_url, as_json=as_json)


@app.command("unset")
def unset_price(
    model: str,
    kind: PriceKind,
    plan: Plan = STANDARD_PLAN,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
    yes: Yes = False,
) -> None:
    """Take a price back, from now on: a plan has the standard one then. What was charged stays.

    Example: vendor prices unset icon-clip image --plan research
    """
    confirm(f"The plan {plan} will name no price of {model} {kind} from now on.", plan, yes=yes)
    with acting(database_url) as act:
        prices.unset_price(act, plan, model, kind)
    _print(database_url, as_json=as_json)


@app.command("list")
def list_all(
    database_url: DatabaseUrl = None,
    past: Annotated[bool, typer.Option("--all", help="List former prices as well: every change.")] = False,
    as_json: AsJson = False,
) -> None:
    """List all prices that hold or will hold.

    Example: vendor prices list --all
    """
    _print(database_url, as_json=as_json, past=past)


def _print(database_url: str | None, *, as_json: bool, past: bool = False) -> None:
    with reading(database_url) as session:
        found = prices.history(session, system_clock(), past=past)
    rows = [
        {
            "plan": each.plan,
            "model": each.model,
            "kind": each.kind,
            "from": each.since.isoformat() if each.since else None,
            "micros": each.micros,
            "currency": each.currency,
            "state": each.state,
        }
        for each in found
    ]
    print_rows(rows, as_json=as_json)
