"""Bulk jobs in the books: found, shown, cancelled and ended, by whoever may. It knows no model."""

import json
import secrets
from collections.abc import Sequence

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from shared.batches import BatchObject, RequestCounts
from shared.errors import ErrorCode
from vendor_service.audit import log
from vendor_service.clock import SECOND
from vendor_service.database.tables import Account, BatchChunk, BatchJob, Hold, StoredFile
from vendor_service.database.view import View
from vendor_service.database.working_set import Touched, WorkingSet
from vendor_service.errors import APIError
from vendor_service.money.bulk import release_job
from vendor_service.webhooks import events
from vendor_service.webhooks.events import EventKind


def end(session: Session, account: Account, job: BatchJob, state: str, now: int, keep_micros: int) -> None:
    """Let a job end, with the files of what it brought, which are kept for `keep_micros` from now on.

    Account and job are locked by this transaction.
    """
    job.state, job.ended_at = state, now
    session.flush()
    sizes = select(func.sum(BatchChunk.output_bytes), func.sum(BatchChunk.error_bytes))
    output, errors = session.execute(sizes.where(BatchChunk.batch_id == job.id)).one()
    job.output_file_id = _add_file(session, job, "output", int(output or 0), now, keep_micros)
    job.error_file_id = _add_file(session, job, "errors", int(errors or 0), now, keep_micros)
    if state == "completed":
        data = {"id": job.id, "status": state, "completed": job.completed, "failed": job.failed}
        data |= {"cost_micros": job.cost_micros, "output_file_id": job.output_file_id}
        data |= {"error_file_id": job.error_file_id}
        events.emit(session, EventKind.BATCH_COMPLETED, account, data, now, job.project_id)


def cancel(
    session: Session, view: View, batch_id: str, keep_micros: int, actor: str, now: int
) -> BatchObject:
    """End a job now, and record who did; one that has ended stays as it is.

    What is answered is charged, and its files are kept for `keep_micros` from now; the rest is released.

    Raises:
        APIError: `not_found`.
    """
    job = find(session, view, batch_id)
    if _stop(session, view.account_id, [job], keep_micros, now):
        facts = {"batch": job.id, "lines": job.lines, "completed": job.completed, "failed": job.failed}
        name = session.get_one(Account, view.account_id).name
        log.append(session, actor, "batch.cancel", name, None, facts, now)
    return public(session, job)


def stop_all(
    session: Session, account_id: str, keep_micros: int, now: int, *, key_id: str | None = None
) -> list[str]:
    """End all jobs of an account, or of one key of it, as `cancel` ends one; the ids of those that ran.

    This transaction has locked the account: nothing begins another one beside it.
    """
    running = select(BatchJob).where(BatchJob.account_id == account_id, BatchJob.state == "in_progress")
    if key_id is not None:
        running = running.where(BatchJob.key_id == key_id)
    found = session.scalars(running.order_by(BatchJob.created_at, BatchJob.id)).all()
    return [each.id for each in _stop(session, account_id, found, keep_micros, now)]


def _stop(
    session: Session, account_id: str, jobs: Sequence[BatchJob], keep_micros: int, now: int
) -> list[BatchJob]:
    """End jobs of an account now, and release what is held for them; those that had not ended."""
    if not jobs:
        return []
    rows = WorkingSet(session, [Touched(account_id, each.hold_id) for each in jobs])
    stopped = []
    for job in sorted(jobs, key=lambda each: each.id):
        session.refresh(job, with_for_update=True)
        hold = rows.hold(job.hold_id)
        if job.state == "in_progress" and hold is not None:
            end(session, rows.account(account_id), job, "cancelled", now, keep_micros)
            release_job(rows, hold, now)
            stopped.append(job)
    rows.write()
    return stopped


def page(session: Session, view: View, after: str | None, limit: int) -> tuple[list[BatchObject], bool]:
    """Up to `limit` jobs in view behind `after`, the newest first; and whether there are more.

    Raises:
        APIError: `not_found`; there is no job `after`.
    """
    found = select(BatchJob).where(view.rows(BatchJob))
    if after is not None:
        last = find(session, view, after)
        found = found.where(tuple_(BatchJob.created_at, BatchJob.id) < tuple_(last.created_at, last.id))
    found = found.order_by(BatchJob.created_at.desc(), BatchJob.id.desc())
    jobs = session.scalars(found.limit(limit + 1)).all()
    return [public(session, each) for each in jobs[:limit]], len(jobs) > limit


def public(session: Session, job: BatchJob) -> BatchObject:
    """A job as its owner sees it."""
    ended = None if job.ended_at is None else job.ended_at // SECOND
    hold = session.get_one(Hold, job.hold_id)
    return BatchObject(
        id=job.id,
        endpoint=job.endpoint,
        model=job.model,
        model_fingerprint=job.model_fingerprint,
        input_file_id=job.input_file_id,
        status=job.state,  # type: ignore[arg-type]
        output_file_id=job.output_file_id,
        error_file_id=job.error_file_id,
        created_at=job.created_at // SECOND,
        in_progress_at=job.created_at // SECOND,
        expires_at=job.expires_at // SECOND,
        completed_at=ended if job.state == "completed" else None,
        cancelled_at=ended if job.state == "cancelled" else None,
        expired_at=ended if job.state == "expired" else None,
        request_counts=RequestCounts(total=job.lines, completed=job.completed, failed=job.failed),
        metadata=None if job.labels is None else json.loads(job.labels),
        cost_micros=job.cost_micros,
        held_micros=hold.cost_micros if hold.state == "open" else 0,
    )


def find(session: Session, view: View, batch_id: str) -> BatchJob:
    """A job in view.

    Raises:
        APIError: `not_found`.
    """
    job = session.get(BatchJob, batch_id)
    if job is None or not view.has(job):
        message = f"this account has no batch {batch_id[:64]!r}"
        raise APIError(ErrorCode.NOT_FOUND, message, param="batch_id")
    return job


def _add_file(
    session: Session, job: BatchJob, kind: str, size: int, now: int, keep_micros: int
) -> str | None:
    if not size:
        return None
    file_id = f"file-{secrets.token_hex(12)}"
    session.add(
        StoredFile(
            id=file_id,
            account_id=job.account_id,
            project_id=job.project_id,
            purpose="batch_output",
            name=f"{job.id}.{kind}.jsonl",
            state="ready",
            created_at=now,
            expires_at=now + keep_micros,
            bytes=size,
            batch_id=job.id,
        )
    )
    return file_id
