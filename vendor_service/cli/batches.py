"""`vendor batches`: the bulk jobs of an account."""

from typing import Annotated, Any

import typer

from shared.batches import BatchObject
from vendor_service.accounts.accounts import find_account
from vendor_service.batches import book
from vendor_service.cli.books import AsJson, DatabaseUrl, acting, print_rows, reading
from vendor_service.cli.confirm import Yes, confirm
from vendor_service.clock import DAY, SECOND, to_datetime
from vendor_service.run.settings import Settings

app = typer.Typer(help="The bulk jobs of an account.", no_args_is_help=True)


@app.command("list")
def list_all(
    account: str,
    after: Annotated[str | None, typer.Option(help="Only jobs older than this one.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many jobs to list.")] = 100,
    database_url: DatabaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """List an account's jobs, the newest first: how far they are, what they cost, and what is held for them.

    Example: vendor batches list acme
    """
    with reading(database_url) as session:
        found, _ = book.page(session, find_account(session, account).id, after, limit)
    print_rows([_row(each, as_json=as_json) for each in found], as_json=as_json)


@app.command("cancel")
def cancel(
    account: str, batch_id: str, database_url: DatabaseUrl = None, as_json: AsJson = False, yes: Yes = False
) -> None:
    """End a job now. What is answered stays charged and can be downloaded; what is held is released.

    Example: vendor batches cancel acme batch_0f3c7a91d2b45e688f1d2c3b
    """
    with reading(database_url) as session:
        job = book.public(session, book.find(session, find_account(session, account).id, batch_id))
    if job.status == "in_progress":
        counts = job.request_counts
        confirm(
            f"{counts.left:,} of {counts.total:,} lines of {batch_id} will not be answered.",
            batch_id,
            yes=yes,
        )
    with acting(database_url) as act:
        owner = find_account(act.session, account)
        job = book.cancel(act, owner.id, batch_id, Settings.read().batch_keep_days * DAY)
    print_rows([_row(job, as_json=as_json)], as_json=as_json, one=True)


def _row(job: BatchObject, *, as_json: bool) -> dict[str, Any]:
    if as_json:
        return job.model_dump(mode="json")
    counts = job.request_counts
    return {
        "batch": job.id,
        "status": job.status,
        "model": job.model,
        "lines": counts.total,
        "completed": counts.completed,
        "failed": counts.failed,
        "cost_micros": job.cost_micros,
        "held_micros": job.held_micros,
        "created_at": to_datetime(job.created_at * SECOND),
    }
