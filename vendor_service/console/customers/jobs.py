"""Bulk jobs as customers' pages show them."""

from dataclasses import dataclass
from datetime import UTC, datetime

from markupsafe import Markup
from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.batches import BatchObject, FileObject
from shared.pages import charts
from vendor_service.batches import book, files
from vendor_service.database.tables import StoredFile
from vendor_service.database.view import View

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


def page_of(session: Session, view: View, after: str | None) -> tuple[list[ShownJob], bool]:
    """Some of the jobs in view behind `after`, the newest first, and whether there are more.

    Raises:
        APIError: `not_found`; there is no job `after`.
    """
    found, more = book.page(session, view, after, _JOBS)
    return [_shown(session, view, each) for each in found], more


def _shown(session: Session, view: View, job: BatchObject) -> ShownJob:
    named = {"input": job.input_file_id, "answers": job.output_file_id, "errors": job.error_file_id}
    ids = [each for each in named.values() if each is not None]
    there = {
        each.id: files.public(each)
        for each in session.scalars(
            select(StoredFile).where(
                view.rows(StoredFile), StoredFile.id.in_(ids), StoredFile.state == "ready"
            )
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
