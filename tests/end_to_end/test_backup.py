"""Backup and restore as docs/operations.md says, of a vendor that is selling meanwhile."""

import json
import os
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest
from sqlalchemy import select

from tests.support.forking import ForkedCommand
from tests.support.postgres import PROGRAMS, Postgres
from tests.support.vendor_process import VendorProcess, wait_until
from vendor_service.database.session import Database
from vendor_service.database.tables import LedgerEntry

CALLERS = 4

Entries = dict[int, str]
Copy = Callable[[str, str], None]  # from the URL of the books to that of a copy


def run_vendor(*arguments: str | Path, database_url: str) -> tuple[int, str, str]:
    """Run a `vendor` command as an operator would beside a server: its exit code, and both its streams."""
    words = [*map(str, arguments), "--database-url", database_url]
    with TemporaryDirectory() as folder:
        log = Path(folder, "stderr")
        log.touch()
        process = ForkedCommand("vendor_service.cli.main", words, Path(folder), os.environ, log)
        printed, said = process.communicate()
        return process.wait(), printed, said


def vendor_command(*arguments: str, database_url: str) -> str:
    """What a `vendor` command prints that comes to its good end."""
    code, printed, said = run_vendor(*arguments, database_url=database_url)
    assert code == 0, said
    return printed


def copy_sqlite(source: str, target: str) -> None:
    vendor_command("db", "backup", target.removeprefix("sqlite:///"), database_url=source)


def copy_postgres(source: str, target: str) -> None:
    dumped = subprocess.run(
        [PROGRAMS / "pg_dump", "--format=custom", source], capture_output=True, check=True
    )
    options = ["--no-owner", "--exit-on-error", "--single-transaction", f"--dbname={target}"]
    subprocess.run([PROGRAMS / "pg_restore", *options], input=dumped.stdout, capture_output=True, check=True)


def entries(database_url: str) -> Entries:
    """The hash of each entry of the ledger, by its place in it."""
    with closing(Database(database_url)) as database, database.read() as session:
        found = session.execute(select(LedgerEntry.seq, LedgerEntry.entry_hash))
        return {seq: entry_hash for seq, entry_hash in found}  # noqa: C416


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def books(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str, Copy]:
    """The URLs of the books and of the place for a copy of them, and what copies them."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'books.db'}", f"sqlite:///{tmp_path / 'copy.db'}", copy_sqlite
    server: Postgres = request.getfixturevalue("postgres")
    return server.create_database(), server.create_database(), copy_postgres


def test_a_copy_of_books_in_use_is_whole_and_can_be_sold_from(
    books: tuple[str, str, Copy], tmp_path: Path
) -> None:
    live, copied, copy = books
    over = threading.Event()
    with VendorProcess(tmp_path, "--migrate", database_url=live) as vendor:
        key = vendor.create_key()

        def buy(caller: int) -> None:
            headers = {"authorization": f"Bearer {key}"}
            number = 0
            with httpx.Client(base_url=vendor.url, headers=headers, timeout=60) as http:
                while not over.is_set():
                    number += 1
                    body = {"inputs": [{"text": f"{caller} {number}"}]}
                    assert http.post("/embed", json=body).status_code == 200

        with ThreadPoolExecutor(CALLERS) as pool:
            buying = [pool.submit(buy, caller) for caller in range(CALLERS)]
            try:
                wait_until(lambda: vendor.charges(key).entries > 20)
                copy(live, copied)
                done = vendor.charges(key).entries
                wait_until(lambda: vendor.charges(key).entries > done)
            finally:
                over.set()
            for each in buying:
                each.result()
    kept, later = entries(copied), entries(live)
    assert 20 < len(kept) < len(later)
    assert kept.items() <= later.items()
    (found,) = json.loads(vendor_command("ledger", "verify", "--json", database_url=copied))
    assert found["problem"] is None
    with VendorProcess(tmp_path, "--migrate", database_url=copied) as restored:
        headers = {"authorization": f"Bearer {key}"}
        body = {"inputs": [{"text": "a cat"}]}
        answer = httpx.post(f"{restored.url}/embed", json=body, headers=headers, timeout=30)
        assert answer.status_code == 200
        wait_until(lambda: restored.open_holds() == 0, seconds=40)
        assert restored.charges(key).entries == len(kept) + 1
        assert restored.problem(key) is None


def test_a_backup_takes_the_place_of_no_file_and_of_no_other_tool(postgres: Postgres, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("something")
    embedded, served = f"sqlite:///{tmp_path / 'books.db'}", postgres.create_database()
    for url in (embedded, served):
        vendor_command("db", "upgrade", database_url=url)
    for file, url, says in (
        (tmp_path / "there", embedded, "already"),
        (tmp_path / "new", served, "pg_dump"),
        (tmp_path / "no folder" / "new", embedded, "cannot be written"),
    ):
        code, _, said = run_vendor("db", "backup", file, database_url=url)
        assert code in (1, 2)
        assert says in said
    assert (tmp_path / "there").read_text() == "something"
