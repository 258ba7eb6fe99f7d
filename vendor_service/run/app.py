"""The application: everything is made and put together here, and nowhere else."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from fastapi import APIRouter, FastAPI
from starlette.routing import BaseRoute
from starlette.types import Scope

from shared.http import memory
from shared.http.capacity import Capacity
from shared.http.middleware import RequestGate
from shared.kinds import KINDS
from vendor_service.accounts.authentication import Authentication
from vendor_service.acts import prices
from vendor_service.acts.act import Act, ActContext
from vendor_service.acts.registry import ACTS, QUERIES
from vendor_service.audit.actors import os_user
from vendor_service.batches.job_metrics import JobMetrics
from vendor_service.batches.leases import Leases
from vendor_service.batches.limits import BatchLimits
from vendor_service.batches.lines import LineReader
from vendor_service.batches.services import BatchServices
from vendor_service.batches.upkeep import Upkeep
from vendor_service.clock import DAY, Clock, steady_clock, system_clock
from vendor_service.console.customers.router import Limits, console_router
from vendor_service.console.seal import read_or_make_seal
from vendor_service.database import schema
from vendor_service.database.presence import Presence
from vendor_service.database.session import Database
from vendor_service.database.tables import STANDARD_PLAN
from vendor_service.embed.sales import Sales
from vendor_service.encoder.engine import Engine
from vendor_service.encoder.preparation import count_decoders
from vendor_service.extraction.key import read_or_make_key
from vendor_service.extraction.recorder import Recorder
from vendor_service.http.account_threads import AccountThreads
from vendor_service.http.application import CRASH, new_application
from vendor_service.http.batches import batches_router
from vendor_service.http.billing import billing_router
from vendor_service.http.declared import add_routes
from vendor_service.http.direct import DirectRoutes
from vendor_service.http.docs import docs_router
from vendor_service.http.files import files_router
from vendor_service.http.health import Readiness, health_router
from vendor_service.http.metrics import metrics_router
from vendor_service.http.models import catalogue_router
from vendor_service.http.own import OwnContext
from vendor_service.http.sale import QueryReader, sale_router
from vendor_service.http.signing import signing_router
from vendor_service.metrics import Metrics
from vendor_service.money.account_metrics import AccountMetrics
from vendor_service.money.admission import Admission
from vendor_service.money.allowance import Allowance
from vendor_service.money.checkout import Checkout
from vendor_service.money.clock_watch import ClockWatch
from vendor_service.money.precheck import Precheck
from vendor_service.money.price_watch import PriceWatch
from vendor_service.money.prices import PriceDifference
from vendor_service.money.refusals import RefusalCounts
from vendor_service.money.replays import ReplayTerms
from vendor_service.money.signing import Signer
from vendor_service.run.audit import Audit
from vendor_service.run.chores import Chore, repeated
from vendor_service.run.factory import load_engine
from vendor_service.run.model_loader import MakeEncoder, ModelLoader
from vendor_service.run.model_specs import ModelSpec, find_specs
from vendor_service.run.reread import Hangups, Reread
from vendor_service.run.settings import Settings
from vendor_service.run.sweeper import Sweeper
from vendor_service.run.tracing import Traces, find_traces
from vendor_service.run.worker_metrics import Worker, WorkerMetrics
from vendor_service.webhooks import model_notices
from vendor_service.webhooks.dispatcher import Dispatcher
from vendor_service.webhooks.sending import networks

# A process that was killed leaves holds; they are released this long after it last told that it lives.
_HOLD_SECONDS = 20
_SWEEP_SECONDS = 5
_DISPATCH_SECONDS = 2
_SKETCH_SECONDS = 5

_log = logging.getLogger(__name__)


def local_encoder(spec: ModelSpec, settings: Settings, metrics: Metrics) -> Engine:
    """Load a model into this process.

    Raises:
        OperatorError: it cannot be loaded.
    """
    return load_engine(spec, count_decoders(settings.workers), metrics)


@dataclass(frozen=True)
class _Parts:
    """What the application is made of: the models, the books, and what keeps them in order."""

    settings: Settings
    clock: Clock
    metrics: Metrics
    loader: ModelLoader
    database: Database
    watch: ClockWatch
    replays: ReplayTerms
    admission: Admission
    allowance: Allowance
    authentication: Authentication
    sweeper: Sweeper
    signer: Signer
    recorder: Recorder | None
    capacity: Capacity
    batches: BatchServices | None
    refusals: RefusalCounts
    threads: AccountThreads


def create_app(
    settings: Settings,
    clock: Clock = system_clock,
    *,
    steady: Clock = steady_clock,
    worker: Worker | None = None,
    specs: Sequence[ModelSpec] | None = None,
    make_encoder: MakeEncoder = local_encoder,
    hangups: Hangups | None = None,
) -> FastAPI:
    """Load the models, open the books, and make an application that serves both while its lifespan runs.

    `steady` is what the `clock` is watched by. `worker` says which one of several processes on one address
    it serves in, if there are several. `make_encoder` finds a model, where it is not to run in this process,
    and `specs` are the models, where they are not to be found by the settings. At each of the `hangups` it
    takes up what its file of models has become.

    Raises:
        OperatorError: a model cannot be loaded or the database cannot be used.
    """
    metrics, traces = Metrics(by_model=settings.tells_models_apart), find_traces()
    specs = find_specs(settings) if specs is None else specs
    loader = ModelLoader(specs, settings, metrics, make_encoder, clock, exchanges=hangups is not None)
    database = Database(settings.database_url)
    schema.prepare(database, migrate=settings.migrate)
    is_first = worker is None or worker.is_first
    publish = partial(_publish_prices, database, settings, clock, tell=is_first)
    publish(specs)
    shared_metrics = None if worker is None else WorkerMetrics(worker, metrics.registry)
    parts = _make_parts(settings, clock, steady, metrics, loader, database)
    chores = _chores(parts, is_first=is_first)
    reread = Reread(settings, loader, publish, metrics)
    if hangups is not None:
        chores.append(partial(reread.repeat, hangups))
    lifespan = partial(_lifespan, parts, chores, shared_metrics, traces)
    app = new_application("Tuition vendor", "CLIP embeddings by the query.", lifespan)
    app.state.models, app.state.capacity, app.state.signer = loader.models, parts.capacity, parts.signer
    app.state.batches, app.state.refusals = parts.batches, parts.refusals
    _add_layers(app, _add_routes(app, parts), parts, traces)
    token = settings.metrics_token
    render = metrics.render if shared_metrics is None else shared_metrics.render
    app.include_router(metrics_router(render, None if token is None else token.get_secret_value()))
    metrics.show("in_hand_bytes", "Bytes of requests and images in memory.", lambda: parts.capacity.bytes)
    return app


def _add_layers(app: FastAPI, direct: Sequence[BaseRoute], parts: _Parts, traces: Traces | None) -> None:
    """Add the layers in front of the routes; `direct` routes are answered before the framework."""
    app.add_middleware(DirectRoutes, routes=direct)

    def note_refusal(scope: Scope, code: str) -> None:
        account_id = scope["state"].get("account_id")
        if account_id is not None and not scope["path"].startswith("/console"):
            parts.refusals.note(account_id, code)

    app.add_middleware(
        RequestGate,
        crash_message=CRASH,
        metrics=parts.metrics,
        trace=None if traces is None else traces.add,
        note_refusal=note_refusal,
    )


def _make_parts(
    settings: Settings, clock: Clock, steady: Clock, metrics: Metrics, loader: ModelLoader, database: Database
) -> _Parts:
    watch = ClockWatch(clock, steady)
    ask_clock = partial(watch.ask, database, trust_clock=settings.trust_clock)
    ask_clock()
    replays = ReplayTerms(settings.replay_hours * 3600, settings.max_replays)
    admission = Admission(database, clock, _HOLD_SECONDS, replays, watch, settings.thresholds)
    authentication = Authentication(database, clock)
    # Twice the time that a request may take: a hold never expires under a request that is still served.
    sweeper = Sweeper(
        admission,
        authentication,
        metrics,
        longest_hold_seconds=2 * settings.request_timeout_seconds,
        watch=watch,
        ask_clock=ask_clock,
    )
    capacity = Capacity(
        max_inputs=settings.max_queued_inputs,
        max_bytes=settings.max_queued_bytes,
        max_seconds=settings.request_timeout_seconds,
    )
    signer = Signer(database, settings.signing_key_in, clock)
    recorder = None
    if settings.sketches:
        recorder = Recorder(database, clock, read_or_make_key(database, settings.sketch_key_in))
    allowance, batches = Allowance(clock), None
    if settings.batch_store is not None:
        batches = BatchServices.open(
            settings.batch_store,
            _batch_limits(settings),
            LineReader(settings.max_inputs, settings.max_text_characters),
            database=database,
            clock=clock,
            admission=admission,
            allowance=allowance,
            models=loader.models,
            recorder=recorder,
            metrics=metrics,
            signer=signer,
            authentication=authentication,
        )
    return _Parts(
        settings, clock, metrics, loader, database, watch, replays, admission, allowance, authentication,
        sweeper, signer, recorder, capacity, batches, RefusalCounts(database, clock, watch), AccountThreads(),
    )  # fmt: skip


def _batch_limits(settings: Settings) -> BatchLimits:
    return BatchLimits(
        max_file_bytes=settings.batch_max_file_bytes,
        max_line_bytes=settings.max_request_bytes,
        max_lines=settings.batch_max_lines,
        account_bytes=settings.batch_account_bytes,
        account_jobs=settings.batch_account_jobs,
        keep_days=settings.batch_keep_days,
    )


def _chores(parts: _Parts, *, is_first: bool) -> list[Chore]:
    """What is done again and again beside the requests; the first of several workers has more of it."""
    chores: list[Chore] = [
        partial(repeated, parts.sweeper.once, _SWEEP_SECONDS),
        partial(parts.signer.repeat, _SWEEP_SECONDS),
        partial(repeated, parts.refusals.once, _SWEEP_SECONDS),
        memory.keep_small,
    ]
    if parts.recorder is not None:
        chores.append(partial(parts.recorder.repeat, _SKETCH_SECONDS))
    if parts.batches is not None:
        chores.append(parts.batches.runner.repeat)
        upkeep = Upkeep(parts.batches.jobs, parts.batches.files, parts.watch)
        chores.append(partial(upkeep.repeat, _SWEEP_SECONDS))
    if is_first:  # what all workers would tell and do alike
        parts.metrics.registry.register(AccountMetrics(parts.database, parts.clock))
        if parts.batches is not None:
            parts.metrics.registry.register(JobMetrics(parts.database, parts.clock))
        chores.append(Audit(parts.database, parts.metrics, parts.settings.verify_every_hours).repeat)
        price_watch = PriceWatch(parts.database, parts.clock)
        chores.append(partial(repeated, price_watch.look, _SWEEP_SECONDS))
        allowed = networks(parts.settings.webhook_private_networks)
        dispatcher = Dispatcher(parts.database, parts.clock, allowed, lambda: parts.watch.fault is None)
        chores.append(partial(_deliver, dispatcher))
    return chores


async def _deliver(dispatcher: Dispatcher) -> None:
    dispatcher.start(_DISPATCH_SECONDS)
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.to_thread(dispatcher.stop)


def _publish_prices(
    database: Database, settings: Settings, clock: Clock, specs: Sequence[ModelSpec], *, tell: bool
) -> None:
    """Give the models their first prices, and `tell` of those in the books that are others by now.

    Receivers of events are told of those that are deprecated.
    """
    differences = []
    with database.write() as session:
        act = Act(session, os_user(), clock)
        for spec in specs:
            first = {kind: getattr(settings, f"{kind}_price_micros", None) for kind in KINDS}
            named = {kind: micros for kind, micros in first.items() if micros is not None}
            found = prices.publish(act, spec.id, {**named, **spec.prices.get(STANDARD_PLAN, {})})
            for plan, wanted in spec.prices.items():
                if plan != STANDARD_PLAN:
                    found += prices.publish_plan(act, plan, spec.id, wanted)
            differences += [(spec, each) for each in found]
            model_notices.tell(session, spec.id, spec.deprecated_at, spec.sunset_at, act.now)
    for spec, difference in differences if tell else []:
        _tell_of(spec, difference)


def _tell_of(spec: ModelSpec, difference: PriceDifference) -> None:
    plan, kind, asked = difference.plan, difference.kind, difference.asked_micros
    where = f"VENDOR_{kind.upper()}_PRICE_MICROS"
    if kind in spec.prices.get(plan, {}):
        where = f"{spec.id}: prices.{plan}.{kind}_micros"
    holding = difference.holding_micros
    _log.warning(
        "%s is %d, but the price in the books is %s, which holds; to change it: vendor prices set %s %s %d%s",
        where,
        asked,
        "withdrawn" if holding is None else holding,
        spec.id,
        kind,
        asked,
        "" if plan == STANDARD_PLAN else f" --plan {plan}",
    )


def _add_routes(app: FastAPI, parts: _Parts) -> list[BaseRoute]:
    """Add all routes but one; those that are answered directly."""
    settings, models, capacity = parts.settings, parts.loader.models, parts.capacity
    database, clock, authentication = parts.database, parts.clock, parts.authentication
    only_model = None if settings.tells_models_apart else models.default.facts
    checkout = Checkout(parts.admission, Precheck(clock), parts.allowance, parts.metrics)
    sales = Sales(models, checkout, parts.metrics, parts.signer, parts.recorder)
    reader = QueryReader(settings.max_inputs, settings.max_request_bytes, settings.max_text_characters)
    selling = sale_router(sales, capacity, only_model, reader, authentication)
    app.include_router(selling)
    runs_jobs = parts.batches is not None
    app.include_router(
        catalogue_router(models, database, clock, authentication, parts.signer, runs_jobs=runs_jobs)
    )
    threads = parts.threads
    app.include_router(
        billing_router(database, clock, authentication, models, parts.watch, parts.signer, threads)
    )
    acts = ActContext(
        database,
        clock,
        settings.trust_clock,
        settings.thresholds,
        parts.watch,
        keep_micros=settings.batch_keep_days * DAY,
    )
    own = APIRouter()
    add_routes(own, OwnContext(acts, authentication, threads), [*ACTS.values(), *QUERIES.values()])
    app.include_router(own)
    app.include_router(signing_router(database))
    if parts.batches is not None:
        app.include_router(files_router(parts.batches, capacity, threads))
        app.include_router(batches_router(parts.batches, threads))
    app.include_router(docs_router(app.title))
    app.include_router(health_router(Readiness(models, database, capacity, parts.watch)))
    if settings.console:
        seal = read_or_make_seal(database, settings.console_key_in)
        limits = Limits(settings.max_request_bytes, settings.max_text_characters)
        console = console_router(
            acts, seal, authentication, models, sales, capacity, limits, threads, parts.batches
        )
        app.include_router(console)
    return selling.routes


def _release_abandoned(parts: _Parts) -> None:
    parts.admission.void_abandoned()
    Leases(parts.database, parts.clock).release_abandoned()


@asynccontextmanager
async def _lifespan(
    parts: _Parts,
    chores: Sequence[Chore],
    shared_metrics: WorkerMetrics | None,
    traces: Traces | None,
    _app: FastAPI,
) -> AsyncIterator[None]:
    database = parts.database
    presence = Presence(database)
    # Where no other server lives on an embedded database, whatever is held belongs to one that is gone.
    await asyncio.to_thread(presence.enter, partial(_release_abandoned, parts))
    parts.loader.start()
    if shared_metrics is not None:
        shared_metrics.start()
    beside = [asyncio.create_task(chore()) for chore in chores]
    yield
    for each in beside:
        each.cancel()
    await asyncio.gather(*beside, return_exceptions=True)
    await parts.loader.close()
    await asyncio.to_thread(parts.sweeper.once)
    await asyncio.to_thread(parts.admission.close)
    await asyncio.to_thread(parts.refusals.once)
    if parts.recorder is not None:
        await asyncio.to_thread(parts.recorder.finish)
    if shared_metrics is not None:
        shared_metrics.close()
    if traces is not None:
        await asyncio.to_thread(traces.close)
    parts.threads.close()
    if parts.batches is not None:
        parts.batches.files.store.close()
    presence.leave()
    database.close()
