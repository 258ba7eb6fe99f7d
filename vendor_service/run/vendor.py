"""The services of one process of the vendor, made and put together here and nowhere else."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from shared import memory
from shared.http.capacity import Capacity
from vendor_service.batches import limits
from vendor_service.batches.job_metrics import JobMetrics
from vendor_service.batches.leases import Leases
from vendor_service.batches.limits import BatchLimits
from vendor_service.batches.lines import LineReader
from vendor_service.batches.services import BatchServices
from vendor_service.clock import Clock, ClockWatch
from vendor_service.database import schema
from vendor_service.database.presence import Presence
from vendor_service.database.session import Database
from vendor_service.embed.sales import Sales
from vendor_service.extraction.key import read_or_make_key
from vendor_service.extraction.recorder import Recorder
from vendor_service.http.account_threads import AccountThreads
from vendor_service.http.authentication import Authentication
from vendor_service.metrics import Metrics
from vendor_service.money.account_metrics import AccountMetrics
from vendor_service.money.admission import Admission
from vendor_service.money.checkout import Checkout, Precheck
from vendor_service.money.clock_check import ask_database
from vendor_service.money.invoices import MonthsEnd
from vendor_service.money.price_log import PriceLog
from vendor_service.money.rate import Allowance
from vendor_service.money.refusals import RefusalCounts
from vendor_service.money.replays import REPLAYS
from vendor_service.money.signing import Signer, default_file
from vendor_service.run.audit import Audit
from vendor_service.run.chores import Chore
from vendor_service.run.first_prices import publish_prices
from vendor_service.run.hangups import Hangups
from vendor_service.run.model_loader import MakeEncoder, ModelLoader
from vendor_service.run.model_specs import ModelSpec, find_specs
from vendor_service.run.settings import Settings
from vendor_service.run.worker_metrics import Worker, WorkerMetrics
from vendor_service.webhooks.dispatcher import Dispatcher
from vendor_service.webhooks.metrics import ReceiverMetrics
from vendor_service.webhooks.networks import networks

# A process that was killed leaves holds; they are released so long after it was last known to live.
_HOLD_SECONDS = 20
_CHORE_SECONDS = 5.0
_SKETCH_SECONDS = 2.0
_DISPATCH_SECONDS = 2.0
_INVOICE_SECONDS = 60.0

# Runs beside the requests until it is cancelled.
Running = Callable[[], Coroutine[Any, Any, None]]

_log = logging.getLogger(__name__)


class Vendor:
    """Loads the models, opens the books, and keeps both in order from `start` to `close`.

    Args:
        settings: all that can be set.
        clock: tells the time, in microseconds since 1970; `steady` never steps, and watches it.
        worker: which one of several processes on one address this is.
        specs: the models, where the settings are not to be asked for them.
        make_encoder: makes or finds the encoder of a model.
        hangups: at each of them the file of models is read again.

    Raises:
        OperatorError: a model cannot be loaded, or the database cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        steady: Clock,
        *,
        worker: Worker | None,
        specs: Sequence[ModelSpec] | None,
        make_encoder: MakeEncoder,
        hangups: Hangups | None,
    ) -> None:
        self.settings, self.clock = settings, clock
        self._is_first, self._hangups = worker is None or worker.is_first, hangups
        self.metrics = Metrics(by_model=settings.tells_models_apart)
        specs = find_specs(settings) if specs is None else specs
        self._loader = ModelLoader(
            specs,
            settings,
            self.metrics,
            make_encoder,
            clock,
            exchanges=hangups is not None and settings.models is not None,
        )
        self.models = self._loader.models
        self.database = Database(settings.database_url)
        schema.prepare(self.database, migrate=settings.migrate)
        self._publish = partial(publish_prices, self.database, clock, warns=self._is_first)
        self._publish(specs)
        self._presence = Presence(self.database)
        self.watch = ClockWatch(clock, steady)
        self._ask_clock()
        self.authentication = Authentication(self.database, clock)
        self.refusals = RefusalCounts(self.database, clock, self.watch)
        self.threads = AccountThreads()
        self.capacity = Capacity(
            max_inputs=settings.max_queued_inputs,
            max_bytes=settings.max_queued_bytes,
            max_seconds=settings.request_timeout_seconds,
        )
        self.metrics.show(
            "in_hand_bytes", "Bytes of requests and images in memory.", lambda: self.capacity.bytes
        )
        self._worker_metrics = None if worker is None else WorkerMetrics(worker, self.metrics.registry)
        self._open_sales()
        self._audit = None
        if self._is_first:  # the others would count the same
            self._audit = Audit(self.database, self.metrics, settings.verify_every_hours)
            self.metrics.registry.register(AccountMetrics(self.database, clock))
            self.metrics.registry.register(ReceiverMetrics(self.database))
            if self.batches is not None:
                self.metrics.registry.register(JobMetrics(self.database, clock))
        self._chores = self._make_chores()

    def _open_sales(self) -> None:
        settings, clock, database = self.settings, self.clock, self.database
        self._admission = Admission(database, clock, _HOLD_SECONDS, REPLAYS, self.watch)
        issuer = {"iss": settings.public_url, "vendor": settings.name}
        self.signer = Signer(database, default_file(database, settings.keys_in), clock, issuer)
        self._recorder = None
        if settings.sketches:
            self._recorder = Recorder(database, clock, read_or_make_key(database, settings.keys_in))
        allowance = Allowance(clock)
        checkout = Checkout(self._admission, Precheck(clock), allowance, self.metrics)
        self.sales = Sales(self.models, checkout, self.metrics, self.signer, self._recorder)
        self.batches: BatchServices | None = None
        if settings.batch_store is not None:
            self.batches = BatchServices.open(
                settings.batch_store,
                _batch_limits(settings),
                LineReader(settings.max_inputs, settings.max_text_characters),
                database=database,
                clock=clock,
                admission=self._admission,
                allowance=allowance,
                models=self.models,
                recorder=self._recorder,
                metrics=self.metrics,
                signer=self.signer,
            )

    def _make_chores(self) -> list[Chore]:
        """The first of several processes does what is to be done once."""
        chores = [
            Chore("giving back memory", memory.give_back, _CHORE_SECONDS),
            Chore("sweeping holds", self._sweep, _CHORE_SECONDS, at_end=True),
            Chore("writing down refusals", self.refusals.write, _CHORE_SECONDS, at_end=True),
        ]
        if self._recorder is not None:
            chores.append(Chore("writing sketches", self._recorder.write, _SKETCH_SECONDS, at_end=True))
        if self.batches is not None:
            jobs, files, is_right = self.batches.jobs, self.batches.files, self._is_clock_right
            chores.append(Chore("ending bulk jobs", jobs.end_overdue, _CHORE_SECONDS, is_right))
            chores.append(
                Chore("deleting files", files.remove_expired, _CHORE_SECONDS, is_right, call=files.store.do)
            )
        if self._is_first:
            look = PriceLog(self.database, self.clock).look
            chores.append(Chore("looking at the prices", look, _CHORE_SECONDS))
            due = MonthsEnd(self.database, self.clock, self.watch).issue_due
            chores.append(Chore("issuing invoices", due, _INVOICE_SECONDS, self._is_clock_right))
        return chores

    def running(self) -> list[Running]:
        """All that runs beside the requests, from `start` to `close`."""
        found: list[Running] = [each.repeat for each in self._chores]
        found.append(partial(self.signer.repeat, _CHORE_SECONDS))
        if self._hangups is not None:
            found.append(partial(self._reread, self._hangups))
        if self.batches is not None:
            found.append(self.batches.runner.repeat)
        if self._audit is not None:
            found += [self._audit.repeat, self._dispatch]
        return found

    def _ask_clock(self) -> None:
        ask_database(self.watch, self.database, trust_clock=self.settings.trust_clock)

    def _is_clock_right(self) -> bool:
        return self.watch.fault is None

    def _sweep(self) -> None:
        """Renew this process's holds, release those of processes that are gone, note when keys were used.

        While the clock is wrong holds are left alone: others' would be released, or this process's kept.
        """
        self._ask_clock()
        if self._is_clock_right():
            # Twice the time that a request may take: no hold expires under a request that is still served.
            self._admission.renew(2 * self.settings.request_timeout_seconds)
            swept = self._admission.sweep()
            self.authentication.record_use()
            self.metrics.decided("expired", swept)
            if swept:
                _log.warning("swept %d expired holds; nothing was charged for them", swept)

    async def _reread(self, hangups: Hangups) -> None:
        while True:
            await hangups.next()
            if self.settings.models is not None:
                await self._loader.reread(self._publish)
            elif self._is_first:
                _log.warning("SIGHUP: there is no file of models to read again; name one with --models")

    async def _dispatch(self) -> None:
        allowed = networks(self.settings.webhook_private_networks)
        dispatcher = Dispatcher(self.database, self.clock, allowed, self._is_clock_right)
        dispatcher.start(_DISPATCH_SECONDS)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.to_thread(dispatcher.stop)

    def render_metrics(self, accept: str) -> tuple[bytes, str]:
        """All metrics in the format asked for, those of the other processes on this address included."""
        return (self.metrics if self._worker_metrics is None else self._worker_metrics).render(accept)

    async def start(self) -> None:
        """Be ready for requests.

        Raises:
            OperatorError: a process of a model does not start.
        """
        # Where no other server lives on an embedded database, all holds belong to one that is gone.
        await asyncio.to_thread(self._presence.enter, self._release_abandoned)
        self._loader.start()
        if self._worker_metrics is not None:
            self._worker_metrics.start()

    def _release_abandoned(self) -> None:
        self._admission.void_abandoned()
        Leases(self.database, self.clock).release_abandoned()

    async def close(self) -> None:
        """Answer the requests that wait, and write down all that is not in the books yet."""
        await self._loader.close()
        for chore in self._chores:
            if chore.at_end:
                await asyncio.to_thread(chore.attempt)
        await asyncio.to_thread(self._admission.close)
        if self._worker_metrics is not None:
            self._worker_metrics.close()
        self.threads.close()
        if self.batches is not None:
            self.batches.files.store.close()
        self._presence.leave()
        self.database.close()


def _batch_limits(settings: Settings) -> BatchLimits:
    return BatchLimits(
        max_file_bytes=limits.MOST_FILE_BYTES,
        max_line_bytes=settings.max_request_bytes,
        max_lines=limits.MOST_LINES,
        account_bytes=settings.batch_account_bytes,
        account_jobs=limits.MOST_JOBS,
        keep_days=settings.batch_keep_days,
    )
