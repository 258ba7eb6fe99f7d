"""One account sees and touches nothing of another's, whatever it knows of it."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from shared.billing import EntryPage, Invoice, UsageReport
from shared.keys import KeyList
from tests.support.figures import holds
from tests.vendor_service.console.customers.people import invited, signed_in
from tests.vendor_service.local_vendor import LocalVendor, Vendor
from vendor_service.accounts import projects
from vendor_service.accounts.keys import Scope
from vendor_service.accounts.projects import ProjectTerms, create_project
from vendor_service.acts import accounts, keys, money, sessions
from vendor_service.batches.files import Files
from vendor_service.batches.jobs import Jobs
from vendor_service.clock import to_datetime
from vendor_service.console.customers import pages
from vendor_service.database.tables import Account
from vendor_service.money import invoices, ledger

CAT = {"text": "a photo of a cat"}
THREADS, ASKED = 8, 12  # of the vendor for whatever blocks, and how often a stranger asks at once
# What an account reads, and where that is done.
READS: dict[str, tuple[Any, str]] = {
    "/v1/account": (accounts, "account_status"),
    "/v1/projects": (projects, "list_projects"),
    "/v1/usage": (money, "usage_report"),
    "/v1/ledger": (ledger, "page"),
    "/v1/ledger/head": (ledger, "head"),
    "/v1/keys": (keys, "page"),
    "/v1/files": (Files, "page"),
    "/v1/files/none": (Files, "get"),
    "/v1/batches": (Jobs, "page"),
    "/v1/batches/none": (Jobs, "get"),
    "/v1/batches/none/receipts": (Jobs, "charges"),
    "/console": (pages, "account_status"),
    "/console/usage.csv": (pages, "usage_report"),
    "/console/models": (pages, "payers"),
    "/console/keys": (keys, "newest"),
    "/console/ledger/entries": (ledger, "page"),
    "/console/invoices/2026-11": (invoices, "issue"),
    "/console/sessions": (sessions, "list_sessions"),
}


def leave_few_threads(vendor: LocalVendor) -> None:
    """Have a vendor call functions that block on a few threads, so that few requests take them all."""

    async def leave() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS

    vendor.app.add_api_route("/few-threads", leave)
    assert vendor.http.get("/few-threads").is_success


def test_an_idempotency_key_is_its_accounts_own(vendor: Vendor) -> None:
    """The same key and the same body from another account is another request, which is paid for."""
    once = {"idempotency-key": "mine"}
    first, second = (vendor.embed(vendor.key(), CAT, headers=once).json() for _ in range(2))
    assert not first["replayed"]
    assert not second["replayed"]
    assert first["id"] != second["id"]


def test_history_and_keys_are_an_accounts_own(vendor: Vendor) -> None:
    mine, theirs = (vendor.another_key(vendor.key(), Scope.ADMIN) for _ in range(2))
    vendor.embed(mine, CAT, CAT)
    assert [len(EntryPage.model_validate(vendor.get("/v1/ledger", key)).data) for key in (mine, theirs)] == [
        1,
        0,
    ]
    used = [UsageReport.model_validate(vendor.get("/v1/usage", key)).total.texts for key in (mine, theirs)]
    assert used == [2, 0]
    month = f"{to_datetime(vendor.clock()):%Y-%m}"
    invoices = [Invoice.model_validate(vendor.get(f"/v1/invoices/{month}", key)) for key in (mine, theirs)]
    assert [len(invoice.lines) for invoice in invoices] == [1, 0]
    shown = [KeyList.model_validate(vendor.get("/v1/keys", key)).data for key in (mine, theirs)]
    assert mine.split("_")[1] in {each.key_id for each in shown[0]}
    assert not {each.key_id for each in shown[0]} & {each.key_id for each in shown[1]}
    with vendor.books.write() as session:
        account = session.get_one(Account, vendor.account(mine).id)
        create_project(session, account, "search", ProjectTerms(), vendor.clock)
    assert [len(vendor.get("/v1/projects", key)["data"]) for key in (mine, theirs)] == [1, 0]


@pytest.mark.parametrize(
    ("path", "answered"),
    [
        ("/v1/keys", {201}),
        ("/console/keys/create", {200, 303}),  # one form makes one key
        ("/console/sign-in", {303}),
        ("/console/invitation", {303, 404}),  # it is good once
    ],
)
def test_who_waits_for_an_account_that_is_locked_leaves_threads_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, answered: set[int]
) -> None:
    monkeypatch.setattr("vendor_service.http.history_rate.BURST", 1000.0)
    with LocalVendor(tmp_path) as vendor, ThreadPoolExecutor(ASKED) as pool:
        leave_few_threads(vendor)
        slow, quick = vendor.another_key(vendor.key(), Scope.ADMIN), vendor.key()
        visit = signed_in(vendor, slow)
        headers = {"authorization": f"Bearer {slow}", "cookie": visit.cookie}
        form = {"csrf": visit.csrf, "scope": "embed", "key": slow, "code": invited(vendor, slow)}
        form["once"] = "1"
        sent: dict[str, Any] = {"json": {}} if path.startswith("/v1") else {"data": form}
        with closing(sqlite3.connect(tmp_path / "local.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # SQLite locks all accounts, but who only reads needs no lock
            stuck = [pool.submit(vendor.http.post, path, headers=headers, **sent) for _ in range(ASKED)]
            began = time.monotonic()
            for _ in range(5):
                vendor.get("/v1/account", quick)
                time.sleep(0.05)
            assert holds(time.monotonic() - began, 15, "s")
            assert not any(each.done() for each in stuck)
            other.execute("ROLLBACK")
        assert {each.result().status_code for each in stuck} == answered


def test_who_reads_much_leaves_threads_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = str(tmp_path / "store")
    with LocalVendor(tmp_path, batch_store=store) as vendor, ThreadPoolExecutor(ASKED) as pool:
        leave_few_threads(vendor)
        greedy, quick = vendor.another_key(vendor.key(), Scope.ADMIN), vendor.key()
        headers = {"authorization": f"Bearer {greedy}", "cookie": signed_in(vendor, greedy).cookie}
        monkeypatch.setattr("vendor_service.http.history_rate.BURST", 1000.0)
        for path, (owner, name) in READS.items():
            go, begun = threading.Event(), threading.Event()
            with monkeypatch.context() as held:
                held.setattr(owner, name, _waiting(getattr(owner, name), begun, go))
                reads = [pool.submit(vendor.http.get, path, headers=headers) for _ in range(ASKED)]
                assert begun.wait(20)
                try:
                    for _ in range(3):
                        vendor.get("/v1/models", quick)
                        time.sleep(0.02)
                    assert not any(each.done() for each in reads), path
                finally:
                    go.set()
                expected = 404 if "none" in path else 200
                assert {each.result().status_code for each in reads} == {expected}, path


def _waiting(function: Callable[..., Any], begun: threading.Event, go: threading.Event) -> Callable[..., Any]:
    def wait(*args: Any, **kwargs: Any) -> Any:
        begun.set()
        assert go.wait(60)
        return function(*args, **kwargs)

    return wait
