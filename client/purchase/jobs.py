"""Bulk jobs: the slow way to buy, for less. A batch is one job: submitted, polled, and collected in parts."""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from client.cache.notes import Batch, Note
from client.cache.receipts import Owed
from client.errors import ClientError, JobRunning, NotFound, NotOffered, VendorError, unwritable
from client.purchase.budget import price
from client.purchase.checkout import Checkout, Order
from client.purchase.lifecycle import Event, State
from client.purchase.lock import is_locked
from client.purchase.queue import BuyingQueue, Gone, NotCharged
from client.purchase.result import Tally
from client.vendors.bulk_api import BulkApi
from client.vendors.bulk_lines import (
    AnsweredLine,
    read_answers,
    read_chunk,
    read_refusals,
    size_of,
    write_line,
)
from client.vendors.query import Query, counts_of
from client.vendors.transport import Hooks
from client.vendors.wire import most_bytes
from shared.batches import BatchObject, ChunkReceipt
from shared.embeddings import Limits, Prices

# The most queries and bytes of a line, which is one request, and of a job.
_LINE_QUERIES, _LINE_BYTES = 16, 2 << 20
_JOB_QUERIES, _JOB_BYTES = 20_000, 1 << 30
_OVERHEAD = 1024  # bytes of a line beside its inputs, generously
# So many are begun before the first is waited for: each may take a day, and an account may have few files.
_JOBS_AT_ONCE = 8
# A job is looked at after this many seconds, then less and less often.
_FIRST_LOOK, _LAST_LOOK = 0.5, 15.0


class _Lines:
    """The file of one job, written line by line; a parcel of the queue's."""

    def __init__(self, file: BinaryIO, model: str, limits: Limits) -> None:
        self.lines: list[int] = []
        self._file = file
        self._model = model
        self._queries = 0
        self._most = min(_LINE_QUERIES, limits.max_inputs)
        self._most_bytes = limits.max_request_bytes - _OVERHEAD
        self._line: list[tuple[Query, bytes]] = []
        self._room = 0

    def fault(self, query: Query, content: bytes) -> str | None:
        too_large = size_of(query, content) > self._most_bytes
        return "larger than a request to the vendor may be" if too_large else None

    def fits(self, _query: Query, _content: bytes) -> bool:
        return self._queries < _JOB_QUERIES and self._file.tell() <= _JOB_BYTES

    def add(self, query: Query, content: bytes) -> None:
        size = size_of(query, content)
        if len(self._line) == self._most or size > self._room:
            self.end_line()
            self._room = min(self._most_bytes, _LINE_BYTES - _OVERHEAD)
        self._line.append((query, content))
        self._room -= size
        self._queries += 1

    def end_line(self) -> None:
        if self._line:
            write_line(self._file, len(self.lines), self._line, self._model)
            self.lines.append(len(self._line))
            self._line = []
        self._file.flush()


@dataclass
class Jobs:
    """The bulk jobs of one run; a `Channel`.

    Attributes:
        checkout: what is bought.
        api: how the vendor is asked.
        prices: what a query of a job costs.
        tally: where answers are counted.
        wait: whether jobs are waited for.
        pause: waits for a number of seconds; True if the purchase has ended meanwhile.
        say: receives messages for the user.
    """

    checkout: Checkout
    api: BulkApi
    prices: Prices
    tally: Tally
    wait: bool
    pause: Callable[[float], bool]
    say: Callable[[str], None]
    at_once = 1
    _begun: deque[Order] = field(default_factory=deque)

    def pack(self, queue: BuyingQueue) -> Order | None:
        """As a `Channel` does; written to a file without a name, for it is full of images.

        Raises:
            ClientError: the disk is full, or cannot be written.
        """
        ready = queue.next_ready()
        if ready is not None or not queue:
            return ready
        checkout = self.checkout
        with self._on_disk(), ExitStack() as stack:
            file = stack.enter_context(TemporaryFile(dir=self._folder))
            parcel = _Lines(file, checkout.model.id, checkout.model.limits)
            queries = queue.fill(parcel)
            parcel.end_line()
            if not queries:
                return None
            stack.pop_all()  # the order has it
        key = _key(checkout, queries)
        batch = Batch(key, checkout.run_id, checkout.model.fingerprint, queries, tuple(parcel.lines))
        note = Note(batch, time.time(), checkout.payer, self.prices)
        return Order(note, reserved=price(queries, self.prices), file=file)

    def restored(self, order: Order, wanted: Mapping[Query, Query]) -> bool:
        """As a `Channel` does."""
        with suppress(OSError, ValueError), ExitStack() as stack:
            file = stack.enter_context(TemporaryFile(dir=self._folder))
            for place, line in enumerate(order.batch.by_line):
                asked = [(query, wanted.get(query, query).content()) for query in line]
                write_line(file, place, asked, self.checkout.model.id)
            file.flush()
            stack.pop_all()
            order.file = file
            return True
        return False

    def buy(self, order: Order) -> int:
        """As a `Channel` does: submit; what it brings is collected once several have been begun, or all.

        Raises:
            VendorError: as by `finish`, about an earlier one.
        """
        cost = self._begin(order)
        count = len(order.queries)
        self.say(f"The vendor began the bulk job {order.note.job}: {count} queries, up to {cost} micros.")
        self._begun.append(order)
        if len(self._begun) == _JOBS_AT_ONCE:
            self._end_next()
        return 0

    def finish(self) -> None:
        """As a `Channel` does: poll and collect what was begun.

        Raises:
            VendorError: a job was cancelled or expired, or did not bring all that it should; what it brought
                is stored. Or the vendor has no more what it brought: who began another for that would pay
                without end.
            JobRunning: it goes on, and is not waited for.
        """
        while self._begun:
            self._end_next()

    def _end_next(self) -> None:
        order = self._begun.popleft()
        try:
            self._collect(order)
        except Gone as error:
            lost = self.lose(order)
            raise VendorError(
                f"{described(order, lost)} The same command buys what is not stored."
            ) from error

    def ask(self, order: Order) -> None:
        """As a `Channel` does; a job that another run is sending right now is waited for."""
        try:
            self._until_sent(order)
            if order.state is State.IN_DOUBT:
                job = self.api.find(order.batch.idempotency_key)
                if job is None:
                    raise NotCharged
                self.checkout.apply(order, Event.BEGIN, job=job.id)
            self._collect(order)
        except NotOffered as error:
            if self.checkout.model.batch_prices is not None:
                raise
            if order.note.may_go_on:
                raise VendorError(
                    f"{self.checkout.vendor.url} runs no bulk jobs at present, and one that it began has "
                    "some of these queries, or others that this run has asked. Give the same command again "
                    "once it runs them. A day after the job was begun, what is not stored of it counts as "
                    "paid, and is bought again."
                ) from error
            raise Gone from error

    def lose(self, order: Order, billed_micros: int = 0) -> int:
        """Count as paid what a job has no receipt of, or more if more was billed; how many queries that is.

        What the cache has from elsewhere counts as well: the vendor may have charged this job for it.
        """
        checkout, refused = self.checkout, self.tally.result.refused
        lost = checkout.cache.billed.owed(order.note, self.prices).counts
        lost -= counts_of([query for query in order.queries if query in refused])
        cost = max((order.note.prices or self.prices).cost_of(lost), billed_micros)
        checkout.apply(order, Event.GONE, lost=Owed(lost, cost))
        if order.batch.run_id == checkout.run_id:
            self.tally.lose(lost.total())
        return lost.total()

    def _begin(self, order: Order) -> int:
        """Have the vendor begin a noted job: once at most, however often it is sent; the most that it costs.

        Raises:
            ClientError: it did not. Its `unsure` says whether the job may be beginning all the same.
        """
        assert order.file is not None
        sent: str | None = None
        cost = price(order.queries, order.note.prices or self.prices).cost_micros
        try:
            sent = self.api.send_file(order.file).id
            job = self.api.begin(
                sent,
                idempotency_key=order.batch.idempotency_key,
                max_cost_micros=cost,
                fingerprint=order.batch.fingerprint,
                hooks=Hooks(on_try=lambda: self._try(order)),
            )
        except ClientError as error:
            error.unsure = error.unsure and sent is not None
            if not error.unsure:
                self._delete(sent)
            raise
        if job.input_file_id != sent:  # it was begun before, with a file that was sent then
            self._delete(sent)
        self.checkout.apply(order, Event.BEGIN, job=job.id)
        return cost

    def _try(self, order: Order) -> None:
        self.checkout.apply(order, Event.TRY)

    def _until_sent(self, order: Order) -> None:
        """Wait while another run is sending a job.

        Raises:
            NotCharged: its note has gone meanwhile: it is settled, or was not begun.
            JobRunning: another run is sending it, and is not waited for.
        """
        cache, run_id, seconds = self.checkout.cache, order.batch.run_id, _FIRST_LOOK
        while order.note.job is None and run_id != self.checkout.run_id:
            is_busy = is_locked(cache.path, run_id)
            note = cache.notes.find(order.batch.idempotency_key)  # read only after that
            if note is None:
                raise NotCharged
            order.note, order.state = note, Order.found(note).state
            if note.job is not None or not is_busy:
                return
            if not self.wait or self.pause(seconds):
                raise JobRunning(
                    "Another run is sending a bulk job that has some of these queries. The same command with "
                    "--batch fetches what it brings, and pays for nothing twice."
                )
            seconds = min(_LAST_LOOK, 1.5 * seconds)

    def _collect(self, order: Order) -> None:
        """Wait for a job, if it is to be waited for, and store what it brought, part by part."""
        self.tally.expect(self._unknown(order))  # not what was stored of it before
        try:
            job = self._ended(order)
            self._fetch(order, job)
        except NotFound as error:
            if self._is_settled(order):
                return
            raise Gone from error
        if self._is_settled(order):
            return
        self._require_all(order, job)
        self.checkout.apply(order, Event.COMPLETE)
        # What it was made of goes last: who still fetches it as well then finds all of it or none.
        for file_id in (job.output_file_id, job.error_file_id, job.input_file_id):
            self._delete(file_id)
        if job.status != "completed":
            raise VendorError(
                f"The bulk job {job.id} was {job.status} before all was done. What was done is kept and "
                "was paid for, the rest was not. The same command buys the rest."
            )

    def _is_settled(self, order: Order) -> bool:
        """Whether another run has settled a job meanwhile; then the receipts that it stored count as well."""
        checkout = self.checkout
        if checkout.cache.notes.find(order.batch.idempotency_key) is not None:
            return False
        checkout.apply(order, Event.COMPLETE)
        checkout.budget.catch_up(checkout.cache.spending(checkout.run_id))
        return True

    def _ended(self, order: Order) -> BatchObject:
        name, seconds = order.note.job or "", _FIRST_LOOK
        while (job := self.api.get(name)).status == "in_progress":
            share = job.request_counts.done / max(1, job.request_counts.total)
            self.tally.report(round(share * len(order.queries)), job.cost_micros)
            if not self.wait or self.pause(seconds):
                raise JobRunning(
                    f"The bulk job {job.id} goes on at the vendor: {job.request_counts.completed} of "
                    f"{job.request_counts.total} requests are done. The same command with --batch fetches "
                    "what it brings, and pays for nothing twice; `client batches` shows it."
                )
            seconds = min(_LAST_LOOK, 1.5 * seconds)
        return job

    def _fetch(self, order: Order, job: BatchObject) -> None:
        by_line = order.batch.by_line
        if job.error_file_id is not None:
            with self._fetched(job.error_file_id, order) as file:
                for place, reason in read_refusals(file, len(by_line)).items():
                    self.tally.refuse(dict.fromkeys(by_line[place], reason))
        if job.output_file_id is not None:
            # First, as long as all of its files are there; each is of one line at least.
            receipts = list(islice(self.api.receipts(job.id), len(by_line)))
            with self._fetched(job.output_file_id, order) as file:
                self._store(order, read_answers(file, len(by_line)), receipts)

    def _store(
        self, order: Order, answered: Iterator[AnsweredLine], receipts: Sequence[ChunkReceipt]
    ) -> None:
        """Store the lines of a job by its receipts; what is stored already stays."""
        by_line, line, before = order.batch.by_line, next(answered, None), 0
        for receipt in receipts:
            end = receipt.first_line + receipt.lines
            if not before <= receipt.first_line < end <= len(by_line):  # one would take another's place
                raise VendorError(
                    "The vendor's receipts of a bulk job overlap, or are of lines that it does not have."
                )
            before = end
            chunk: list[AnsweredLine] = []
            while line is not None and line.place < end:
                if line.place >= receipt.first_line:
                    chunk.append(line)
                else:
                    self._refuse_all_of(line, by_line)
                line = next(answered, None)
            self._store_part(order, chunk, by_line[receipt.first_line : end], receipt)
        while line is not None:
            self._refuse_all_of(line, by_line)
            line = next(answered, None)

    def _store_part(
        self,
        order: Order,
        chunk: Sequence[AnsweredLine],
        lines: Sequence[Sequence[Query]],
        receipt: ChunkReceipt,
    ) -> None:
        checkout, whole, first = self.checkout, order.batch, receipt.first_line
        key, queries = f"{whole.idempotency_key}:{first}", tuple(chain.from_iterable(lines))
        part = Batch(key, whole.run_id, whole.fingerprint, queries)
        prices = order.note.prices or self.prices
        try:
            answer = read_chunk(chunk, lines, first, receipt.receipt, checkout.model, prices, self.api.keys)
        except VendorError as error:
            if error.bill is not None:
                fault = error.fault or str(error)
                checkout.apply(order, Event.BILL, bill=error.bill, fault=fault, part=part)
            raise
        self.tally.store(answer, checkout.apply(order, Event.ANSWER, answer=answer, part=part))

    def _refuse_all_of(self, line: AnsweredLine, by_line: Sequence[Sequence[Query]]) -> None:
        """Take a line that nothing was charged for: every input of it was passed over."""
        queries = by_line[line.place]
        if line.body.data:
            raise VendorError(f"The vendor answered line {line.place} of a bulk job without a receipt.")
        errors = [each for each in line.body.errors if each.index < len(queries)]
        self.tally.refuse({queries[each.index]: each.message for each in errors})

    def _require_all(self, order: Order, job: BatchObject) -> None:
        """Hold what a job brought, and is all stored, against what the vendor says of it.

        Raises:
            VendorError: it is completed and has no answer to something, or cost more than its receipts say.
                What may have been charged counts as paid.
        """
        counted = sum(each.cost_micros for each in self.checkout.cache.billed.of(order.note))
        more = max(0, job.cost_micros - counted)
        if not more and (job.status != "completed" or not self._unknown(order)):
            return
        lost = self.lose(order, more)
        raise VendorError(
            f"The bulk job {job.id} was {job.status}, and the vendor says that it cost {job.cost_micros} "
            f"micros. Its receipts come to {counted} micros, and {lost} of its queries were neither "
            "answered nor refused. What is missing counts as paid, and the same command buys it again as far "
            "as the budget reaches. Ask the vendor about it."
        )

    def _unknown(self, order: Order) -> list[Query]:
        """The queries of a job that are neither stored nor refused."""
        batch = order.batch
        left = self.checkout.cache.known(batch.fingerprint, batch.queries) | self.tally.result.refused.keys()
        return [query for query in batch.queries if query not in left]

    @contextmanager
    def _fetched(self, file_id: str, order: Order) -> Iterator[BinaryIO]:
        """A file of a job, on the disk of the cache for as long as it is read."""
        most = most_bytes(len(order.queries), self.checkout.model.dimensions) + 4096 * len(order.batch.lines)
        with self._on_disk(), TemporaryFile(dir=self._folder) as file:
            self.api.download(file_id, file, most)
            file.seek(0)
            yield file

    def _delete(self, file_id: str | None) -> None:
        """Delete a file if possible: the number of files of an account is limited."""
        if file_id is not None:
            with suppress(ClientError):
                self.api.delete_file(file_id)

    @property
    def _folder(self) -> Path:
        return self.checkout.cache.path.parent

    @contextmanager
    def _on_disk(self) -> Iterator[None]:
        """Where something is written beside the cache.

        Raises:
            ClientError: the disk is full, or cannot be written.
        """
        try:
            yield
        except OSError as error:
            raise unwritable(self._folder, error) from error


def described(order: Order, lost: int) -> str:
    """A sentence about a job whose answers are gone."""
    job = f"the bulk job {order.note.job}" if order.note.job else "a bulk job"
    return (
        f"The vendor no longer has what {job} brought. {lost} of its queries have no receipt, and count as "
        "paid."
    )


def _key(checkout: Checkout, queries: Sequence[Query]) -> str:
    """A key for a job: another one for each, for what it brought is not asked for again."""
    digests = [query.digest for query in queries]
    named = [checkout.run_id, checkout.model.fingerprint, str(checkout.cache.path), str(time.time_ns())]
    content = "\0".join([*named, *digests]).encode("utf-8", "surrogateescape")
    return f"bulk-{hashlib.sha256(content).hexdigest()}"
