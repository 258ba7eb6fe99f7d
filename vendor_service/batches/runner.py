"""The runner: works on chunks of jobs in this process, where nobody else asks the model."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from time import monotonic

import numpy as np

from shared.errors import APIError, ErrorCode
from shared.http.middleware import new_request_id
from shared.kinds import Usage
from vendor_service.batches.answers import Answers, LineWork, answers_of, queries_of, read_lines
from vendor_service.batches.files import errors_name, input_name, output_name
from vendor_service.batches.leases import LEASE_SECONDS, ChunkOutcome, Claim, Leases
from vendor_service.batches.limits import BatchLimits
from vendor_service.batches.lines import LineReader
from vendor_service.batches.store import Store
from vendor_service.database.view import View
from vendor_service.embed.models import Models, ServedModel
from vendor_service.embed.request import no_rows
from vendor_service.extraction.recorder import Answered, Recorder, buckets_of
from vendor_service.metrics import Metrics
from vendor_service.money.admission import Admission
from vendor_service.money.orders import JobPart
from vendor_service.money.rate import Allowance, cost_of

# While one chunk is encoded, the next ones are read and decoded.
_AT_ONCE = 3
_LOOK_SECONDS = 1.0
_BUSY_SECONDS = 0.05
# What fails for a reason that may pass is tried again so long later, as often as need be; what fails for no
# such reason is tried twice more, the second time line by line.
_LATER_SECONDS = 2.0
_LONGEST_SECONDS = 60.0
_TRIES = 2

_log = logging.getLogger(__name__)


class Pauses:
    """Of which jobs nothing is taken for a while: longer each time that a chunk fails, until one succeeds.

    What fails for want of a device, of the store or of a file fails for every chunk of a job: to take the
    next one at once would be to take them all, again and again.
    """

    def __init__(self) -> None:
        self._pauses: dict[str, tuple[float, float]] = {}  # until when, and how long

    def now(self) -> list[str]:
        """The ids of these jobs."""
        return [job for job, (until, _) in self._pauses.items() if monotonic() < until]

    def begin(self, job: str) -> None:
        """Take nothing of a job for a while; chunks that fail together make one pause."""
        now = monotonic()
        until, seconds = self._pauses.get(job, (now, 0.0))
        if now >= until:
            # Jobs that have ended meanwhile are forgotten.
            self._pauses = {
                each: pause for each, pause in self._pauses.items() if now < pause[0] + _LONGEST_SECONDS
            }
            seconds = min(max(_LATER_SECONDS, 2 * seconds), _LONGEST_SECONDS)
            self._pauses[job] = (now + seconds, seconds)

    def end(self, job: str) -> None:
        """A chunk of a job succeeded."""
        self._pauses.pop(job, None)


class Runner:
    """Takes chunks, answers their lines and settles them. It belongs to the event loop."""

    def __init__(
        self,
        models: Models,
        leases: Leases,
        store: Store,
        admission: Admission,
        allowance: Allowance,
        reader: LineReader,
        recorder: Recorder | None,
        metrics: Metrics,
        limits: BatchLimits,
    ) -> None:
        self._models = models
        self._leases = leases
        self._store = store
        self._admission = admission
        self._allowance = allowance
        self._reader = reader
        self._recorder = recorder
        self._metrics = metrics
        self._limits = limits
        self._running: dict[asyncio.Task[None], Claim] = {}
        self._pauses = Pauses()
        self._woken = asyncio.Event()

    @property
    def busy(self) -> bool:
        """Whether it works on a chunk."""
        return bool(self._running)

    def wake(self) -> None:
        """Look for work now: there is some."""
        self._woken.set()

    async def repeat(self) -> None:
        """Work until cancelled; then give back what is not done."""
        renewing = asyncio.create_task(self._renew())
        try:
            while True:
                await self._step()
        finally:
            renewing.cancel()
            left = dict(self._running)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, renewing, return_exceptions=True)

    async def _step(self) -> None:
        """Take one more chunk, or wait until there may be one."""
        self._woken.clear()
        served = [(each.facts.id, each.facts.fingerprint) for each in self._models if _is_idle(each)]
        claim = None
        if served and len(self._running) < _AT_ONCE:
            claim = await self._claim(served)
        if claim is not None:
            task = asyncio.create_task(self._work(claim))
            self._running[task] = claim
            task.add_done_callback(self._ended)
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), _LOOK_SECONDS if served else _BUSY_SECONDS)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        del self._running[task]
        self._woken.set()

    async def _claim(self, served: Sequence[tuple[str, str]]) -> Claim | None:
        try:
            without = self._pauses.now(), self._allowance.half_gone()
            return await asyncio.to_thread(self._leases.claim, served, *without)
        except APIError as error:
            _log.warning("bulk jobs were put off: %s", error)
        except Exception:
            _log.exception("taking a chunk of a bulk job failed; it will be tried again")
        await asyncio.sleep(_LOOK_SECONDS)
        return None

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / 4)
            try:
                await asyncio.to_thread(self._leases.renew, list(self._running.values()))
            except Exception as error:
                _log.warning("leases on bulk jobs could not be renewed: %s", error)

    async def _work(self, claim: Claim) -> None:
        """Do a chunk, or give it back."""
        try:
            await self._do(claim)
            self._pauses.end(claim.job.id)
        except asyncio.CancelledError:
            await self._give_back(claim)
            raise
        except APIError as error:
            if error.code not in (
                ErrorCode.CONFLICT,
                ErrorCode.DEADLINE_EXCEEDED,
            ):  # it is another's, or over
                _log.warning("chunk %d of %s was put off: %s", claim.piece.number, claim.job.id, error)
                self._pauses.begin(claim.job.id)
            await self._give_back(claim, after_seconds=_LATER_SECONDS)
        except Exception:
            _log.exception("chunk %d of %s failed", claim.piece.number, claim.job.id)
            await self._give_back(claim, after_seconds=_LATER_SECONDS, failed=True)

    async def _give_back(self, claim: Claim, *, after_seconds: float = 0.0, failed: bool = False) -> None:
        """Let go of a chunk, and of what was written of it unless that may have been settled."""

        def remove() -> None:
            for name in (output_name(claim.part), errors_name(claim.part)):
                self._store.remove(name)

        give_back = partial(self._leases.give_back, claim, after_seconds=after_seconds, failed=failed)
        try:
            if await asyncio.to_thread(give_back):
                await self._store.do(remove)
        except Exception as error:  # its lease runs out
            _log.warning("chunk %d of %s was not given back: %s", claim.piece.number, claim.job.id, error)

    async def _do(self, claim: Claim) -> None:
        model = self._models.find(claim.job.model)
        if model.facts.fingerprint != claim.job.model_fingerprint:
            raise APIError(ErrorCode.NOT_READY, "the model of this job is not served here any more")
        with model.in_hand():
            works = await self._answered(claim, model)
        request_id = new_request_id()
        facts = model.facts
        answers = await asyncio.to_thread(answers_of, claim, works, facts, request_id)
        await self._store.do(self._store_part, claim, answers)
        try:
            await self._settle(claim, model, answers, request_id)
        except APIError as error:
            if error.code == ErrorCode.DEADLINE_EXCEEDED:  # the job has ended, and nobody pays for this
                unpaid = sum(each.cost for each in works if each.error is None)
                self._allowance.take_for_job(View.of_project(claim.job), unpaid)
            raise

    async def _answered(self, claim: Claim, model: ServedModel) -> list[LineWork]:
        """The lines of a chunk, encoded as far as they can be."""
        piece, account = claim.piece, claim.job.account_id
        name = input_name(claim.job.input_file_id)
        content = await self._store.do(self._store.read, name, piece.first_byte, piece.bytes)
        works = await asyncio.to_thread(read_lines, claim, content, self._reader, model)
        left = await self._prepared(claim, model, works)
        if claim.failures < _TRIES:
            await _encode(model, account, left)
            return works
        for each in left:
            try:
                await _encode(model, account, [each])
            except APIError:
                raise
            except Exception:
                _log.exception("line %d of %s fails", each.number + 1, claim.job.id)
                message = "something went wrong here; nothing was charged"
                each.error = APIError(ErrorCode.INTERNAL_ERROR, message)
        return works

    async def _prepared(self, claim: Claim, model: ServedModel, works: Sequence[LineWork]) -> list[LineWork]:
        """Prepare the queries of lines, and count those that nobody pays for; the lines that are left."""
        counts = queries_of(works)
        asked = [works[place] for place in counts]
        queries = [each for work in asked if work.line is not None for each in work.line.queries.items]
        if not queries:
            return []
        seconds = dict.fromkeys(range(len(queries)), 0.0)
        took = seconds.__setitem__
        prepared = await model.encoder.prepare(claim.job.account_id, queries, background=True, took=took)
        first, unpaid = 0, 0
        for work, count in zip(asked, counts.values(), strict=True):
            work.take(prepared[first : first + count])
            costs = [cost_of(seconds[first + place]) for place in range(count)]
            refused = range(count) if work.error is not None else work.refused
            lost = sum(costs[place] for place in refused)
            work.cost = sum(costs) - lost
            unpaid += lost
            first += count
        if unpaid:
            self._allowance.take_for_job(View.of_project(claim.job), unpaid)
        return [each for each in asked if each.error is None]

    def _store_part(self, claim: Claim, answers: Answers) -> None:
        if answers.output:
            self._store.write(output_name(claim.part), answers.output)
        if answers.errors:
            self._store.write(errors_name(claim.part), answers.errors)

    async def _settle(self, claim: Claim, model: ServedModel, answers: Answers, request_id: str) -> None:
        """Charge for what was answered, and take note of it."""
        fingerprint = model.facts.fingerprint
        rows = np.concatenate([no_rows(model.facts), *answers.rows])
        buckets = buckets_of(rows, fingerprint) if len(rows) else []
        piece, job = claim.piece, claim.job
        part = JobPart(request_id, piece.counts, answers.counts, buckets)
        outcome = ChunkOutcome(
            claim,
            answers.completed,
            answers.failed,
            len(answers.output),
            len(answers.errors),
            answers.sold,
            request_id,
            self._limits,
        )
        settling = self._admission.settle_part(job.account_id, job.hold_id, part, outcome)
        charged = await asyncio.wrap_future(settling)
        if charged is None:
            return
        self._metrics.decided("settled")
        model.metrics.sold(Usage.of(answers.counts, charged.cost_micros), replayed=False)
        if self._recorder is not None:
            digests = [each.asked for each in answers.sold]
            self._recorder.note(Answered(job.account_id, fingerprint, digests, rows, buckets))


def _is_idle(model: ServedModel) -> bool:
    return not any(model.encoder.waiting(kind) for kind in ("image", "text"))


async def _encode(model: ServedModel, account: str, works: Sequence[LineWork]) -> None:
    """Encode what is left of some lines, all at once."""
    accepted = [each for work in works for each in work.accepted]
    if accepted:
        rows = (await model.encoder.encode(account, accepted, background=True)).rows
    first = 0
    for work in works:
        work.rows = rows[first : first + len(work.accepted)] if work.accepted else no_rows(model.facts)
        first += len(work.accepted)
