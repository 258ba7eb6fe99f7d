"""The services of bulk jobs, put together: files, jobs and the runner over one store."""

from dataclasses import dataclass
from typing import Self

from shared.receipts import Signs
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
from vendor_service.metrics import Metrics
from vendor_service.money.admission import Admission
from vendor_service.money.rate import Allowance


@dataclass(frozen=True)
class BatchServices:
    """The services behind the routes and pages of bulk jobs."""

    files: Files
    jobs: Jobs
    runner: Runner
    reader: LineReader
    limits: BatchLimits
    models: Models
    signer: Signs

    @classmethod
    def open(
        cls,
        store_url: str,
        limits: BatchLimits,
        reader: LineReader,
        *,
        database: Database,
        clock: Clock,
        admission: Admission,
        allowance: Allowance,
        models: Models,
        recorder: Recorder | None,
        metrics: Metrics,
        signer: Signs,
    ) -> Self:
        """Open the store, and make what works with it.

        Raises:
            OperatorError: the store cannot be written.
        """
        store = Store(store_url)
        store.check()
        files = Files(database, store, clock, limits)
        jobs = Jobs(database, admission, clock, limits, metrics)
        leases = Leases(database, clock)
        runner = Runner(models, leases, store, admission, allowance, reader, recorder, metrics, limits)
        return cls(files, jobs, runner, reader, limits, models, signer)
