"""What bulk jobs brought: fetched, checked and stored; or counted as paid, where it is gone."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from tempfile import TemporaryFile
from typing import BinaryIO

from client.cache.bulk_notes import BulkNote
from client.cache.pending import Payer, RequestBatch
from client.errors import VendorError
from client.purchase.budget import price
from client.purchase.checkout import Checkout
from client.purchase.job_files import on_disk
from client.purchase.purchase import PurchaseResult
from client.vendors.bulk_lines import AnsweredLine, read_answers, read_chunk, read_refusals
from client.vendors.protocols.tuition import VendorClient
from client.vendors.query import Query, Spending
from client.vendors.wire import most_bytes
from shared.batches import BatchObject


class JobAnswers:
    """What the jobs of one vendor bring to a run, and what that comes to."""

    def __init__(
        self, vendor: VendorClient, checkout: Checkout, run_id: str, purchase: PurchaseResult
    ) -> None:
        """Fetch nothing yet.

        Args:
            vendor: the vendor, which has the jobs.
            checkout: where answers are stored.
            run_id: the run, which loses nothing of other runs' jobs.
            purchase: where it is counted as bought.
        """
        self._vendor = vendor
        self._jobs = vendor.bulk
        self._checkout = checkout
        self._cache, self._model = checkout.cache, checkout.model
        self._run_id = run_id
        self._purchase = purchase

    def collect(self, note: BulkNote, job: BatchObject) -> None:
        """Store what a job brought, chunk by chunk, each with its receipt; what is stored already stays.

        Raises:
            NotFound: it is gone.
            VendorError: it cannot be taken.
            ClientError: the disk is full, or cannot be written.
        """
        if job.error_file_id is not None:
            with self._fetched(job.error_file_id, note) as file:
                for place, reason in read_refusals(file, len(note.lines)).items():
                    self._refuse(dict.fromkeys(note.lines[place], reason))
        if job.output_file_id is None:
            return
        receipts = list(self._jobs.receipts(job.id))  # first, as long as all of its files are there
        with self._fetched(job.output_file_id, note) as file:
            answered = read_answers(file, len(note.lines))
            ahead: AnsweredLine | None = None
            for receipt in receipts:
                end = receipt.first_line + receipt.lines
                chunk: list[AnsweredLine] = []
                while (each := ahead or next(answered, None)) is not None:
                    ahead = None
                    if each.place >= end:
                        ahead = each
                        break
                    if each.place >= receipt.first_line:
                        chunk.append(each)
                    else:
                        self._refuse_all_of(note, each)
                self._store(note, chunk, receipt.first_line, receipt.lines, receipt.receipt)
            rest: Iterator[AnsweredLine] = chain([] if ahead is None else [ahead], answered)
            for each in rest:
                self._refuse_all_of(note, each)

    @contextmanager
    def _fetched(self, file_id: str, note: BulkNote) -> Iterator[BinaryIO]:
        """A file of a job, on the disk of the cache for as long as it is read."""
        folder = self._cache.path.parent
        with on_disk(folder), TemporaryFile(dir=folder) as file:
            self._jobs.download(file_id, file, self._most(note))
            file.seek(0)
            yield file

    def require_all(self, note: BulkNote, job: BatchObject) -> None:
        """Hold what a job brought, and is all stored, against what the vendor says of it.

        Raises:
            VendorError: it is completed and has no answer to something, or cost more than its receipts say.
                What may have been charged counts as paid, and the job is forgotten.
        """
        counted = self._cache.billed.of_job(note.idempotency_key).cost_micros
        more = max(0, job.cost_micros - counted)
        if not more and (job.status != "completed" or not self._lost(note)):
            return
        lost = self.write_off(note, more)
        raise VendorError(
            f"The bulk job {job.id} was {job.status}, and the vendor says that it cost {job.cost_micros} "
            f"micros. Its receipts come to {counted} micros, and {lost.queries} of its queries were neither "
            "answered nor refused. What is missing counts as paid, and the same command buys it again as far "
            "as the budget reaches. Ask the vendor about it."
        )

    def write_off(self, note: BulkNote, billed_micros: int = 0) -> Spending:
        """Count as paid what a job may have been charged and is not stored, and forget it; returns that.

        It counts what was billed beside the receipts, where that is more than was agreed.
        """
        lost = self._lost(note)
        agreed = price(lost, note.prices)
        cost = replace(agreed, cost_micros=max(agreed.cost_micros, billed_micros))
        batch = RequestBatch(note.idempotency_key, note.run_id, note.fingerprint, lost)
        self._cache.write_off(batch, cost, Payer(note.vendor, note.key_id))
        if note.run_id == self._run_id:
            self._purchase.lost += cost.queries
        return cost

    def _lost(self, note: BulkNote) -> tuple[Query, ...]:
        """The queries of a job that are neither stored nor refused."""
        left = self._cache.known(note.fingerprint, note.queries) | self._purchase.refused.keys()
        return tuple(query for query in note.queries if query not in left)

    def _store(
        self, note: BulkNote, chunk: Sequence[AnsweredLine], first: int, count: int, token: str
    ) -> None:
        lines = note.lines[first : first + count]
        batch = RequestBatch(
            f"{note.idempotency_key}:{first}",
            note.run_id,
            note.fingerprint,
            tuple(chain.from_iterable(lines)),
        )
        keys = self._vendor.signing_keys
        try:
            answer = read_chunk(chunk, lines, first, token, self._model, note.prices, keys)
        except VendorError as error:
            if error.bill is not None:
                self._cache.reject(batch, error.bill, error.fault or str(error), self._checkout.payer)
            raise
        if self._checkout.store(batch, answer):
            self._purchase.bought += answer.usage.billed_queries
            self._purchase.cost_micros += answer.usage.cost_micros
        self._refuse(answer.refused)

    def _refuse_all_of(self, note: BulkNote, line: AnsweredLine) -> None:
        """Take a line that nothing was charged for: every input of it was passed over."""
        queries = note.lines[line.place]
        if line.body.data:
            raise VendorError(f"The vendor answered line {line.place} of a bulk job without a receipt.")
        self._refuse(
            {queries[each.index]: each.message for each in line.body.errors if each.index < len(queries)}
        )

    def _refuse(self, refused: Mapping[Query, str]) -> None:
        self._purchase.refused.update(refused)

    def _most(self, note: BulkNote) -> int:
        return most_bytes(len(note.queries), self._model.dimensions) + 4096 * len(note.lines)
