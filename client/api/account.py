"""A vendor's models, and an account's usage and bills by the vendor's own books."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel, ConfigDict

from client.errors import RequestRefused
from client.options.vendor import VendorOptions
from client.progress import ProgressListener
from client.proofs.reconciliation import Reconciliation
from client.proofs.reconciliation import reconcile as compare_books
from client.purchase.lock import is_locked
from client.runs.connection import Connection
from client.vendors.teachers.tuition import VendorClient
from shared.batches import BatchObject
from shared.billing import AccountStatus, GroupBy, UsageReport
from shared.embeddings import ModelCard


class AccountUsage(BaseModel):
    """An account's usage, its bills, and its remaining limits.

    Attributes:
        account: its limits, and what is left of them.
        usage: what it used, by day, key or kind.
    """

    model_config = ConfigDict(frozen=True)

    account: AccountStatus
    usage: UsageReport

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `json.dumps`."""
        return self.model_dump(mode="json")


def models(options: VendorOptions, *, progress: ProgressListener | None = None) -> list[ModelCard]:
    """The models that the vendor sells, with fingerprints and with the prices that this account pays.

    Raises:
        VendorError: the vendor does not answer, or refuses.
    """
    with Connection(options, progress).vendor() as vendor:
        return vendor.models()


def batches(options: VendorOptions, *, progress: ProgressListener | None = None) -> list[BatchObject]:
    """The bulk jobs of this account, the newest first.

    Raises:
        VendorError: the vendor does not answer, refuses, or runs no bulk jobs.
    """
    with Connection(options, progress).vendor() as vendor, _bulk_jobs_of(vendor):
        return list(vendor.bulk.jobs())


def cancel_batch(
    options: VendorOptions, batch_id: str, *, progress: ProgressListener | None = None
) -> BatchObject:
    """End a bulk job now. What is answered is charged, and fetched by the command that began the job.

    Raises:
        VendorError: the vendor does not answer, refuses, has no such job, or runs none.
    """
    with Connection(options, progress).vendor() as vendor, _bulk_jobs_of(vendor):
        return vendor.bulk.cancel(batch_id)


def usage(
    options: VendorOptions, group_by: GroupBy = "day", *, progress: ProgressListener | None = None
) -> AccountUsage:
    """Ask the vendor for this account's usage, bills, and remaining limits.

    Raises:
        VendorError: the vendor does not answer, or refuses.
    """
    with Connection(options, progress).vendor() as vendor:
        return AccountUsage(account=vendor.account(), usage=vendor.usage(group_by))


def reconcile(options: VendorOptions, *, progress: ProgressListener | None = None) -> Reconciliation:
    """Compare the vendor's ledger with the receipts in the cache, and with what the vendor signed of it.

    Raises:
        UsageError: there is no cache.
        VendorError: the vendor does not answer, refuses, or has signed what is not right.
        CacheError: the cache cannot be read.
    """
    connection = Connection(options, progress)
    with connection.vendor() as vendor, connection.cache(must_exist=True) as cache:
        head = vendor.head()
        if head is not None:
            cache.heads.pin(head)
        # Runs may be buying meanwhile. What is to be in the ledger is read before it. Whatever it charges was
        # noted before that, so notes are read after it, and after these the receipts that take their places.
        pins = [*cache.heads.all(), *cache.billed.pins()]
        before = {receipt.request_id for receipt in cache.receipts()}
        entries = list(vendor.ledger())
        notes = [note for note in cache.notes.of_run() if not note.batch.is_job]
        is_busy = {run: is_locked(cache.path, run) for run in {note.batch.run_id for note in notes}}
        in_hand = [note for note in notes if note.seconds_left and is_busy[note.batch.run_id]]
        known = before | {entry.request_id for entry in entries}
        return compare_books(
            entries,
            [receipt for receipt in cache.receipts() if receipt.request_id in known],
            vendor.key_id,
            owed=[note for note in notes if note not in in_hand],
            in_hand=in_hand,
            refused=cache.billed.refused(),
            pins=pins,
            head=head,
        )


@contextmanager
def _bulk_jobs_of(vendor: VendorClient) -> Iterator[None]:
    """Say that a vendor runs no bulk jobs where it refuses for that reason: it knows no such path."""
    try:
        yield
    except RequestRefused as error:
        if any(card.batch_prices for card in vendor.models()):
            raise
        raise RequestRefused(f"{vendor.url} runs no bulk jobs.") from error
