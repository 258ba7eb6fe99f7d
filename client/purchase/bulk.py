"""A purchase by bulk jobs: noted before they are begun, stored before they are forgotten, paid for once."""

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from client.cache.bulk_notes import BulkNote
from client.cache.cache import EmbeddingCache
from client.errors import ClientError, JobRunning, NotFound, NotOffered, SpendingStopped, VendorError
from client.purchase.budget import NOTHING, Budget, price
from client.purchase.bulk_answers import JobAnswers
from client.purchase.checkout import Checkout
from client.purchase.job_files import JobFiles, file_beside, on_disk
from client.purchase.lock import is_locked, run_lock
from client.purchase.purchase import PurchaseProgress, PurchaseResult
from client.purchase.recovery import DeadRuns, Undecided
from client.vendors.protocols.tuition import VendorClient
from client.vendors.query import Query, Spending
from shared.batches import BatchObject, FileObject
from shared.embeddings import ModelCard

# A job is looked at after so many seconds, then less and less often.
_FIRST_LOOK, _LAST_LOOK = 0.5, 15.0


class BulkPurchaser:
    """Buys from one vendor in no hurry, at the prices of its bulk jobs, which are those of `model`."""

    def __init__(
        self,
        vendor: VendorClient,
        cache: EmbeddingCache,
        model: ModelCard,
        run_id: str,
        budget: Budget,
        on_progress: Callable[[PurchaseProgress], None],
        say: Callable[[str], None] = lambda _: None,
        *,
        wait: bool,
        settled: PurchaseResult | None = None,
        undecided: Undecided | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Buy nothing yet.

        Args:
            vendor: the vendor.
            cache: where jobs are noted, and where what they bring is stored.
            model: the model, at the prices of bulk jobs.
            run_id: who pays.
            budget: for what it may be.
            on_progress: called as it goes on.
            say: told what a person should know.
            wait: whether jobs are waited for.
            settled: what was fetched before of what had been paid for.
            undecided: what must not be bought, for nobody tells whether it is paid for.
            sleep: waits for so many seconds.
        """
        self._vendor = vendor
        self._jobs = vendor.bulk
        self._cache = cache
        self._model = model
        self._run_id = run_id
        self._budget = budget
        self._on_progress = on_progress
        self._say = say
        self._wait = wait
        self._sleep = sleep
        self._checkout = Checkout(vendor, cache, model)
        self._purchase = settled or PurchaseResult()
        self._files = JobFiles(model, budget, self._purchase.refused)
        self._answers = JobAnswers(vendor, self._checkout, run_id, self._purchase)
        self._undecided: Undecided = {} if undecided is None else undecided
        self._dead_runs = DeadRuns(self._checkout, run_id, say, undecided=self._undecided)
        self._total = 0
        self._owed = NOTHING  # for this run's jobs that cannot be asked after here, or not yet

    def run(self, queries: Sequence[Query]) -> PurchaseResult:
        """Fetch what earlier jobs brought, then begin jobs for what is missing, as far as the budget reaches.

        Raises:
            JobRunning: a job goes on at the vendor, and is not waited for.
            ClientError: something else ended it. A job that was begun stays noted, and goes on.
        """
        others: set[Query] = set()  # what another run is buying right now
        with run_lock(self._cache.path, self._run_id):
            while True:
                self._finish_noted(queries)
                missing = self._missing(queries)
                free = [query for query in missing if query not in others]
                if not missing:
                    break
                if not free:
                    self._wait_for(others, queries)
                    others = set()
                elif (taken := self._buy(free)) is not None:
                    others |= taken
                elif self._missing(free):
                    break
        self._purchase.out_of_budget = bool(self._missing(queries))
        return self._purchase

    def finish(self, queries: Sequence[Query]) -> None:
        """Fetch what earlier jobs brought, and set aside what others of this run may cost; buys nothing.

        Raises:
            JobRunning, ClientError: as `run`.
        """
        with run_lock(self._cache.path, self._run_id):
            self._finish_noted(queries)

    def _finish_noted(self, queries: Sequence[Query]) -> None:
        purchase = self._purchase
        self._total = purchase.bought + len(purchase.refused) + len(self._missing(queries))
        self._set_owed_aside()
        for note in self._noted(queries):
            self._finish(note, queries, wait=self._wait)
        self._set_owed_aside()

    def _set_owed_aside(self) -> None:
        """Have the budget know what was paid, and what this run's jobs that are noted may cost."""
        self._budget.catch_up(self._cache.spending(self._run_id))
        self._budget.settle(self._owed, paid=NOTHING)
        self._owed = owed_to_jobs(self._cache, self._cache.bulk_notes.of_run(self._run_id))
        self._budget.set_aside(self._owed)

    def fetch(self, queries: Sequence[Query]) -> list[BulkNote]:
        """Store what jobs that have ended brought of these; those that go on, and have some of them.

        Raises:
            RunBusy: another process is buying for this run.
            ClientError: as `run`.
        """
        running = []
        with run_lock(self._cache.path, self._run_id):
            for note in self._noted(queries):
                try:
                    self._finish(note, queries, wait=False, sends=False)
                except JobRunning:
                    running.append(note)
        return running

    def _noted(self, queries: Sequence[Query]) -> list[BulkNote]:
        """The jobs that have some of these, and all of this run, for they count in its budget."""
        wanted = set(queries)
        notes = self._cache.bulk_notes.of_model(self._checkout.origin, self._model.fingerprint)
        passed_over = self._cache.bulk_notes.passed_over(self._vendor.key_id)
        return [
            note
            for note in notes
            if note.idempotency_key not in passed_over
            and (note.run_id == self._run_id or not wanted.isdisjoint(note.queries))
        ]

    def _is_noted(self, note: BulkNote, queries: Sequence[Query]) -> bool:
        """Whether a job is still noted, and no other run has stored it meanwhile."""
        return note.idempotency_key in {each.idempotency_key for each in self._noted(queries)}

    def _missing(self, queries: Sequence[Query]) -> list[Query]:
        known = self._cache.known(self._model.fingerprint, queries)
        left_out = known | self._purchase.refused.keys() | self._undecided.keys()
        return [query for query in dict.fromkeys(queries) if query not in left_out]

    def _wait_for(self, others: set[Query], at_hand: Sequence[Query]) -> None:
        """Wait a moment for what other runs are buying, and ask after what a killed one may have paid for."""
        self._sleep(_FIRST_LOOK)
        self._dead_runs.recover({query: query for query in at_hand}, others, only_past=True)

    def _buy(self, missing: Sequence[Query]) -> set[Query] | None:
        """Buy as many of these as fit in one job.

        Returns:
            What another run has bought or is buying of them: then no job was begun. `None` where the budget
            reaches to none of them, or none can be sent.
        """
        try:
            begun = self._begin(missing)
            if not isinstance(begun, BulkNote):
                return begun
            self._finish(begun, missing, wait=self._wait, is_new=True)
            return set()
        finally:
            self._files.release()

    def _begin(self, missing: Sequence[Query]) -> BulkNote | set[Query] | None:
        """Begin a job for as many of these as fit in one, and set aside what it may cost.

        Returns:
            Its note, or what `_buy` returns where none was begun.
        """
        with file_beside(self._cache.path) as file:
            with on_disk(self._cache.path.parent):
                lines = self._files.write(file, missing)
            if not lines:
                return None
            key = _key(self._run_id, self._model.fingerprint, lines, self._cache.path)
            note = BulkNote(
                key, self._run_id, self._model.fingerprint, self._checkout.origin, self._vendor.key_id,
                self._model.prices, lines, time.time(),
            )  # fmt: skip
            taken = self._cache.begin_job(
                note, alive=partial(is_locked, self._cache.path), asked=self._dead_runs.asked
            )
            return taken or self._send(note, file, is_new=True)

    def _send(self, note: BulkNote, file: BinaryIO, *, is_new: bool = False) -> BulkNote:
        """Have the vendor begin a noted job.

        The note goes where it `is_new` and the vendor refuses, or never heard of it. Of any other, the vendor
        may be beginning the job although it refuses now.
        """
        refresh = partial(self._cache.bulk_notes.refresh, note)
        cost = price(note.queries, note.prices).cost_micros
        sent: FileObject | None = None
        try:
            sent = self._jobs.send_file(file)
            job = self._jobs.begin(
                sent.id,
                idempotency_key=note.idempotency_key,
                max_cost_micros=cost,
                fingerprint=note.fingerprint,
                on_try=refresh,
            )
        except (VendorError, SpendingStopped) as error:
            if sent is not None and error.unsure:
                refresh()
            else:
                self._delete_files(None if sent is None else sent.id)
                if is_new:
                    self._cache.bulk_notes.forget(note)
            raise
        if job.input_file_id != sent.id:  # it was begun before, with a file that was sent then
            self._delete_files(sent.id)
        self._say(
            f"The vendor began the bulk job {job.id}: {len(note.queries)} queries, up to {cost} micros."
        )
        return self._cache.bulk_notes.name(note, job.id)

    def _finish(
        self,
        note: BulkNote,
        at_hand: Sequence[Query],
        *,
        wait: bool,
        sends: bool = True,
        is_new: bool = False,
    ) -> None:
        """Wait for a job, if it is to be waited for, and store what it brought.

        One that may be beginning is sent once more, if this buyer `sends` any. One whose window is over at a
        vendor that runs no jobs any more is gone.

        Raises:
            JobRunning: it goes on.
            VendorError: it was cancelled or expired, or did not bring all that it should; what it brought is
                stored. Or the vendor has no more what it brought, although this run began it just now: who
                began another for that would pay without end. Or the vendor runs no jobs at present.
        """
        try:
            self._collect(note, at_hand, wait=wait, sends=sends, is_new=is_new)
        except NotOffered as error:
            if self._model.batch_prices is not None:
                raise
            if self._is_of_another_key(note):
                self._pass_over(note)
            elif note.may_go_on:
                raise VendorError(
                    f"{self._vendor.url} runs no bulk jobs at present, and one that it began has some of "
                    "these queries, or others that this run has asked. Give the same command again once it "
                    "runs them. A day after the job was begun, what is not stored of it counts as paid, and "
                    "is bought again."
                ) from error
            else:
                self._give_up(note, at_hand, is_new=is_new)

    def _collect(
        self, note: BulkNote, at_hand: Sequence[Query], *, wait: bool, sends: bool, is_new: bool
    ) -> None:
        named = self._named(note, at_hand, wait=wait, sends=sends)
        if named is None or named.batch_id is None:
            return
        brings = set(self._missing(named.queries))  # not what was stored of it before
        self._total += len(brings.difference(self._missing(at_hand)))
        job: BatchObject | None = None
        try:
            job = self._ended(named, named.batch_id, wait=wait)
            self._answers.collect(named, job)
        except NotFound:
            if job is None and self._is_of_another_key(named):
                self._pass_over(named)
            else:
                self._give_up(named, at_hand, is_new=is_new)
            return
        if self._is_noted(named, at_hand):
            self._answers.require_all(named, job)
        self._cache.bulk_notes.forget(named)
        # What it was made of goes last: who still fetches it as well then finds all of it or none.
        self._delete_files(job.output_file_id, job.error_file_id, job.input_file_id)
        if job.status != "completed":
            raise VendorError(
                f"The bulk job {job.id} was {job.status} before all was done. What was done is kept and "
                "was paid for, the rest was not. The same command buys the rest."
            )

    def _ended(self, note: BulkNote, batch_id: str, *, wait: bool) -> BatchObject:
        """A job once it has ended, if it is to be waited for."""
        job, pause = self._jobs.get(batch_id), _FIRST_LOOK
        while job.status == "in_progress":
            if not wait:
                raise JobRunning(
                    f"The bulk job {job.id} goes on at the vendor: {job.request_counts.completed} of "
                    f"{job.request_counts.total} requests are done. The same command with --batch fetches "
                    "what it brings, and pays for nothing twice; `client batches` shows it."
                )
            self._tell(note, job)
            self._sleep(pause)
            pause = min(_LAST_LOOK, 1.5 * pause)
            job = self._jobs.get(job.id)
        return job

    def _delete_files(self, *file_ids: str | None) -> None:
        """Delete files that nobody needs any more, where that is possible: an account may have so many."""
        for file_id in file_ids:
            if file_id is not None:
                with suppress(ClientError):
                    self._jobs.delete_file(file_id)

    def _is_of_another_key(self, note: BulkNote) -> bool:
        """Whether a job may be another account's, of which this one is told nothing."""
        return note.key_id not in (None, self._vendor.key_id)

    def _pass_over(self, note: BulkNote) -> None:
        """Leave a job to the key that it was begun with, and buy what it may bring."""
        self._cache.bulk_notes.pass_over(note, self._vendor.key_id)
        self._say(
            "This key's account has no such bulk job as was begun with another key before. What it was to "
            "bring is bought."
        )

    def _give_up(self, note: BulkNote, at_hand: Sequence[Query], *, is_new: bool) -> None:
        """Count as paid what is lost of a job that the vendor has no more, or whose files it has no more."""
        if not self._is_noted(note, at_hand):
            return
        lost = self._answers.write_off(note)
        job = f"the bulk job {note.batch_id}" if note.batch_id else "a bulk job"
        told = (
            f"The vendor no longer has what {job} brought, and {lost.queries} of its queries are not stored. "
            "They count as paid, and "
        )
        if is_new:
            raise VendorError(f"{told}the same command buys them again.")
        self._say(f"{told}are bought again as far as the budget reaches.")

    def _named(self, note: BulkNote, at_hand: Sequence[Query], *, wait: bool, sends: bool) -> BulkNote | None:
        """The note with the vendor's name for the job; `None` of one that was never begun, or is done."""
        left = self._left(note, at_hand, wait=wait)
        if left is None or left.batch_id is not None:
            return left
        note = left
        job = self._jobs.find(note.idempotency_key)
        if job is not None:
            return self._cache.bulk_notes.name(note, job.id)
        if not note.is_fresh:
            if self._is_of_another_key(note):
                self._pass_over(note)
            else:
                self._cache.bulk_notes.forget(note)
            return None
        if set(note.queries).isdisjoint(at_hand):
            return None
        if sends and (sent := self._send_again(note, at_hand)) is not None:
            return sent
        raise VendorError(
            "A bulk job that has some of these queries may be beginning at the vendor, and this command "
            "cannot tell. Give the same command again in a few minutes."
        )

    def _send_again(self, note: BulkNote, at_hand: Sequence[Query]) -> BulkNote | None:
        """Send a job of this run once more, if all of it is still to be bought and the budget allows it.

        The vendor may be beginning it only now. Under its key it is begun once, however often it is sent.
        """
        mine = note.run_id == self._run_id and not self._is_of_another_key(note)
        wanted = set(self._missing(at_hand)).issuperset(note.queries)
        if not mine or not wanted or not self._budget.reserve(NOTHING):  # it is set aside already
            return None
        contents = {query: query for query in at_hand}
        with file_beside(self._cache.path) as file:
            return self._send(note, file) if self._files.write_again(file, note, contents) else None

    def _left(self, note: BulkNote, at_hand: Sequence[Query], *, wait: bool) -> BulkNote | None:
        """The note of a job once no other run is sending it; `None` where it has gone meanwhile.

        Raises:
            JobRunning: a run is sending it, and is not waited for.
        """
        pause = _FIRST_LOOK
        while note.batch_id is None and note.run_id != self._run_id:
            is_sent = is_locked(self._cache.path, note.run_id)
            noted = {each.idempotency_key: each for each in self._noted(at_hand)}  # read only after that
            if note.idempotency_key not in noted:
                return None
            note = noted[note.idempotency_key]
            if note.batch_id is not None or not is_sent:
                break
            if not wait:
                raise JobRunning(
                    "Another run is sending a bulk job that has some of these queries. The same command with "
                    "--batch fetches what it brings, and pays for nothing twice."
                )
            self._sleep(pause)
            pause = min(_LAST_LOOK, 1.5 * pause)
        return note

    def _tell(self, note: BulkNote, job: BatchObject) -> None:
        counts = job.request_counts
        share = counts.done / max(1, counts.total)
        bought = self._purchase.bought + round(share * len(note.queries))
        cost = self._purchase.cost_micros + job.cost_micros
        self._on_progress(PurchaseProgress(bought, len(self._purchase.refused), self._total, cost))


def owed_to_jobs(cache: EmbeddingCache, notes: Iterable[BulkNote]) -> Spending:
    """What jobs that are noted may still cost."""
    owed = NOTHING
    for note in notes:
        left = price(note.queries, note.prices) - cache.billed.of_job(note.idempotency_key)
        owed += Spending(max(0, left.queries), max(0, left.cost_micros))
    return owed


def _key(run_id: str, fingerprint: str, lines: Sequence[Sequence[Query]], cache: Path) -> str:
    """A key for a job: another one for each, for what it brought is not asked for again."""
    content = "\0".join(
        [
            run_id,
            fingerprint,
            str(cache),
            str(time.time_ns()),
            *(query.digest for line in lines for query in line),
        ]
    )
    return f"bulk-{hashlib.sha256(content.encode('utf-8', 'surrogateescape')).hexdigest()}"
