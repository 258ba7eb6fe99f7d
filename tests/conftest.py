"""Fixtures for every test: one real vendor process and one real PostgreSQL, started when first asked for."""

import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from shared.http.logging import JsonFormatter, TextFormatter
from shared.memory import give_back
from tests.support.figures import taken
from tests.support.postgres import Postgres, started_postgres
from tests.support.quick import make_quick
from tests.support.student_process import StudentProcess
from tests.support.vendor_process import VendorProcess
from tests.support.workers import pytest_runtestloop, start_server_of_forks

__all__ = ["pytest_runtestloop"]  # a hook of pytest's

# As in the Makefile: else tests are collected in twice the time, and each process compiles all modules again.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `make test` run tests in several processes, and `make test-scale` those of the contract on Ray."""
    parser.addoption("--workers", type=int, default=1, help="run the tests in this many processes")
    parser.addoption("--on-ray", action="store_true", help="ask a vendor on Ray instead of a local one")


def pytest_configure(config: pytest.Config) -> None:
    """Have vendors and served students start fast, and no property fail because it took long.

    And heed Ctrl-C, as every process should that a test starts: a shell's background jobs do not.
    """
    VendorProcess.forked = StudentProcess.forked = True
    make_quick()
    settings.register_profile("untimed", deadline=None)
    settings.load_profile("untimed")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("--workers") > 1:
        start_server_of_forks()  # while the tests are collected


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On Ray, leave out what has no vendor or needs one in its own process."""
    if config.getoption("--on-ray"):
        items[:] = [each for each in items if isinstance(each, pytest.Function) and _may_run_on_ray(each)]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> None:
    """Have a report carry the figures of its test."""
    item.user_properties.extend(("figure", json.dumps(figure)) for figure in taken())


def pytest_collection_finish() -> None:
    """Have the garbage collector leave alone what all tests share: a look through it takes half a second."""
    gc.collect()
    gc.freeze()


def _may_run_on_ray(test: pytest.Function) -> bool:
    needed = getattr(test.function.__annotations__.get("vendor"), "__name__", "Vendor")
    return "vendor" in test.fixturenames and needed == "Vendor"


@pytest.fixture(scope="module", autouse=True)
def _free_memory_is_given_back() -> Iterator[None]:
    """Whatever trains in this process has it keep what is freed, which would be gigabytes in the end."""
    yield
    give_back()


@pytest.fixture(scope="session", autouse=True)
def _own_configuration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Which folders are trusted is kept in a configuration folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("configuration")))
        yield


@pytest.fixture(autouse=True)
def _logs_end_with_their_test() -> Iterator[None]:
    """A server that a test configures in this process logs to what pytest closes behind that test."""
    yield
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler.formatter, JsonFormatter | TextFormatter):
            root.removeHandler(handler)


@pytest.fixture(scope="session")
def vendor_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VendorProcess]:
    """A vendor with the bundled model that all tests share: open an account of your own, and stop nothing."""
    with VendorProcess(tmp_path_factory.mktemp("vendor")) as vendor:
        yield vendor


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL that all tests share: make a database of your own."""
    with started_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """A real Chromium; while one is open, its thread runs no other event loop."""
    from tests.support.browser import chromium  # Playwright, which most tests need not import

    try:
        with chromium() as opened:
            yield opened
    except FileNotFoundError as error:
        pytest.skip(str(error))
