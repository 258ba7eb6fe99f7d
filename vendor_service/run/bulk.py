"""The desk of bulk jobs, put together."""

from vendor_service.accounts.authentication import Authentication
from vendor_service.batches.files import Files
from vendor_service.batches.jobs import Jobs
from vendor_service.batches.leases import Leases
from vendor_service.batches.limits import BatchLimits
from vendor_service.batches.lines import LineReader
from vendor_service.batches.runner import Runner
from vendor_service.batches.store import Store
from vendor_service.clock import Clock
from vendor_service.database.session import Database
from vendor_service.embed.models import Models
from vendor_service.extraction.recorder import Recorder
from vendor_service.http.bulk import DIALECTS, BulkDesk
from vendor_service.metrics import Metrics
from vendor_service.money.admission import Admission
from vendor_service.money.allowance import Allowance
from vendor_service.money.signing import Signs
from vendor_service.run.settings import Settings


def open_desk(
    settings: Settings,
    store_url: str,
    clock: Clock,
    database: Database,
    admission: Admission,
    allowance: Allowance,
    authentication: Authentication,
    models: Models,
    recorder: Recorder | None,
    metrics: Metrics,
    signer: Signs,
) -> BulkDesk:
    """Open the store, and make what works with it.

    Raises:
        OperatorError: the store cannot be written.
    """
    store = Store(store_url)
    store.check()
    limits = BatchLimits(
        max_file_bytes=settings.batch_max_file_bytes,
        max_line_bytes=settings.max_request_bytes,
        max_lines=settings.batch_max_lines,
        account_bytes=settings.batch_account_bytes,
        account_jobs=settings.batch_account_jobs,
        keep_days=settings.batch_keep_days,
    )
    reader = LineReader(DIALECTS, settings.max_inputs, settings.max_text_characters)
    files = Files(database, store, clock, limits)
    jobs = Jobs(database, admission, clock, limits, metrics)
    leases = Leases(database, clock)
    runner = Runner(models, leases, store, admission, allowance, reader, recorder, metrics, limits)
    return BulkDesk(files, jobs, runner, reader, limits, models, signer, authentication)
