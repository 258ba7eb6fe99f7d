"""The process of `/admin`: beside the vendor and apart from it, replaced when it dies, gone when it goes."""

import os
import re
import signal
from contextlib import suppress
from multiprocessing import active_children
from multiprocessing.context import SpawnProcess
from pathlib import Path

import httpx
import pytest

from tests.shared.processes.test_processes import failing
from tests.support.forking import CONTEXT
from tests.support.vendor_process import VendorProcess, wait_until
from tests.vendor_service.books import lay_out
from tests.vendor_service.console.visits import Visit
from tests.vendor_service.given_settings import GivenSettings
from tests.vendor_service.run.served import be_killed
from vendor_service.acts import operators
from vendor_service.acts.act import Act, OperatorScope
from vendor_service.clock import system_clock
from vendor_service.database.session import Database
from vendor_service.errors import OperatorError
from vendor_service.run import admin, supervisor
from vendor_service.run.admin import admin_beside


def token_of(vendor: VendorProcess) -> str:
    """A token that may do all."""
    database = Database(vendor.database_url)
    with database.write() as session:
        made = operators.issue(Act(session, "os:test", system_clock), "test", [OperatorScope.ALL])
    database.close()
    return made.token


def ask(vendor: VendorProcess, token: str, path: str = "accounts") -> int:
    """The status of a request of an operator; 0 if nobody answers."""
    headers = {"authorization": f"Bearer {token}"}
    with suppress(httpx.TransportError):
        return httpx.get(f"{vendor.admin_url}/admin/{path}", headers=headers, timeout=10).status_code
    return 0


def operators_page(vendor: VendorProcess, token: str, path: str) -> str:
    """A page of the operators' console, which watches the vendor."""
    with httpx.Client(base_url=vendor.admin_url, timeout=30) as http:
        visit = Visit(http, "/operator")
        visit.sign_in(token=token)
        return visit.page(path)


def admin_process(vendor: VendorProcess) -> int:
    """The process that serves operators, by what the vendor says of it."""
    return int(re.findall(r"admin process started.*\bpid=(\d+)", vendor.log.read_text())[-1])


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the process forked, which takes less than to start an interpreter, as it is elsewhere here."""
    monkeypatch.setattr(admin, "_spawning", CONTEXT)


def serving() -> int | None:
    """The process that serves operators beside this one."""
    return next((each.pid for each in active_children() if each.name == "admin process 0"), None)


def test_operators_are_served_apart_and_again_after_a_crash(tmp_path: Path) -> None:
    with VendorProcess(tmp_path, "--admin-port", "0") as vendor:
        token = token_of(vendor)
        assert ask(vendor, token) == 200
        assert httpx.get(f"{vendor.url}/admin/accounts").status_code == 404
        assert httpx.get(f"{vendor.admin_url}/v1/models").status_code == 404
        assert vendor.admin_url.startswith("http://127.0.0.1:")
        assert ">ready<" in operators_page(vendor, token, "/health")
        process = admin_process(vendor)
        os.kill(process, signal.SIGKILL)
        wait_until(lambda: ask(vendor, token) == 200, seconds=30)
        assert admin_process(vendor) != process
        assert "the admin process died; starting another" in vendor.log.read_text()
        os.kill(vendor.pid, signal.SIGKILL)
        wait_until(lambda: ask(vendor, token) == 0, seconds=30)


def test_a_process_for_which_the_system_has_no_room_comes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "_PAUSE_SECONDS", 0.05)
    url = f"sqlite:///{tmp_path / 'books.db'}"
    lay_out(url)
    with admin_beside(GivenSettings(database_url=url, admin_port=0)) as address:
        first = serving()
        assert first is not None
        monkeypatch.setattr(SpawnProcess, "start", failing(2, SpawnProcess.start))
        os.kill(first, signal.SIGKILL)
        assert address is not None
        wait_until(lambda: serving() not in (None, first), seconds=30)
        assert httpx.get(f"{address}/livez", timeout=60).is_success
    assert caplog.text.count("the admin process cannot be started, which is tried again") == 2


@pytest.mark.usefixtures("forked")
def test_a_process_that_alone_is_told_to_stop_is_replaced_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(admin, "_TOLD_SECONDS", 0.05)
    url = f"sqlite:///{tmp_path / 'books.db'}"
    lay_out(url)
    with admin_beside(GivenSettings(database_url=url, admin_port=0)) as address:
        first = serving()
        assert first is not None
        os.kill(first, signal.SIGTERM)
        wait_until(lambda: serving() not in (None, first), seconds=30)
        assert httpx.get(f"{address}/livez", timeout=60).is_success
    assert caplog.text.count("the admin process died; starting another") == 1


@pytest.mark.usefixtures("forked")
def test_an_address_that_is_taken_is_said_with_its_option(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'books.db'}"
    settings = GivenSettings(database_url=url, admin_port=0)
    with pytest.raises(OperatorError, match="has no tables yet"), admin_beside(settings):
        pass  # there are no books yet
    with (
        pytest.raises(OperatorError, match="choose another --admin-host"),
        admin_beside(GivenSettings(database_url=url, admin_port=0, admin_host="192.0.2.1")),
    ):
        pass
    with admin_beside(GivenSettings(database_url=url)) as nowhere:
        assert nowhere is None


@pytest.mark.usefixtures("forked")
def test_a_process_that_is_killed_before_it_is_ready_is_said_to_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "_serve", be_killed)
    settings = GivenSettings(database_url=f"sqlite:///{tmp_path / 'books.db'}", admin_port=0)
    with pytest.raises(OperatorError, match="ended before it was ready"), admin_beside(settings):
        pass
