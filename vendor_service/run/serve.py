"""`vendor serve`: prepares the database, then serves in one process or in several."""

import os
import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial
from pathlib import Path

import torch
from fastapi import FastAPI

from shared import memory
from shared.http import server
from vendor_service.acts.first_key import bootstrap, look_for_currency
from vendor_service.batches.store import Store
from vendor_service.clock import system_clock
from vendor_service.database import key_files, schema
from vendor_service.database.session import Database
from vendor_service.embed.models import ServedModel
from vendor_service.encoder.clip import choose_devices
from vendor_service.errors import OperatorError
from vendor_service.money.billing_log import open_billing_log
from vendor_service.run.admin import admin_beside
from vendor_service.run.app import create_app
from vendor_service.run.hangups import Hangups
from vendor_service.run.logs import log_as
from vendor_service.run.model_loader import end_while_loading
from vendor_service.run.model_specs import ModelSpec, find_specs
from vendor_service.run.settings import Settings
from vendor_service.run.worker_metrics import Worker
from vendor_service.run.workers import Workers


def start(settings: Settings, announce: Callable[[str, str], None]) -> bool:
    """Serve until stopped; whether that was by Ctrl-C. `announce` is given the URL and the model's facts.

    Raises:
        OperatorError: it does not start.
    """
    memory.share_heap()
    hangups = Hangups() if settings.workers == 1 else None
    # Models take minutes to load, so whatever else can be wrong is found before.
    specs = find_specs(settings)
    _check_devices(specs)
    with _bind(settings) as bound:
        _check_files(settings)
        prepare_database(settings)
        with admin_beside(settings, server.url_of(bound)) as admin_url:
            announce_all = partial(_announce, announce, bound, admin_url)
            if settings.workers > 1:
                return Workers(partial(_serve_as_worker, settings), settings.workers, bound).run(announce_all)
            application = create_app(settings, specs=specs, hangups=hangups)
            return _serve(application, settings, bound, announce_all)


def _announce(
    announce: Callable[[str, str], None], bound: socket.socket, admin_url: str | None, facts: str
) -> None:
    announce(server.url_of(bound), facts if admin_url is None else f"{facts}, operators on {admin_url}")


def prepare_database(settings: Settings) -> None:
    """Bring the tables to this version, and open the first account or say how to.

    Raises:
        OperatorError: the database cannot be used.
    """
    with closing(Database(settings.database_url)) as database:
        schema.prepare(database, migrate=settings.migrate)
        look_for_currency(database)
        bootstrap(database, settings.first_key_to, system_clock)


def _check_devices(specs: Sequence[ModelSpec]) -> None:
    for spec in specs:
        # To ask a GPU takes memory of it, which those who load the model will do.
        if "cuda" not in spec.device or not torch.cuda.is_available():
            choose_devices(spec.device)


def _check_files(settings: Settings) -> None:
    if settings.batch_store is not None:
        with closing(Store(settings.batch_store)) as store:
            store.check()
    if settings.keys_in is not None:
        key_files.check_folder(settings.keys_in)
    with _billing_log(settings):
        pass


def _bind(settings: Settings) -> socket.socket:
    try:
        return server.bind(settings.host, settings.port)
    except server.CannotServe as error:
        raise OperatorError(str(error)) from error


def _serve_as_worker(settings: Settings, worker: Worker, on_ready: Callable[[str], None]) -> None:
    hangups = Hangups()  # before the model is loaded, which takes a while
    memory.share_heap()
    log_as(settings)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // worker.workers))
    _serve(create_app(settings, worker=worker, hangups=hangups), settings, worker.connections, on_ready)
    end_while_loading(0)


def _serve(
    application: FastAPI, settings: Settings, bound: socket.socket | Path, on_ready: Callable[[str], None]
) -> bool:
    facts = "; ".join(map(_facts, application.state.models))
    with _billing_log(settings):
        try:
            return server.serve(application, bound, lambda: on_ready(facts))
        except server.CannotServe as error:
            raise OperatorError(str(error)) from error


def _facts(model: ServedModel) -> str:
    facts = model.facts
    return f"model {facts.id}, device {','.join(facts.devices)}, dtype {facts.dtype}"


def _billing_log(settings: Settings) -> AbstractContextManager[None]:
    return nullcontext() if settings.billing_log is None else open_billing_log(settings.billing_log)
