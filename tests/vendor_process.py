"""The real vendor as a real process, for tests that need one to talk to, to kill and to start again."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from shared.billing import QuotaPeriod
from vendor_service.accounts.accounts import Terms, open_account
from vendor_service.accounts.keys import KeyTerms, issue_key
from vendor_service.clock import system_clock
from vendor_service.database.session import Database

_READY = re.compile(r"ready on (http://\S+:(\d+))")
_STOP_SECONDS = 40.0


@dataclass(frozen=True)
class Charges:
    """What an account was charged: sums over its ledger's charges, and how many there are."""

    entries: int
    images: int
    texts: int
    cost_micros: int

    @property
    def queries(self) -> int:
        return self.images + self.texts


class VendorProcess:
    """`vendor serve` in a process group of its own, with its database and its log in `folder`.

    Use it as a context manager, or call `start` and, whatever happens, `stop` or `kill`. A second
    `start` takes the same port and the same database. `options` are those of `vendor serve`.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.log = folder / "vendor.log"
        self.url = ""
        self._database_file = folder / "vendor.db"
        self._folder = folder
        self._options = options
        self._port = "0"
        self._process: subprocess.Popen[str] | None = None
        self._accounts = 0

    @property
    def database_url(self) -> str:
        """Where its books are, as `--database-url` takes it."""
        return f"sqlite:///{self._database_file}"

    def start(self) -> Self:
        """Start it and wait until it is ready."""
        command = [sys.executable, "-c", "from vendor_service.cli import main; main()", "serve"]
        options = ["--port", self._port, "--database-url", self.database_url, *self._options]
        # It reads no `.env` and no setting of whoever runs the tests.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("VENDOR_")}
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [*command, *options],
                cwd=self._folder,
                env=environment | {"OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        assert self._process.stdout is not None
        ready = _READY.search(self._process.stdout.readline())
        if ready is None:
            self.kill()
            raise AssertionError(f"the vendor did not start:\n{self.log.read_text()}")
        self.url, self._port = ready.groups()
        return self

    def stop(self) -> int:
        """Ask it to stop (SIGTERM) and wait until it has; its exit code."""
        return self._end(signal.SIGTERM)

    def interrupt(self) -> int:
        """Press Ctrl-C and wait until it has stopped; its exit code."""
        return self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it at once (SIGKILL), in the middle of whatever it does."""
        self._end(signal.SIGKILL)

    def create_key(
        self,
        *,
        quota: int | None = None,
        quota_period: QuotaPeriod = "month",
        spend_limit_micros: int | None = None,
        credit_micros: int | None = None,
        queries_per_second: int | None = None,
    ) -> str:
        """Open one more account on these terms and issue a key to it."""
        terms = Terms(quota, quota_period, spend_limit_micros, credit_micros, queries_per_second)
        self._accounts += 1
        with closing(Database(self.database_url)) as database, database.write() as session:
            account = open_account(session, f"account-{self._accounts}", terms, system_clock)
            return issue_key(session, account, KeyTerms(), system_clock).api_key

    def charges(self, api_key: str) -> Charges:
        """What the account of this key was charged, read from the database itself."""
        row = self._read(
            "SELECT count(*), total(images), total(texts), total(-amount_micros) FROM ledger_entries "
            "WHERE kind = 'charge' AND account_id = (SELECT account_id FROM api_keys WHERE id = ?)",
            api_key.split("_")[1],
        )
        return Charges(*map(int, row))

    def open_holds(self) -> int:
        """How many requests are admitted but neither charged nor released, over all accounts."""
        return int(self._read("SELECT count(*) FROM holds WHERE state = 'open'")[0])

    def _read(self, query: str, *parameters: str) -> tuple[Any, ...]:
        with closing(sqlite3.connect(self._database_file)) as connection:
            row: tuple[Any, ...] = connection.execute(query, parameters).fetchone()
            return row

    def _end(self, sent: signal.Signals) -> int:
        assert self._process is not None
        if self._process.poll() is None:
            os.killpg(self._process.pid, sent)
        code = self._process.wait(_STOP_SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until something that is bound to happen has happened."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {seconds} s"
        time.sleep(0.02)
