"""Bulk jobs as customers' pages show them, and what a customer can do about one."""

from dataclasses import dataclass
from datetime import UTC, datetime

from markupsafe import Markup
from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.batches import BatchObject, FileObject
from shared.errors import APIError, ErrorCode
from vendor_service.batches import book, files
from vendor_service.batches.services import BatchServices
from vendor_service.console import charts
from vendor_service.console.customers.visitor import Customer, require_acting
from vendor_service.console.rendering import money
from vendor_service.console.routes import Action, Asked, Done, Question
from vendor_service.database.tables import StoredFile

_JOBS = 25


@dataclass(frozen=True)
class ShownJob:
    """A job, what is drawn of it, and which of its files are still there, by what is in them."""

    job: BatchObject
    drawing: Markup
    began: datetime
    expires: datetime
    ended: datetime | None
    files: dict[str, FileObject]

    @property
    def done(self) -> int:
        """The lines that were answered or refused."""
        return self.job.request_counts.done


def page_of(session: Session, account_id: str, after: str | None) -> tuple[list[ShownJob], bool]:
    """Some of an account's jobs behind `after`, the newest first, and whether there are more.

    Raises:
        APIError: `not_found`; there is no job `after`.
    """
    found, more = book.page(session, account_id, after, _JOBS)
    return [_shown(session, each) for each in found], more


def _shown(session: Session, job: BatchObject) -> ShownJob:
    named = {"input": job.input_file_id, "answers": job.output_file_id, "errors": job.error_file_id}
    ids = [each for each in named.values() if each is not None]
    there = {
        each.id: files.public(each)
        for each in session.scalars(
            select(StoredFile).where(StoredFile.id.in_(ids), StoredFile.state == "ready")
        )
    }
    ended = job.completed_at or job.cancelled_at or job.expired_at
    counts = job.request_counts
    done = counts.done
    return ShownJob(
        job,
        charts.progress(f"{done} of {counts.total} lines of {job.id} are done", done, counts.total),
        _moment(job.created_at),
        _moment(job.expires_at),
        None if ended is None else _moment(ended),
        {kind: there[each] for kind, each in named.items() if each in there},
    )


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@dataclass(frozen=True)
class JobActions:
    """The actions, where the vendor runs jobs."""

    desk: BatchServices

    def all(self) -> list[Action[Customer]]:
        """Every action."""
        return [
            Action("/batches/{batch_id}/cancel", "/batches", require_acting, self.cancel, self.ask_to_cancel)
        ]

    def ask_to_cancel(self, asked: Asked[Customer], session: Session) -> Question:
        """What the end of a job means."""
        job = book.public(session, book.find(session, asked.who.account_id, asked.path["batch_id"]))
        if job.status != "in_progress":
            message = f"the job {job.id} has ended already: it is {job.status}"
            raise APIError(ErrorCode.CONFLICT, message, param="batch_id")
        counts = job.request_counts
        facts = [
            f"The job {job.id} ends at once; {counts.left:,} of its {counts.total:,} lines are not answered.",
            f"What is answered stays charged ({money(job.cost_micros)} so far), and can be downloaded.",
            f"What is held for the rest, at most {money(job.held_micros)}, is free again.",
        ]
        return Question("Cancel this job?", facts, "Cancel the job", dangerous=True)

    def cancel(self, asked: Asked[Customer]) -> Done:
        """End a job."""
        job = self.desk.jobs.cancel(asked.who.account_id, asked.path["batch_id"], asked.who.actor)
        if job.status != "cancelled":
            return Done(f"The job {job.id} had ended before: it is {job.status}.", "/batches")
        return Done(f"The job {job.id} was cancelled.", "/batches")
