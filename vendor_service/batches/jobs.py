"""Bulk jobs: begun, looked at, cancelled and ended."""

import hashlib
import json
import secrets
from concurrent.futures import Future
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.batches import WINDOW_SECONDS, BatchObject, BatchRequest
from shared.errors import ErrorCode
from shared.http.middleware import new_request_id
from vendor_service.batches import book, files
from vendor_service.batches.limits import BatchLimits
from vendor_service.clock import DAY, HOUR, SECOND, Clock
from vendor_service.database.session import Database
from vendor_service.database.tables import (
    Account,
    ApiKey,
    BatchChunk,
    BatchJob,
    FilePiece,
    LedgerEntry,
    StoredFile,
)
from vendor_service.database.view import View
from vendor_service.database.working_set import HoldRow
from vendor_service.encoder.facts import ModelFacts
from vendor_service.errors import APIError, CommitInDoubt
from vendor_service.metrics import Metrics
from vendor_service.money.admission import Admission
from vendor_service.money.orders import Order
from vendor_service.money.standing import may_ask

# What is held for a job is released by the sweep of all holds so long after its window, if nothing else did.
_HELD_LONGER = HOUR
# A job stays in the books for good, so a project begins so many in a day, those that it cancels included.
_MOST_A_DAY = 1000


@dataclass(frozen=True)
class JobTerms:
    """The buyer of a job, who has its file in `view`, and terms like those of a request for embeddings."""

    view: View
    project_id: str
    key_id: str
    secret_hash: str | None = None
    idempotency_key: str | None = None
    max_cost_micros: int | None = None


@dataclass(frozen=True)
class ChunkCharge:
    """One charge of a job: the lines of the chunk `number`, and the hashes of its receipt."""

    number: int
    first_line: int
    lines: int
    entry: LedgerEntry
    request_hash: str
    answer_hash: str


class Jobs:
    """All bulk jobs. Its methods block; they raise `APIError` where the database is away. Thread-safe."""

    def __init__(
        self, database: Database, admission: Admission, clock: Clock, limits: BatchLimits, metrics: Metrics
    ) -> None:
        self._database = database
        self._admission = admission
        self._clock = clock
        self._limits = limits
        self._metrics = metrics

    def begin(self, terms: JobTerms, asked: BatchRequest, file: StoredFile, model: ModelFacts) -> BatchObject:
        """Begin a job: hold the price of all its lines; or find the one that this idempotency key has begun.

        Raises:
            APIError: the file is for another endpoint, a limit does not allow it, or the key began another.
            CommitInDoubt: the database went away before it said whether the job was begun.
        """
        if asked.endpoint != file.endpoint:
            message = f"the lines of this file are for {file.endpoint}"
            raise APIError(ErrorCode.INVALID_REQUEST, message, param="endpoint")
        now = self._clock()
        order = Order(
            request_id=new_request_id(),
            account_id=terms.view.account_id,
            key_id=terms.key_id,
            model=model.id,
            model_fingerprint=model.fingerprint,
            counts=file.counts,
            body_hash=_hash_of(asked, file),
            max_cost_micros=terms.max_cost_micros,
            secret_hash=terms.secret_hash,
            held_until=now + WINDOW_SECONDS * SECOND + _HELD_LONGER,
        )
        draft = _Draft(order, terms, asked, file, self._limits, now)
        try:
            held = self._admission.hold_job(order, draft).result()
        except APIError as error:
            self._metrics.decided("refused")
            if isinstance(error, CommitInDoubt) and terms.idempotency_key is not None:
                raise CommitInDoubt.keyed() from error
            raise
        self._metrics.decided("replayed" if held.admitted.replayed else "held")
        return held.job

    def get(self, view: View, batch_id: str) -> BatchObject:
        """A job in view.

        Raises:
            APIError: `not_found`.
        """
        with self._database.read() as session:
            return book.public(session, book.find(session, view, batch_id))

    def page(self, view: View, after: str | None, limit: int) -> tuple[list[BatchObject], bool]:
        """Some jobs in view, and whether there are more; raises what `page` does."""
        with self._database.read() as session:
            return book.page(session, view, after, limit)

    def cancel(self, view: View, batch_id: str, actor: str) -> BatchObject:
        """End a job in view now; raises what `cancel` does."""
        with self._database.write() as session:
            was_running = book.find(session, view, batch_id).state == "in_progress"
            keep = self._limits.keep_micros
            job = book.cancel(session, view, batch_id, keep, actor, self._clock())
        if was_running and job.status == "cancelled":
            self._metrics.decided("voided")
        return job

    def end_overdue(self) -> int:
        """End the jobs whose window is over, and those whose account, key or secret may not ask; how many.

        One that cannot be ended now keeps no other from it; why is raised once the others are.
        """
        now = self._clock()
        with self._database.read() as session:
            over = BatchJob.expires_at <= now
            running = (
                select(BatchJob.account_id, BatchJob.id, BatchJob.hold_id, over)
                .join(Account, Account.id == BatchJob.account_id)
                .join(ApiKey, ApiKey.id == BatchJob.key_id)
                .where(BatchJob.state == "in_progress", over | ~may_ask(BatchJob.secret_hash, now))
            )
            found = [
                (account_id, batch_id, hold_id, "expired" if is_over else "cancelled")
                for account_id, batch_id, hold_id, is_over in session.execute(running)
            ]
        ending = [self._end(*each) for each in found]
        failed = [error for each in ending if (error := each.exception()) is not None]
        ended = sum(each.result() for each in ending if each.exception() is None)
        self._metrics.decided("voided", ended)
        if failed:
            raise failed[-1]
        return ended

    def charges(self, view: View, batch_id: str, after: int, limit: int) -> list[ChunkCharge]:
        """Up to `limit` of a job's charges behind the chunk `after`, in the order of its lines.

        Raises:
            APIError: `not_found`.
        """
        with self._database.read() as session:
            job = book.find(session, view, batch_id)
            # An earlier version did not note the lines of chunks whose file was deleted.
            mine = (BatchChunk.batch_id == job.id, BatchChunk.number > after, BatchChunk.lines.is_not(None))
            found = (
                select(BatchChunk, LedgerEntry)
                .join(LedgerEntry, LedgerEntry.hold_id == BatchChunk.hold_id)
                .where(*mine)
                .order_by(BatchChunk.number)
                .limit(limit)
            )
            return [
                ChunkCharge(
                    chunk.number,
                    int(chunk.first_line or 0),
                    int(chunk.lines or 0),
                    entry,
                    str(chunk.request_hash),
                    str(chunk.answer_hash),
                )
                for chunk, entry in session.execute(found)
            ]

    def _end(self, account_id: str, batch_id: str, hold_id: str, state: str) -> "Future[bool]":
        def ends(session: Session, account: Account, now: int) -> bool:
            job = session.get_one(BatchJob, batch_id, with_for_update=True)
            if job.state != "in_progress":
                return False
            book.end(session, account, job, state, now, self._limits.keep_micros)
            return True

        return self._admission.end_job(account_id, hold_id, ends)


@dataclass(frozen=True)
class _Draft:
    """A job that is to be written down; a `JobRecord`."""

    order: Order
    terms: JobTerms
    asked: BatchRequest
    file: StoredFile
    limits: BatchLimits
    now: int

    def found(self, session: Session) -> BatchObject | None:
        """The job that this idempotency key has begun; see `JobRecord`."""
        account_id, idempotency_key = self.order.account_id, self.terms.idempotency_key
        mine = BatchJob.account_id == account_id
        if idempotency_key is not None:
            same = BatchJob.idempotency_key == idempotency_key
            begun = session.scalar(
                select(BatchJob).where(mine, BatchJob.project_id == self.terms.project_id, same)
            )
            if begun is not None and begun.body_hash != self.order.body_hash:
                message = "this Idempotency-Key was used for another request; use a new key for a new request"
                raise APIError(ErrorCode.IDEMPOTENCY_KEY_REUSED, message)
            if begun is not None:
                return book.public(session, begun)
        begun = session.scalar(select(BatchJob).where(BatchJob.hold_id == self.order.request_id))
        if begun is not None:  # by a commit of which nobody said that it had gone through
            return book.public(session, begun)
        file = files.find(session, self.terms.view, self.file.id, lock=True)
        files.check_room(session, account_id, self.limits, files.errors_of(file.fault_bytes))
        running = select(func.count()).where(mine, BatchJob.state == "in_progress")
        if (session.scalar(running) or 0) >= self.limits.account_jobs:
            message = f"this account has {self.limits.account_jobs} jobs in progress, and may have no more"
            raise APIError(ErrorCode.RATE_LIMITED, message, retry_after=60)
        beside = (mine, BatchJob.project_id == self.terms.project_id)
        lately = select(BatchJob.created_at).where(*beside, BatchJob.created_at > self.now - DAY)
        first = session.scalar(lately.order_by(BatchJob.created_at.desc()).offset(_MOST_A_DAY - 1).limit(1))
        if first is not None:
            message = f"this project began {_MOST_A_DAY} jobs within a day, and may begin no more"
            seconds = -(-(first + DAY - self.now) // SECOND)
            raise APIError(ErrorCode.RATE_LIMITED, message, retry_after=seconds)
        return None

    def write(self, session: Session, hold: HoldRow, now: int) -> BatchObject:
        """See `JobRecord`."""
        pieces = session.scalar(select(func.count()).where(FilePiece.file_id == self.file.id)) or 0
        labels = self.asked.metadata
        job = BatchJob(
            id=f"batch_{secrets.token_hex(12)}",
            account_id=hold.account_id,
            project_id=hold.project_id,
            key_id=hold.key_id,
            secret_hash=self.order.secret_hash,
            hold_id=hold.id,
            input_file_id=self.file.id,
            endpoint=self.asked.endpoint,
            model=hold.model,
            model_fingerprint=hold.model_fingerprint,
            prices=hold.prices,
            state="in_progress",
            labels=None if labels is None else json.dumps(labels),
            idempotency_key=self.terms.idempotency_key,
            body_hash=hold.body_hash,
            created_at=now,
            expires_at=now + WINDOW_SECONDS * SECOND,
            lines=self.file.lines,
            chunks_left=pieces,
        )
        session.add(job)
        session.flush()
        return book.public(session, job)


def _hash_of(asked: BatchRequest, file: StoredFile) -> str:
    terms = asked.model_dump(exclude={"input_file_id"}) | {"file": file.digest}
    return hashlib.sha256(json.dumps(terms, sort_keys=True).encode()).hexdigest()
