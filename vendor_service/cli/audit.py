"""`vendor audit`: who changed what in the books, and when."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from vendor_service.audit import log
from vendor_service.cli.books import AsJson, DatabaseUrl, print_rows, reading
from vendor_service.errors import OperatorError

app = typer.Typer(help="The record of who changed what in the books.", no_args_is_help=True)


@app.command("list")
def list_entries(
    subject: Annotated[
        str | None, typer.Option(help="Only what was done to this account, price, token or key of receipts.")
    ] = None,
    after: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=2**53 - 1,
            help="Begin after the change of this number, rather than with the last ones.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many changes to list.")] = 100,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """List the last changes of the books, oldest first: who made them, and what was before and after.

    Example: vendor audit list --subject acme
    """
    with reading(database_url) as session:
        found = log.entries(session, after=after, limit=limit, subject=subject)
    rows = [each.model_dump(mode="json") for each in found]
    if not as_json:
        for row in rows:
            row["created_at"] = row["created_at"][:19].replace("T", " ")
            row["before"], row["after"] = (_said(row[name]) for name in ("before", "after"))
            del row["previous_hash"], row["entry_hash"]
    print_rows(rows, as_json=as_json)


@app.command("verify")
def verify(database_url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Recompute the chain of the log, and name its first fault; exit 1 if there is one.

    Keep the hash that it prints somewhere else: a log that was written anew from there on has another.

    Example: vendor audit verify
    """
    with reading(database_url) as session:
        found = log.verify(session)
    print_rows([asdict(found)], as_json=as_json, one=True)
    if found.problem:
        raise OperatorError(f"the audit log is not in order: {found.problem}")


def _said(facts: dict[str, object] | None) -> str | None:
    return None if facts is None else json.dumps(facts, ensure_ascii=False)
