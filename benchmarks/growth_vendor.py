"""A vendor by how many accounts it has, and by how many models it sells.

Each account has a key and ten charges of the month before. Models are tiny and random, so that what is
measured is what the vendor does for a model and not the model. `benchmarks/growth.py` runs this.
"""

import random
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from sqlalchemy import select

from benchmarks.costs import Cost, once, whole
from benchmarks.watching import session_bytes
from tests.support.long_history import write_history
from tests.support.tiny_clip import write_tiny_clip
from tests.support.vendor_process import VendorProcess
from tests.vendor_service.console.visits import Visit
from vendor_service.accounts.accounts import Terms, open_account
from vendor_service.accounts.keys import KeyTerms, issue_key
from vendor_service.acts import operators
from vendor_service.acts.act import Act, OperatorScope
from vendor_service.acts.verification import LedgerVerifier
from vendor_service.clock import DAY, month_of, month_start, system_clock
from vendor_service.database import schema
from vendor_service.database.session import Database
from vendor_service.database.tables import Account
from vendor_service.money import invoices

_CHARGES = 10
_ASKED = 100  # texts that are bought, by accounts drawn at random
_LOOKS = 15  # as often as one key may look at its account at once
_PAGE = 1_000


def invoicing(count: int, folder: Path) -> Iterator[Cost]:
    """The invoices of a month for so many accounts, on SQLite."""
    with TemporaryDirectory(dir=folder) as own:
        copy = shutil.copy(_books(count, folder), own)
        with closing(Database(f"sqlite:///{copy}")) as database:
            yield whole("invoices of a month", partial(_issue, database))[0]


def verification(count: int, folder: Path) -> Iterator[Cost]:
    """The verification of so many accounts that have their invoices."""
    file = folder / f"invoiced-{count}.db"
    if not file.exists():
        shutil.copy(_books(count, folder), file)
    with closing(Database(f"sqlite:///{file}")) as database:
        _issue(database)
        cost, found = whole("verification of all", LedgerVerifier(database).verify)
    assert not any(each.problem for each in found)
    yield cost


def accounts(count: int, folder: Path) -> Iterator[Cost]:
    """A vendor with so many accounts."""
    with TemporaryDirectory(dir=folder) as own:
        url = f"sqlite:///{shutil.copy(_books(count, folder), own)}"
        with closing(Database(url)) as database, database.write() as session:
            act = Act(session, "os:growth", system_clock)
            token = operators.issue(act, "growth", [OperatorScope.ALL]).token
            asking = random.Random(0).choices(session.scalars(select(Account)).all(), k=_ASKED)
            keys = [issue_key(session, each, KeyTerms(), system_clock).api_key for each in asking]
        model = write_tiny_clip(Path(own, "tiny"), 0)
        vendor = VendorProcess(Path(own), "--model", model, "--admin-port", "0", database_url=url)
        with vendor, httpx.Client(base_url=vendor.url, timeout=60) as http:
            yield from _asked_by_customers(http, keys, vendor)
            metrics = once("metrics", lambda: http.get("/metrics").raise_for_status())
            yield replace(metrics, flat=False)  # of all accounts they name the 200 that spent most
            with httpx.Client(base_url=vendor.admin_url, timeout=300) as admin:
                yield from _asked_by_operators(admin, token)


def models(count: int, folder: Path) -> Iterator[Cost]:
    """A vendor that sells so many models."""
    with TemporaryDirectory(dir=folder) as own:
        tables = [
            f'[[model]]\nid = "tiny-{number}"\nsource = "{write_tiny_clip(Path(own, str(number)), number)}"\n'
            f'device = "cpu"\n{"default = true" * (number == 0)}\n'
            for number in range(count)
        ]
        file = Path(own, "models.toml")
        file.write_text("".join(tables))
        vendor = VendorProcess(Path(own), "--models", str(file))
        began = time.perf_counter()
        vendor.start()
        try:
            yield Cost("start", time.perf_counter() - began)
            authorization = {"authorization": f"Bearer {vendor.create_key()}"}
            with httpx.Client(base_url=vendor.url, timeout=60, headers=authorization) as http:
                listed = once("list of models", lambda: _got(http, "/v1/models"))
                yield replace(listed, flat=False)
                numbers = cycle(range(count))
                text = once("a text, of each in turn", lambda: _embed(http, f"tiny-{next(numbers)}"), 64)
                yield replace(text, bytes=session_bytes(vendor.pid))
        finally:
            vendor.stop()


def _books(count: int, folder: Path) -> Path:
    """The books of so many accounts with charges of last month, which are written if they are not there."""
    file = folder / f"accounts-{count}.db"
    if file.exists():
        return file
    new = file.with_suffix(".new")
    last_month = month_start(month_start(system_clock()) - 1)
    with closing(Database(f"sqlite:///{new}")) as database:
        schema.upgrade(database)
        with database.write() as session:
            opened = [
                open_account(session, f"account-{number:05}", Terms(10**9, "total"), lambda: last_month)
                for number in range(count)
            ]
            keys = [issue_key(session, each, KeyTerms(), system_clock).key_id for each in opened]
        for key_id in keys:
            write_history(database, key_id, _CHARGES, last_month + 20 * DAY)
    return new.rename(file)


def _issue(database: Database) -> None:
    invoices.close(database, month_of(month_start(system_clock()) - 1), system_clock())


def _asked_by_customers(http: httpx.Client, keys: list[str], vendor: VendorProcess) -> Iterator[Cost]:
    turns = cycle(keys)

    def get(path: str) -> None:
        _got(http, path, authorization=f"Bearer {next(turns)}")

    text = once("a text sold", lambda: _embed(http, None, authorization=f"Bearer {next(turns)}"), _ASKED)
    yield replace(text, bytes=session_bytes(vendor.pid))
    yield once("balance and limits", lambda: get("/v1/account"), _LOOKS)
    yield once("usage by day", lambda: get("/v1/usage"), _LOOKS)


def _asked_by_operators(admin: httpx.Client, token: str) -> Iterator[Cost]:
    authorization = f"Bearer {token}"

    def list_all() -> None:
        after = ""
        while found := _got(
            admin, f"/admin/accounts?limit={_PAGE}&after={after}", authorization=authorization
        ):
            after = found[-1]["account"]

    list_all()
    yield whole("list of all accounts", list_all)[0]
    visit = Visit(admin, "/operator")
    visit.sign_in(token=token)
    yield once("operators' overview", lambda: visit.page(), 10)
    yield once("operators' page of accounts", lambda: visit.page("/accounts"), 10)
    money = once("operators' page of money", lambda: visit.page("/money"), 10)
    yield replace(money, flat=False)  # it sums up all of them


def _got(http: httpx.Client, path: str, **headers: str) -> list[dict[str, str]]:
    answer = http.get(path, headers=headers).raise_for_status().json()
    return answer if isinstance(answer, list) else answer.get("data", [])


def _embed(http: httpx.Client, model: str | None, **headers: str) -> None:
    body = {"inputs": [{"text": "a photo of a cat"}]} | ({} if model is None else {"model": model})
    http.post("/embed", json=body, headers=headers).raise_for_status()
