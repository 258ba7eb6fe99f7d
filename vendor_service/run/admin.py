"""`/admin` as it runs: an application of its own, in a process of its own beside the vendor's.

So nothing that an operator asks, a verification of the whole ledger say, slows what is sold, and no crowd of
customers keeps an operator out.
"""

import asyncio
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

from fastapi import APIRouter, FastAPI, Request, Response

from shared.http import server
from shared.http.capacity import Capacity
from shared.http.errors import refused
from shared.http.metrics import RequestMetrics
from shared.http.middleware import RequestGate
from vendor_service.acts.act import ActContext
from vendor_service.acts.authentication import OperatorAuthentication
from vendor_service.acts.registry import ACTS, QUERIES
from vendor_service.acts.verification import LedgerVerifier
from vendor_service.advice import addressed, whole_url
from vendor_service.clock import DAY, Clock, ClockWatch, steady_clock, system_clock
from vendor_service.console.operators.monitor import MetricsClient, Monitor
from vendor_service.console.operators.router import operator_router
from vendor_service.console.seal import read_or_make_seal
from vendor_service.database import schema
from vendor_service.database.session import Database
from vendor_service.errors import APIError, OperatorError
from vendor_service.http.admin import AdminContext
from vendor_service.http.application import CRASH, new_application
from vendor_service.http.declared import add_routes
from vendor_service.http.docs import docs_router
from vendor_service.run import doctor
from vendor_service.run.chores import Chore
from vendor_service.run.logs import log_as
from vendor_service.run.settings import Settings
from vendor_service.run.supervisor import Supervisor

# A vendor that was told to stop as well, as by a signal to both, takes no longer than this to stop.
_TOLD_SECONDS = 40.0
_STOP_SECONDS = 10.0
# A clock that is set right by little and little has not stepped, if it is looked at now and then.
_WATCH_SECONDS = 15.0

_spawning = multiprocessing.get_context("spawn")


def create_admin_app(
    settings: Settings,
    clock: Clock = system_clock,
    *,
    steady: Clock = steady_clock,
    vendor_url: str | None = None,
    reload_models: Callable[[], None] | None = None,
) -> FastAPI:
    """Open the books, and make an application that serves operators; `vendor_url` is where the vendor is.

    `steady` is what the `clock` is watched by.
    `reload_models` asks the vendor to read its file of models again; without it there is none.

    Raises:
        OperatorError: the database cannot be used.
    """
    database = Database(settings.database_url)
    schema.check(database)
    token = settings.plain_metrics_token
    line = None if vendor_url is None else MetricsClient(vendor_url, token)
    monitor = Monitor(line)
    # Each act asks the books and the database's server; the books must not forbid their own repair.
    watch = ClockWatch(clock, steady)
    app = new_application(
        "Tuition vendor: operators",
        "What the command line does, over HTTP.",
        partial(_lifespan, database, monitor, watch),
    )
    # What `serve` drains before it stops. No act is long, so there is nothing to count.
    app.state.capacity = Capacity(max_inputs=1, max_bytes=1, max_seconds=60.0)
    app.add_exception_handler(OperatorError, partial(_on_operator_error, whole_url(settings.database_url)))
    authentication = OperatorAuthentication(database, clock)
    acts = _context(settings, database, clock, watch, reload_models)
    router = APIRouter()
    add_routes(router, AdminContext(acts, authentication), [*ACTS.values(), *QUERIES.values()])
    app.include_router(router)
    app.include_router(docs_router(app.title))
    seal = read_or_make_seal(database, settings.keys_in)
    app.include_router(
        operator_router(acts, seal, authentication, monitor, lambda: app.state.capacity.closed)
    )

    @app.get("/livez", include_in_schema=False)
    async def livez() -> dict[str, str]:
        return {"status": "ok"}

    app.add_middleware(RequestGate, crash_message=CRASH, metrics=RequestMetrics())
    return app


def _context(
    settings: Settings,
    database: Database,
    clock: Clock,
    watch: ClockWatch,
    reload_models: Callable[[], None] | None,
) -> ActContext:
    return ActContext(
        database,
        clock,
        settings.trust_clock,
        watch=watch,
        keys_in=settings.keys_in,
        keep_micros=settings.batch_keep_days * DAY,
        reload_models=reload_models,
        verifier=LedgerVerifier(database),
        examine=partial(doctor.examine, settings, database, clock, serves=True),
    )


@contextmanager
def admin_beside(settings: Settings, vendor_url: str | None = None) -> Iterator[str | None]:
    """Serve operators meanwhile, if the settings say where; its URL. The vendor is at `vendor_url`.

    Raises:
        OperatorError: it does not start.
    """
    if settings.admin_port is None:
        yield None
        return
    try:
        bound = server.bind(settings.admin_host, settings.admin_port)
    except server.CannotServe as error:
        message = str(error).replace("--port", "--admin-port").replace("--host", "--admin-host")
        raise OperatorError(message) from error
    serve = partial(_serve, settings, bound, vendor_url)
    supervisor = Supervisor(_spawning, "admin process", [serve], told_seconds=_TOLD_SECONDS)
    interrupt, interrupted = _spawning.Pipe(duplex=False)
    watching = threading.Thread(target=supervisor.watch, args=(interrupt,), name="admin", daemon=True)
    with bound, interrupt:
        try:
            supervisor.start(interrupt)
            watching.start()
            yield server.url_of(bound)
        finally:
            interrupted.close()
            if watching.is_alive():
                watching.join()
            supervisor.terminate()
            supervisor.join(_STOP_SECONDS)


def _serve(
    settings: Settings, bound: socket.socket, vendor_url: str | None, on_ready: Callable[[str], None]
) -> None:
    vendor = multiprocessing.parent_process()
    assert vendor is not None
    assert vendor.pid is not None
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the vendor's business
    log_as(settings)
    # Without a file of models the vendor would end at this signal.
    reload_models = None if settings.models is None else partial(os.kill, vendor.pid, signal.SIGHUP)
    app = create_admin_app(settings, vendor_url=vendor_url, reload_models=reload_models)
    try:
        server.serve(app, bound, lambda: on_ready("/admin"))
    except server.CannotServe as error:
        raise OperatorError(str(error)) from error


async def _on_operator_error(url: str, request: Request, error: Exception) -> Response:
    assert isinstance(error, OperatorError)
    return refused(request, APIError(error.code, addressed(str(error), url)))


@asynccontextmanager
async def _lifespan(
    database: Database, monitor: Monitor, watch: ClockWatch, _app: FastAPI
) -> AsyncIterator[None]:
    watching = [
        asyncio.create_task(monitor.repeat()),
        asyncio.create_task(Chore("looking at the clock", lambda: watch.fault, _WATCH_SECONDS).repeat()),
    ]
    yield
    for each in watching:
        each.cancel()
    await asyncio.gather(*watching, return_exceptions=True)
    database.close()
