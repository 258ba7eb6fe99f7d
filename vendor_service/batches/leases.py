"""Leases: which process works on which chunk, so that several share the jobs and none is done twice."""

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select, tuple_, update
from sqlalchemy.orm import Session

from shared.errors import ErrorCode
from shared.receipts import Sold, answer_hash, request_hash
from vendor_service.batches import book
from vendor_service.batches.files import job_folder
from vendor_service.batches.limits import BatchLimits
from vendor_service.clock import SECOND, Clock
from vendor_service.database.session import Database
from vendor_service.database.tables import Account, ApiKey, BatchChunk, BatchJob, FilePiece
from vendor_service.database.view import View
from vendor_service.errors import APIError
from vendor_service.money.orders import Charged
from vendor_service.money.standing import may_ask

# So long after it last told that it works on a chunk, a process is believed to be gone.
LEASE_SECONDS = 20


@dataclass(frozen=True)
class Claim:
    """A chunk that this process works on, as it was when it was taken; `part` names what is written of it."""

    job: BatchJob
    piece: FilePiece
    lease: str
    part: str
    failures: int

    @property
    def key(self) -> tuple[str, int]:
        """The key of the chunk's row."""
        return (self.job.id, self.piece.number)


class Leases:
    """Takes chunks, keeps them and gives them back. Its methods block. Thread-safe."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def claim(
        self,
        served: Collection[tuple[str, str]],
        without: Collection[str] = (),
        without_projects: Collection[View] = (),
    ) -> Claim | None:
        """The next chunk for a model that is served (name and fingerprint); accounts take turns.

        Jobs of the ids `without` are passed over, and those `without_projects`.
        """
        spent = [(each.account_id, each.project_id) for each in without_projects]
        project = tuple_(BatchJob.account_id, BatchJob.project_id)
        allowed = (BatchJob.id.not_in(without), project.not_in(spent))
        wanted = self._waiting(served).where(*allowed)
        with self._database.read() as session:  # most of the time there is nothing, and nothing to lock
            found = session.execute(wanted).all()
        for batch_id, _ in found:
            claim = self._claim(batch_id)
            if claim is not None:
                return claim
        return None

    def _waiting(self, served: Collection[tuple[str, str]]) -> Select[*tuple[Any, ...]]:
        """Jobs with a free chunk; the account that has waited longest for one comes first."""
        turns = (
            select(BatchJob.account_id, func.max(BatchJob.claimed_at).label("last"))
            .where(BatchJob.state == "in_progress")
            .group_by(BatchJob.account_id)
            .subquery()
        )
        mine, now = BatchChunk.batch_id == BatchJob.id, self._clock()
        free = select(BatchChunk.number).where(mine, *self._is_free())
        begun = select(func.count()).where(mine, BatchChunk.state == "waiting").scalar_subquery()
        return (
            select(BatchJob.id, turns.c.last)
            .join(turns, turns.c.account_id == BatchJob.account_id)
            .join(Account, Account.id == BatchJob.account_id)
            .join(ApiKey, ApiKey.id == BatchJob.key_id)
            .where(
                BatchJob.state == "in_progress",
                BatchJob.expires_at > now,
                tuple_(BatchJob.model, BatchJob.model_fingerprint).in_(list(served)),
                may_ask(BatchJob.secret_hash, now),
                free.exists() | (BatchJob.chunks_left > begun),
            )
            .order_by(turns.c.last, BatchJob.created_at, BatchJob.id)
            .limit(16)
        )

    def _is_free(self) -> tuple[ColumnElement[bool], ...]:
        return (BatchChunk.state == "waiting", BatchChunk.leased_until <= self._clock())

    def _claim(self, batch_id: str) -> Claim | None:
        now = self._clock()
        with self._database.write() as session:
            # Whoever has locked a job holds up no other: it is asked for again with the next look for work.
            job = session.get(BatchJob, batch_id, with_for_update={"skip_locked": True})
            if job is None or job.state != "in_progress":
                return None
            free = select(BatchChunk).where(BatchChunk.batch_id == batch_id, *self._is_free())
            chunk = session.scalar(free.order_by(BatchChunk.number).limit(1)) or _next_chunk(session, job)
            if chunk is None:
                return None
            lease = secrets.token_hex(16)
            chunk.lease, chunk.leased_until = lease, now + LEASE_SECONDS * SECOND
            job.claimed_at = max(now, job.claimed_at + 1)
            piece = session.get_one(FilePiece, (job.input_file_id, chunk.number))
            return Claim(job, piece, lease, f"{job_folder(job.id)}/{chunk.number}-{lease}", chunk.failures)

    def renew(self, claims: Sequence[Claim]) -> None:
        """Tell that they are still worked on."""
        self._set(claims, leased_until=self._clock() + LEASE_SECONDS * SECOND)

    def give_back(self, claim: Claim, *, after_seconds: float = 0.0, failed: bool = False) -> bool:
        """Let somebody else work on it, `after_seconds`; it may have `failed`.

        Whether what was written under this claim is of no use: it is not what the job has of the chunk, and
        without the lease it never will be.
        """
        at = self._clock() + round(after_seconds * SECOND)
        self._set([claim], lease=None, leased_until=at, failures=claim.failures + failed)
        with self._database.read() as session:
            return session.get_one(BatchChunk, claim.key).part != claim.part

    def _set(self, claims: Sequence[Claim], **values: object) -> None:
        with self._database.write() as session:
            for each in sorted(claims, key=lambda claim: claim.key):
                batch_id, number = each.key
                mine = (
                    BatchChunk.batch_id == batch_id,
                    BatchChunk.number == number,
                    BatchChunk.state == "waiting",
                    BatchChunk.lease == each.lease,
                )
                session.execute(update(BatchChunk).where(*mine).values(**values))

    def release_abandoned(self) -> None:
        """Free every chunk: those of a process that is gone, at the start of its only successor."""
        with self._database.write() as session:
            held = (BatchChunk.state == "waiting", BatchChunk.lease.is_not(None))
            session.execute(update(BatchChunk).where(*held).values(lease=None, leased_until=0))


def _next_chunk(session: Session, job: BatchJob) -> BatchChunk | None:
    """Make a chunk of the first piece of a job's file that has none.

    To make them all at the job's beginning would be to write as many rows as a file has lines at most, in a
    transaction for which everybody waits. The job is locked by this transaction.
    """
    last = session.scalar(select(func.max(BatchChunk.number)).where(BatchChunk.batch_id == job.id))
    piece = session.get(FilePiece, (job.input_file_id, 0 if last is None else last + 1))
    if piece is None:
        return None
    lines = {"first_line": piece.first_line, "lines": piece.lines}
    chunk = BatchChunk(batch_id=job.id, number=piece.number, state="waiting", failures=0, **lines)
    session.add(chunk)
    return chunk


@dataclass(frozen=True)
class ChunkOutcome:
    """The outcome of a chunk, to be written down with its charge; a `PartRecord`.

    `sold` has the answers; `completed` and `failed` count lines.
    """

    claim: Claim
    completed: int
    failed: int
    output_bytes: int
    error_bytes: int
    sold: Sequence[Sold]
    hold_id: str
    limits: BatchLimits

    def found(self, session: Session) -> bool:
        """Whether it is written down.

        Raises:
            APIError: `conflict`; another process has taken the chunk.
        """
        _, chunk = self._rows(session)
        if chunk.state == "done" and chunk.part == self.claim.part:
            return True
        if chunk.state != "waiting" or chunk.lease != self.claim.lease:
            raise APIError(ErrorCode.CONFLICT, "this chunk is no longer this process's to do")
        return False

    def write(self, session: Session, account: Account, charged: Charged | None, now: int) -> bool:
        """See `PartRecord`."""
        job, chunk = self._rows(session)
        chunk.state, chunk.part, chunk.lease = "done", self.claim.part, None
        chunk.output_bytes, chunk.error_bytes = self.output_bytes, self.error_bytes
        if charged is not None:
            chunk.hold_id = self.hold_id
            chunk.request_hash, chunk.answer_hash = request_hash(self.sold), answer_hash(self.sold)
            job.cost_micros += charged.cost_micros
        job.completed += self.completed
        job.failed += self.failed
        job.chunks_left -= 1
        if job.chunks_left:
            return False
        book.end(session, account, job, "completed", now, self.limits.keep_micros)
        return True

    def _rows(self, session: Session) -> tuple[BatchJob, BatchChunk]:
        session.flush()  # of an earlier chunk in the same transaction
        # The job before the chunk, as who takes a chunk locks them.
        job = session.get_one(BatchJob, self.claim.job.id, with_for_update=True)
        return job, session.get_one(BatchChunk, self.claim.key, with_for_update=True)
