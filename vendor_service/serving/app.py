"""The application: everything is made and put together here, and nowhere else."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version

from fastapi import FastAPI
from starlette.routing import BaseRoute

from shared.embeddings import Limits
from shared.errors import ErrorBody
from shared.serving import memory
from shared.serving.body import BodyGate
from shared.serving.capacity import Capacity
from shared.serving.errors import refused
from shared.serving.middleware import RequestScope
from vendor_service.accounts.authentication import Authentication
from vendor_service.api.billing import billing_router
from vendor_service.api.direct import DirectRoutes
from vendor_service.api.docs import docs_router
from vendor_service.api.embed import embed_router
from vendor_service.api.errors import add_error_handlers, internal_error
from vendor_service.api.health import Readiness, health_router
from vendor_service.api.keys import keys_router
from vendor_service.api.metrics import metrics_router
from vendor_service.api.models import catalogue_router
from vendor_service.api.openai import openai_router
from vendor_service.api.reading import QueryReader
from vendor_service.api.signing import signing_router
from vendor_service.api.spans import spans_to
from vendor_service.billing import prices
from vendor_service.billing.account_metrics import AccountMetrics
from vendor_service.billing.admission import Admission
from vendor_service.billing.allowance import Allowance
from vendor_service.billing.clock_watch import ClockReferences, ClockWatch
from vendor_service.billing.precheck import Precheck
from vendor_service.billing.price_watch import PriceWatch
from vendor_service.billing.replays import ReplayTerms
from vendor_service.billing.signing import Signer
from vendor_service.clock import Clock, steady_clock, system_clock
from vendor_service.database import schema
from vendor_service.database.presence import Presence
from vendor_service.database.session import Database
from vendor_service.embed.service import EmbedService
from vendor_service.embed.signed_card import ModelPromise
from vendor_service.encoder.encoder import Encoder
from vendor_service.encoder.engine import Engine
from vendor_service.extraction.key import read_or_make_key
from vendor_service.extraction.recorder import Recorder
from vendor_service.observability.metrics import Metrics
from vendor_service.observability.tracing import Traces, find_traces
from vendor_service.observability.worker_metrics import Worker, WorkerMetrics
from vendor_service.serving.audit import Audit
from vendor_service.serving.factory import load_engine
from vendor_service.serving.sweeper import Sweeper
from vendor_service.settings import Settings

# A process that was killed leaves holds; they are released this long after it last told that it lives.
_HOLD_SECONDS = 20
_SWEEP_SECONDS = 5
_SKETCH_SECONDS = 5

_log = logging.getLogger(__name__)

MakeEncoder = Callable[[Settings, Metrics], Encoder]


def local_encoder(settings: Settings, metrics: Metrics) -> Engine:
    """Load the model into this process.

    Raises:
        OperatorError: it cannot be loaded.
    """
    engine = load_engine(settings, metrics)
    assert engine.preparation is not None
    metrics.show_preparation(engine.preparation.processes.waiting, engine.preparation.processes.living)
    metrics.show("devices_alive", "Devices whose worker is alive.", lambda: engine.batcher.living)
    on_cuda = {device for device in engine.model.devices if device.type == "cuda"}
    if on_cuda:
        metrics.show_gpu_memory(on_cuda)
    return engine


def create_app(
    settings: Settings,
    clock: Clock = system_clock,
    *,
    steady: Clock = steady_clock,
    worker: Worker | None = None,
    make_encoder: MakeEncoder = local_encoder,
) -> FastAPI:
    """Load the model, open the books, and make an application that serves both while its lifespan runs.

    `steady` is what the `clock` is watched by. `worker` says which one of several processes on one address
    it serves in, if there are several; `make_encoder` finds the model, where it is not to run in this
    process.

    Raises:
        OperatorError: the model cannot be loaded or the database cannot be used.
    """
    metrics, traces = Metrics(), find_traces()
    encoder = make_encoder(settings, metrics)
    model = encoder.facts
    database = Database(settings.database_url)
    schema.prepare(database, migrate=settings.migrate)
    is_first = worker is None or worker.is_first
    _publish_prices(database, settings, model.id, clock, tell=is_first)
    shared_metrics = None if worker is None else WorkerMetrics(worker, metrics.registry)
    audit = watch = None
    if is_first:  # what all workers would tell and do alike
        metrics.registry.register(AccountMetrics(database, clock))
        audit = Audit(database, metrics, settings.verify_every_hours)
        watch = PriceWatch(database, clock)
    capacity = Capacity(
        max_inputs=settings.max_queued_inputs,
        max_bytes=settings.max_queued_bytes,
        max_seconds=settings.request_timeout_seconds,
    )
    clock_watch = ClockWatch(clock, steady)
    references = ClockReferences(database, clock, clock_watch, trust_clock=settings.trust_clock)
    references.ask()
    replays = ReplayTerms(settings.replay_hours * 3600, settings.max_replays)
    admission = Admission(database, clock, _HOLD_SECONDS, replays, clock_watch)
    precheck = Precheck(database, clock, replays)
    authentication = Authentication(database, clock)
    # Twice the time that a request may take: a hold never expires under a request that is still served.
    sweeper = Sweeper(
        admission,
        authentication,
        metrics,
        longest_hold_seconds=2 * settings.request_timeout_seconds,
        watch=clock_watch,
        references=references,
    )
    signer = Signer(database, settings.signing_key_in, clock)
    recorder = None
    if settings.sketches:
        recorder = Recorder(database, clock, read_or_make_key(database, settings.sketch_key_in))
    app = FastAPI(
        title="Tuition vendor",
        description="CLIP embeddings by the query.",
        version=version("tuition"),
        docs_url=None,
        redoc_url=None,
        # The vendor has its own traces and metrics; FastAPI would ask for providers of them at every request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        lifespan=partial(
            _lifespan,
            encoder,
            admission,
            sweeper,
            signer,
            recorder,
            database,
            shared_metrics,
            audit,
            watch,
            traces,
        ),
        responses={"4XX": {"model": ErrorBody}, "5XX": {"model": ErrorBody}},
    )
    app.state.model, app.state.capacity, app.state.encoder = model, capacity, encoder
    app.state.signer = signer
    add_error_handlers(app)
    service = EmbedService(
        encoder,
        admission,
        precheck,
        Allowance(clock),
        metrics,
        signer,
        recorder,
        max_inputs=settings.max_inputs,
    )
    direct = _add_routes(
        app, settings, encoder, capacity, service, authentication, database, clock, clock_watch, signer
    )
    app.add_middleware(DirectRoutes, routes=direct, refuse=refused)
    app.add_middleware(BodyGate, refuse=refused)
    trace = None if traces is None else spans_to(traces)
    app.add_middleware(RequestScope, on_crash=internal_error, metrics=metrics, trace=trace)
    token = settings.metrics_token
    render = metrics.render if shared_metrics is None else shared_metrics.render
    app.include_router(metrics_router(render, None if token is None else token.get_secret_value()))
    _show(encoder, capacity, metrics)
    return app


def _publish_prices(database: Database, settings: Settings, model: str, clock: Clock, *, tell: bool) -> None:
    with database.write() as session:
        differences = prices.publish(
            session, model, settings.image_price_micros, settings.text_price_micros, clock()
        )
    for each in differences if tell else []:
        _log.warning(
            "VENDOR_%s_PRICE_MICROS is %d, but the price in the books is %d, which holds; to change it: "
            "vendor prices set %s %s %d",
            each.kind.upper(),
            each.asked_micros,
            each.holding_micros,
            model,
            each.kind,
            each.asked_micros,
        )


def _add_routes(
    app: FastAPI,
    settings: Settings,
    encoder: Encoder,
    capacity: Capacity,
    service: EmbedService,
    authentication: Authentication,
    database: Database,
    clock: Clock,
    watch: ClockWatch,
    signer: Signer,
) -> list[BaseRoute]:
    """Add all routes but one; those that are answered directly."""
    limits = Limits(
        max_inputs=settings.max_inputs,
        max_request_bytes=settings.max_request_bytes,
        max_image_bytes=settings.max_image_bytes,
        max_image_pixels=settings.max_image_pixels,
        replay_window_seconds=settings.replay_hours * 3600,
        max_replays=settings.max_replays,
    )
    reader = QueryReader(limits, settings.max_text_characters)
    selling = (
        embed_router(service, capacity, encoder.facts, reader, authentication),
        openai_router(service, capacity, encoder.facts, reader, authentication),
    )
    for each in selling:
        app.include_router(each)
    promise = ModelPromise(encoder, signer, clock)
    app.include_router(catalogue_router(encoder.facts, limits, database, clock, authentication, promise))
    app.include_router(billing_router(database, clock, authentication, encoder.facts.id, watch, signer))
    app.include_router(keys_router(database, clock, authentication))
    app.include_router(signing_router(database))
    app.include_router(docs_router(app.title))
    app.include_router(health_router(Readiness(encoder, database, capacity, watch)))
    return [route for each in selling for route in each.routes]


def _show(encoder: Encoder, capacity: Capacity, metrics: Metrics) -> None:
    model = encoder.facts
    devices = ",".join(model.devices)
    metrics.show_model(model=model.id, fingerprint=model.fingerprint, dtype=model.dtype, device=devices)
    metrics.show_queue(encoder.waiting)
    metrics.show("in_hand_bytes", "Bytes of requests and images in memory.", lambda: capacity.bytes)


@asynccontextmanager
async def _lifespan(
    encoder: Encoder,
    admission: Admission,
    sweeper: Sweeper,
    signer: Signer,
    recorder: Recorder | None,
    database: Database,
    shared_metrics: WorkerMetrics | None,
    audit: Audit | None,
    watch: PriceWatch | None,
    traces: Traces | None,
    _app: FastAPI,
) -> AsyncIterator[None]:
    presence = Presence(database)
    # Where no other server lives on an embedded database, whatever is held belongs to one that is gone.
    await asyncio.to_thread(presence.enter, admission.void_abandoned)
    # The tables may have been taken back while the model was loaded.
    await asyncio.to_thread(schema.check, database)
    encoder.start()
    if shared_metrics is not None:
        shared_metrics.start()
    chores = (
        sweeper.repeat(_SWEEP_SECONDS),
        signer.repeat(_SWEEP_SECONDS),
        memory.keep_small(),
        presence.keep(_SWEEP_SECONDS),
    )
    beside = [asyncio.create_task(each) for each in chores]
    if audit is not None:
        beside.append(asyncio.create_task(audit.repeat()))
    if recorder is not None:
        beside.append(asyncio.create_task(recorder.repeat(_SKETCH_SECONDS)))
    if watch is not None:
        beside.append(asyncio.create_task(watch.repeat(_SWEEP_SECONDS)))
    yield
    for each in beside:
        each.cancel()
    await asyncio.gather(*beside, return_exceptions=True)
    await asyncio.to_thread(encoder.close)
    await asyncio.to_thread(sweeper.once)
    await asyncio.to_thread(admission.close)
    if recorder is not None:
        await asyncio.to_thread(recorder.finish)
    if shared_metrics is not None:
        shared_metrics.close()
    if traces is not None:
        await asyncio.to_thread(traces.close)
    presence.leave()
    database.close()
