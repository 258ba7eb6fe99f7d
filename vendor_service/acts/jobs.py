"""Bulk jobs: those of an account, and the end of one."""

from collections.abc import Iterator
from typing import Annotated, Any

from shared.batches import BatchList, BatchObject
from vendor_service.accounts.accounts import find_account
from vendor_service.acts.act import Act, OperatorScope
from vendor_service.acts.declaration import Own, act, preview, query
from vendor_service.acts.names import AccountName
from vendor_service.batches import book
from vendor_service.clock import SECOND, to_datetime
from vendor_service.database.tables import BatchJob
from vendor_service.terms import Term, money


def _rows(found: BatchList) -> Iterator[dict[str, Any]]:
    for job in found.data:
        counts = job.request_counts
        yield {
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


@query(command="batches list", route="GET /accounts/{account}/batches", rows=_rows, command_limit=100)
def list_jobs(
    act: Act,
    account: AccountName,
    after: Annotated[str | None, Term("Only jobs older than this one.", typed="--after")] = None,
    limit: Annotated[int, Term("How many jobs to list.", typed="--limit", least=1, most=100)] = 20,
) -> BatchList:
    """List an account's jobs, the newest first: how far they are, what they cost, and what is held for them.

    Example: vendor batches list acme
    """
    return BatchList.of(*book.page(act.session, act.view(find_account(act.session, account)), after, limit))


def by_id(act: Act, account: str, batch_id: str, *, lock: bool = False) -> BatchJob:
    """The job that an act is about; `book.cancel` locks it, after its account. Raises what `find` does."""
    return book.find(act.session, act.view(find_account(act.session, account)), batch_id)


@act(
    "batch.cancel",
    command="batches cancel",
    route="POST /accounts/{account}/batches/{batch_id}/cancel",
    own=Own(form="/batches/{batch_id}/cancel"),
    scope=OperatorScope.ACCOUNTS,
    title="Cancel the job",
    done="The job {batch_id} has ended.",
    of=by_id,
    dangerous=True,
)
def cancel(
    act: Act,
    account: AccountName,
    batch_id: Annotated[str, Term("The job's id.", label="Job", typed="BATCH_ID")],
) -> BatchObject:
    """End a job now. What is answered stays charged and can be downloaded; what is held is released.

    Example: vendor batches cancel acme batch_0f3c7a91d2b45e688f1d2c3b
    """
    view = act.view(find_account(act.session, account))
    return book.cancel(act.session, view, batch_id, act.keep_micros, act.actor, act.now)


@preview(cancel)
def _of_cancel(act: Act, account: str, batch_id: str) -> Iterator[str]:
    view = act.view(find_account(act.session, account))
    job = book.public(act.session, book.find(act.session, view, batch_id))
    if job.status != "in_progress":
        return
    counts = job.request_counts
    yield f"The job {job.id} ends at once; {counts.left:,} of its {counts.total:,} lines are not answered."
    yield f"What is answered stays charged ({money(job.cost_micros)} so far), and can be downloaded."
    yield f"What is held for the rest, at most {money(job.held_micros)}, is free again."
