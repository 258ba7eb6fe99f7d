"""`/admin` as it runs: an application of its own, in a process of its own beside the vendor's.

So nothing that an operator asks, a verification of the whole ledger say, slows what is sold, and no crowd of
customers keeps an operator out.
"""

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from fastapi import APIRouter, FastAPI, Request, Response

from shared.http import server
from shared.http.capacity import Capacity
from shared.http.errors import refused
from shared.http.logging import configure_logging
from shared.http.metrics import RequestMetrics
from shared.http.middleware import RequestGate
from vendor_service.acts.act import ActContext
from vendor_service.acts.authentication import OperatorAuthentication
from vendor_service.acts.registry import ACTS, QUERIES
from vendor_service.acts.verification import LedgerVerifier
from vendor_service.clock import DAY, Clock, steady_clock, system_clock
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
from vendor_service.money.clock_watch import ClockWatch
from vendor_service.run.chores import repeated
from vendor_service.run.lifeline import end_with_parent
from vendor_service.run.settings import Settings

# Between two starts of a process that dies.
_PAUSE_SECONDS = 2.0
# After one that was told to stop: a vendor that was told as well takes no longer than this to stop.
_TOLD_SECONDS = 40.0
_STOP_SECONDS = 10.0
# A clock that is set right by little and little has not stepped, if it is looked at now and then.
_WATCH_SECONDS = 15.0

_log = logging.getLogger(__name__)
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
    token = settings.metrics_token
    line = (
        None
        if vendor_url is None
        else MetricsClient(vendor_url, None if token is None else token.get_secret_value())
    )
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
    app.add_exception_handler(OperatorError, _on_operator_error)
    authentication = OperatorAuthentication(database, clock)
    acts = ActContext(
        database,
        clock,
        settings.trust_clock,
        settings.thresholds,
        watch,
        signing_key_in=settings.signing_key_in,
        keep_micros=settings.batch_keep_days * DAY,
        reload_models=reload_models,
        verifier=LedgerVerifier(database),
    )
    router = APIRouter()
    add_routes(router, AdminContext(acts, authentication), [*ACTS.values(), *QUERIES.values()])
    app.include_router(router)
    app.include_router(docs_router(app.title))
    app.include_router(
        operator_router(
            acts,
            read_or_make_seal(database, settings.console_key_in),
            authentication,
            monitor,
            lambda: app.state.capacity.closed,
        )
    )

    @app.get("/livez", include_in_schema=False)
    async def livez() -> dict[str, str]:
        return {"status": "ok"}

    app.add_middleware(RequestGate, crash_message=CRASH, metrics=RequestMetrics())
    return app


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
    with bound:
        keeper = _Keeper(settings, bound, vendor_url)
        try:
            keeper.start()
            yield server.url_of(bound)
        finally:
            keeper.stop()


class _Keeper:
    """Keeps a process that serves operators: another one is started for one that dies."""

    def __init__(self, settings: Settings, bound: socket.socket, vendor_url: str | None) -> None:
        self._settings = settings
        self._vendor_url = vendor_url
        self._bound = bound
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._process, self._lifeline = self._spawn()
        self._thread = threading.Thread(target=self._watch, name="admin", daemon=True)

    def start(self) -> None:
        """Return once it serves.

        Raises:
            OperatorError: it does not.
        """
        wait([self._lifeline, self._process.sentinel])
        try:
            told = self._lifeline.recv() if self._lifeline.poll() else None
        except (EOFError, OSError):  # its end of the lifeline closes with it
            told = None
        if told is not True:
            raise (
                told
                if isinstance(told, OperatorError)
                else OperatorError("the process of /admin ended before it was ready; the log says why")
            )
        self._thread.start()

    def stop(self) -> None:
        """End the process: what it has in hand is given a moment."""
        with self._lock:
            self._stopping.set()
            self._lifeline.close()
            self._process.terminate()
        self._process.join(_STOP_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while True:
            self._process.join()
            # One that ended by itself was told to, mostly by a signal that this process has got as well.
            pause = _TOLD_SECONDS if self._process.exitcode == 0 else _PAUSE_SECONDS
            if self._stopping.wait(pause):
                return
            with self._lock:
                if self._stopping.is_set():
                    return
                fields = {"pid": self._process.pid, "exit_code": self._process.exitcode}
                _log.error("the process of /admin died; starting another", extra={"fields": fields})
                self._lifeline.close()
                try:
                    self._process, self._lifeline = self._spawn()
                except OSError as error:  # the system has no room for it now
                    _log.error("the process of /admin cannot be started, which is tried again: %s", error)

    def _spawn(self) -> tuple[SpawnProcess, Connection]:
        ours, theirs = _spawning.Pipe()
        process = _spawning.Process(
            target=_work,
            args=(self._settings, self._bound, theirs, self._vendor_url),
            name="admin",
            daemon=True,
        )
        with theirs:
            process.start()
        return process, ours


def _work(settings: Settings, bound: socket.socket, lifeline: Connection, vendor_url: str | None) -> None:
    vendor = os.getppid()
    end_with_parent(lifeline)
    configure_logging("vendor_service", as_json=settings.log_format == "json")
    try:
        # Without a file of models the vendor would end at this signal.
        reload_models = None if settings.models is None else partial(os.kill, vendor, signal.SIGHUP)
        app = create_admin_app(settings, vendor_url=vendor_url, reload_models=reload_models)
        server.serve(app, bound, partial(lifeline.send, True))
    except (OperatorError, server.CannotServe) as error:
        with suppress(OSError):
            lifeline.send(OperatorError(str(error)))
        raise SystemExit(1) from error


async def _on_operator_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, OperatorError)
    return refused(request, APIError(error.code, str(error)))


@asynccontextmanager
async def _lifespan(
    database: Database, monitor: Monitor, watch: ClockWatch, _app: FastAPI
) -> AsyncIterator[None]:
    watching = [
        asyncio.create_task(monitor.repeat()),
        asyncio.create_task(repeated(lambda: watch.fault, _WATCH_SECONDS)),
    ]
    yield
    for each in watching:
        each.cancel()
    await asyncio.gather(*watching, return_exceptions=True)
    database.close()
