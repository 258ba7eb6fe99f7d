"""`vendor prices`: what a query costs, by plan, model and kind, and since when."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from shared.embeddings import Kind
from vendor_service.billing import prices
from vendor_service.cli.books import AsJson, DatabaseUrl, print_rows, reading, writing
from vendor_service.cli.confirm import Yes, confirm
from vendor_service.clock import from_datetime, system_clock, to_datetime
from vendor_service.database.tables import STANDARD_PLAN
from vendor_service.errors import OperatorError

Plan = Annotated[str, typer.Option(help="The plan whose price it is.")]

app = typer.Typer(help="What a query costs: by plan, model and kind, and since when.", no_args_is_help=True)


@app.command("set")
def set_price(
    model: str,
    kind: Kind,
    micros: Annotated[int, typer.Argument(min=0, max=10**12, help="Micro-units a query.")],
    plan: Plan = STANDARD_PLAN,
    new: Annotated[
        bool, typer.Option("--new", help="Make a plan, or price a model that was not served here yet.")
    ] = False,
    since: Annotated[
        datetime | None, typer.Option("--from", help="First moment, UTC, not in the past. (default: now)")
    ] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Let a price hold from a moment on. What was charged before keeps its price.

    A plan that names no price for a model and kind has the standard one.

    Example: vendor prices set icon-clip image 80 --plan research --new --from 2026-12-01
    """
    now = system_clock()
    moment = now if since is None else from_datetime(since.replace(tzinfo=UTC))
    if moment < now:
        raise typer.BadParameter("a price cannot begin in the past", param_hint="--from")
    with writing(database_url) as session:
        if not new:
            _require("model", model, prices.served_models(session))
            _require("plan", plan, prices.plans(session, now))
        prices.set_price(session, plan, model, kind, micros, moment)
    _print(database_url, as_json=as_json)


@app.command("unset")
def unset_price(
    model: str,
    kind: Kind,
    plan: Plan = STANDARD_PLAN,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
    yes: Yes = False,
) -> None:
    """Take a price back, from now on: a plan has the standard one then. What was charged stays.

    Example: vendor prices unset icon-clip image --plan research
    """
    confirm(f"The plan {plan} will name no price of {model} {kind} from now on.", plan, yes=yes)
    with writing(database_url) as session:
        prices.unset_price(session, plan, model, kind, system_clock())
    _print(database_url, as_json=as_json)


@app.command("list")
def list_all(
    database_url: DatabaseUrl = None,
    past: Annotated[bool, typer.Option("--all", help="Those that held as well: every change.")] = False,
    as_json: AsJson = False,
) -> None:
    """List all prices that hold or will hold.

    Example: vendor prices list --all
    """
    _print(database_url, as_json=as_json, past=past)


def _require(what: str, name: str, known: set[str]) -> None:
    if name not in known:
        there = f"only {', '.join(sorted(known))}" if known else "nor any other yet"
        raise OperatorError(f"there is no {what} {name!r} in these books, {there}; if it is meant, add --new")


def _print(database_url: str | None, *, as_json: bool, past: bool = False) -> None:
    with reading(database_url) as session:
        found = prices.history(session, system_clock())
    rows = [
        {
            "plan": each.plan,
            "model": each.model,
            "kind": each.kind,
            "from": to_datetime(each.since).isoformat() if each.since else None,
            "micros": each.micros,
            "state": each.state,
        }
        for each in found
        if past or (each.state != "past" and each.micros is not None)
    ]
    print_rows(rows, as_json=as_json)
