"""The application of the vendor: its services, with the routes and the layers in front of them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from fastapi import APIRouter, FastAPI
from starlette.routing import BaseRoute
from starlette.types import Scope

from shared.http.middleware import RequestGate
from vendor_service.acts.act import ActContext
from vendor_service.acts.registry import ACTS, QUERIES
from vendor_service.clock import DAY, Clock, steady_clock, system_clock
from vendor_service.console.customers.router import Limits, console_router
from vendor_service.console.seal import read_or_make_seal
from vendor_service.encoder.engine import Engine
from vendor_service.encoder.preparation import count_decoders
from vendor_service.http.application import CRASH, new_application
from vendor_service.http.batches import batches_router
from vendor_service.http.billing import Billing, billing_router
from vendor_service.http.declared import add_routes
from vendor_service.http.docs import docs_router
from vendor_service.http.files import files_router
from vendor_service.http.health import Readiness, health_router
from vendor_service.http.history_rate import HistoryRate
from vendor_service.http.metrics import metrics_router
from vendor_service.http.models import Catalogue, catalogue_router
from vendor_service.http.own import OwnContext
from vendor_service.http.sale import DirectRoutes, QueryReader, sale_router
from vendor_service.http.signing import signing_router
from vendor_service.metrics import Metrics
from vendor_service.run.factory import load_engine
from vendor_service.run.hangups import Hangups
from vendor_service.run.model_loader import MakeEncoder
from vendor_service.run.model_specs import ModelSpec
from vendor_service.run.settings import Settings
from vendor_service.run.tracing import Traces, find_traces
from vendor_service.run.vendor import Vendor
from vendor_service.run.worker_metrics import Worker


def local_encoder(spec: ModelSpec, settings: Settings, metrics: Metrics) -> Engine:
    """Load a model into this process.

    Raises:
        OperatorError: it cannot be loaded.
    """
    return load_engine(spec, count_decoders(settings.workers), metrics)


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
    """Make an application that sells while its lifespan runs; the arguments are those of `Vendor`.

    Raises:
        OperatorError: a model cannot be loaded or the database cannot be used.
    """
    traces = find_traces()
    vendor = Vendor(
        settings, clock, steady, worker=worker, specs=specs, make_encoder=make_encoder, hangups=hangups
    )
    app = new_application(
        "Tuition vendor", "CLIP embeddings by the query.", partial(_lifespan, vendor, traces)
    )
    app.state.models, app.state.capacity, app.state.signer = vendor.models, vendor.capacity, vendor.signer
    app.state.batches, app.state.refusals = vendor.batches, vendor.refusals
    _add_layers(app, _add_routes(app, vendor), vendor, traces)
    return app


def _add_layers(app: FastAPI, direct: Sequence[BaseRoute], vendor: Vendor, traces: Traces | None) -> None:
    """Add the layers in front of the routes; `direct` routes are answered before the framework."""
    app.add_middleware(DirectRoutes, routes=direct)

    def note_refusal(scope: Scope, code: str) -> None:
        account_id = scope["state"].get("account_id")
        if account_id is not None and not scope["path"].startswith("/console"):
            vendor.refusals.note(account_id, scope["state"]["project_id"], code)

    app.add_middleware(
        RequestGate,
        crash_message=CRASH,
        metrics=vendor.metrics,
        trace=None if traces is None else traces.add,
        note_refusal=note_refusal,
    )


def _add_routes(app: FastAPI, vendor: Vendor) -> list[BaseRoute]:
    """Add all routes; those that are answered directly."""
    settings, models, capacity, threads = vendor.settings, vendor.models, vendor.capacity, vendor.threads
    database, clock, authentication = vendor.database, vendor.clock, vendor.authentication
    only_model = None if settings.tells_models_apart else models.default.facts
    reader = QueryReader(settings.max_inputs, settings.max_request_bytes, settings.max_text_characters)
    acts = ActContext(
        database,
        clock,
        settings.trust_clock,
        watch=vendor.watch,
        keep_micros=settings.batch_keep_days * DAY,
    )
    rate, own = HistoryRate(), APIRouter()
    add_routes(own, OwnContext(acts, authentication, threads, rate), [*ACTS.values(), *QUERIES.values()])
    selling = sale_router(vendor.sales, capacity, only_model, reader, authentication)
    runs_jobs = vendor.batches is not None
    routers = [
        selling,
        catalogue_router(Catalogue(models, database, clock, runs_jobs), authentication, vendor.signer),
        billing_router(Billing(database, clock, models, vendor.signer), authentication, rate, threads),
        own,
        signing_router(database, clock, vendor.signer),
        docs_router(app.title),
        health_router(Readiness(models, database, capacity, vendor.watch)),
        metrics_router(vendor.render_metrics, settings.plain_metrics_token),
    ]
    if vendor.batches is not None:
        routers.append(files_router(vendor.batches, authentication, capacity, threads))
        routers.append(batches_router(vendor.batches, authentication, rate, threads))
    if settings.console:
        seal = read_or_make_seal(database, settings.keys_in)
        limits = Limits(settings.max_request_bytes, settings.max_text_characters)
        console = console_router(
            acts, seal, authentication, models, vendor.sales, capacity, limits, threads, vendor.batches
        )
        routers.append(console)
    for each in routers:
        app.include_router(each)
    return selling.routes


@asynccontextmanager
async def _lifespan(vendor: Vendor, traces: Traces | None, _app: FastAPI) -> AsyncIterator[None]:
    await vendor.start()
    running = [asyncio.create_task(each()) for each in vendor.running()]
    yield
    for each in running:
        each.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await vendor.close()
    if traces is not None:
        await asyncio.to_thread(traces.close)
