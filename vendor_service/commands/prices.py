"""`vendor prices`: what a query costs, by plan, model and kind, and since when."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from shared.embeddings import Kind
from vendor_service.billing import prices
from vendor_service.clock import from_datetime, system_clock, to_datetime
from vendor_service.commands.books import AsJson, DatabaseUrl, print_rows, reading, writing
from vendor_service.database.tables import STANDARD_PLAN

app = typer.Typer(help="What a query costs: by plan, model and kind, and since when.", no_args_is_help=True)


@app.command("set")
def set_price(
    model: str,
    kind: Kind,
    micros: Annotated[int, typer.Argument(min=0, max=10**12, help="Micro-units a query.")],
    plan: Annotated[str, typer.Option(help="The plan; a new name makes one.")] = STANDARD_PLAN,
    since: Annotated[
        datetime | None, typer.Option("--from", help="First moment, UTC, not in the past. (default: now)")
    ] = None,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Let a price hold from a moment on. What was charged before keeps its price.

    A plan that names no price for a model and kind has the standard one.

    Example: vendor prices set icon-clip image 80 --plan research --from 2026-12-01
    """
    now = system_clock()
    moment = now if since is None else from_datetime(since.replace(tzinfo=UTC))
    if moment < now:
        raise typer.BadParameter("a price cannot begin in the past", param_hint="--from")
    with writing(database_url) as session:
        prices.set_price(session, plan, model, kind, micros, moment)
    _print(database_url, as_json=as_json)


@app.command("list")
def list_all(database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """List all prices that hold, held or will hold.

    Example: vendor prices list
    """
    _print(database_url, as_json=as_json)


def _print(database_url: str | None, *, as_json: bool) -> None:
    with reading(database_url) as session:
        found = prices.list_prices(session)
    rows = [
        {
            "plan": each.plan,
            "model": each.model,
            "kind": each.kind,
            "from": to_datetime(each.effective_at).isoformat() if each.effective_at else None,
            "micros": each.micros,
        }
        for each in found
    ]
    print_rows(rows, as_json=as_json)
