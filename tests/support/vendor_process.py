"""The real vendor as a real process, for tests that need one to talk to, to kill and to start again."""

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.billing import QuotaPeriod
from shared.kinds import KINDS
from tests.support.forking import ForkedCommand
from vendor_service.accounts.accounts import Terms, open_account
from vendor_service.accounts.keys import DEFAULT_SCOPES, KeyTerms, Scope, issue_key, revoke_key
from vendor_service.clock import system_clock
from vendor_service.database.session import Database
from vendor_service.database.tables import Account, ApiKey, Hold, LedgerEntry
from vendor_service.money.verification import verify

_READY = re.compile(r"ready on (http://\S+:\d+)")
_OPERATORS = re.compile(r"operators on (http://[^)]+)")
_STOP_SECONDS = 40.0


@dataclass(frozen=True)
class Charges:
    """The charges of an account: sums over its ledger, and how many there are."""

    entries: int
    images: int
    texts: int
    cost_micros: int

    @property
    def queries(self) -> int:
        return self.images + self.texts


def int8_options(folder: Path, calibration: Path, source: str = "icon-clip") -> tuple[str, str]:
    """The options by which a vendor serves a model in int8; `folder` gets its file of models."""
    file, name = folder / "int8.toml", source.rpartition("/")[2]
    said = f'dtype = "int8"\ncalibration = "{calibration}"\ndefault = true'
    file.write_text(f'[[model]]\nid = "{name}"\nsource = "{source}"\n{said}\n')
    return "--models", str(file)


class VendorProcess:
    """`vendor serve` in a process group of its own, with its database and its log in `folder`.

    Use it as a context manager, or call `start` and, whatever happens, `stop` or `kill`. A second
    `start` takes the same port, which nobody else gets meanwhile, and the same database. `options` are those
    of `vendor serve`. Its books are in SQLite unless it is given the URL of another database. The model
    computes on so many `threads`. It may have so many `descriptors`, if not as many as the tests. Where it is
    `forked`, as in tests, it starts in a second, from a process that has imported what it needs; that has
    one thread.
    """

    forked = False

    def __init__(
        self,
        folder: Path,
        *options: str,
        database_url: str | None = None,
        threads: int = 1,
        descriptors: int | None = None,
    ) -> None:
        self.log = folder / "vendor.log"
        self.url = ""
        self.admin_url = ""
        self.database_url = database_url or f"sqlite:///{folder / 'vendor.db'}"
        self._folder = folder
        self._options = options
        self._threads = threads
        self._descriptors = descriptors
        held = held_port()
        weakref.finalize(self, held.close)
        self._port = str(held.getsockname()[1])
        self._process: subprocess.Popen[str] | ForkedCommand | None = None

    def start(self) -> Self:
        """Start it and wait until it is ready."""
        arguments = ["serve", "--port", self._port, "--database-url", self.database_url, *self._options]
        # It reads no `.env` and no setting of whoever runs the tests.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("VENDOR_")}
        environment["OMP_NUM_THREADS"] = str(self._threads)
        if self.forked and self._threads == 1:
            self._process = ForkedCommand(
                "vendor_service.cli.main", arguments, self._folder, environment, self.log,
                descriptors=self._descriptors,
            )  # fmt: skip
        else:
            self._process = self._spawned(arguments, environment)
        assert self._process.stdout is not None
        told = self._process.stdout.readline()
        ready, operators = _READY.search(told), _OPERATORS.search(told)
        if ready is None:
            self.kill()
            raise AssertionError(f"the vendor did not start:\n{self.log.read_text()}")
        self.url = ready[1]
        self.admin_url = "" if operators is None else operators[1]
        return self

    def _spawned(self, arguments: list[str], environment: dict[str, str]) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", "from vendor_service.cli.main import main; main()", *arguments]
        if self._descriptors is not None:
            command = ["sh", "-c", f'ulimit -n {self._descriptors}; exec "$@"', "sh", *command]
        with self.log.open("a") as log:
            return subprocess.Popen(
                command,
                cwd=self._folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Which process it is."""
        assert self._process is not None
        return self._process.pid

    def stop(self) -> int:
        """Ask it to stop (SIGTERM) and wait until it has; its exit code."""
        return self._end(signal.SIGTERM)

    def interrupt(self) -> int:
        """Press Ctrl-C and wait until it has stopped; its exit code."""
        return self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it at once (SIGKILL), in the middle of whatever it does."""
        self._end(signal.SIGKILL)

    def kill_alone(self) -> None:
        """End it at once, and none of the processes that it has started."""
        assert self._process is not None
        self._process.kill()
        self.kill()

    def create_key(
        self,
        *,
        quota: int | None = None,
        quota_period: QuotaPeriod = "month",
        spend_limit_micros: int | None = None,
        credit_micros: int | None = None,
        queries_per_second: int | None = None,
        coverage_limit: int | None = None,
        scopes: frozenset[Scope] = DEFAULT_SCOPES,
    ) -> str:
        """Open one more account on these terms and issue a key to it."""
        terms = Terms(
            quota, quota_period, spend_limit_micros, credit_micros, queries_per_second, coverage_limit
        )
        with closing(Database(self.database_url)) as database, database.write() as session:
            account = open_account(session, f"account-{secrets.token_hex(8)}", terms, system_clock)
            return issue_key(session, account, KeyTerms(scopes=scopes), system_clock).api_key

    def replace_key(self, api_key: str) -> str:
        """Revoke a key, and issue another one to its account."""
        with closing(Database(self.database_url)) as database, database.write() as session:
            row = revoke_key(session, api_key.split("_")[1], system_clock)
            return issue_key(
                session, session.get_one(Account, row.account_id), KeyTerms(), system_clock
            ).api_key

    def set_plan(self, api_key: str, plan: str) -> None:
        """Have the account of this key buy at the prices of a plan."""
        with closing(Database(self.database_url)) as database, database.write() as session:
            key = session.get_one(ApiKey, api_key.split("_")[1])
            session.get_one(Account, key.account_id).plan = plan

    def charges(self, api_key: str) -> Charges:
        """The charges of this key's account, read from the database itself."""
        mine = select(ApiKey.account_id).where(ApiKey.id == api_key.split("_")[1]).scalar_subquery()
        charged = (LedgerEntry.kind == "charge", LedgerEntry.account_id == mine)
        with self._reading() as session:
            entries = session.execute(
                select(LedgerEntry.counts, LedgerEntry.amount_micros).where(*charged)
            ).all()
        images, texts = (sum(counts.get(kind, 0) for counts, _ in entries) for kind in KINDS)
        return Charges(len(entries), images, texts, -sum(amount for _, amount in entries))

    def problem(self, api_key: str) -> str | None:
        """The fault that `vendor ledger verify` finds in this key's account."""
        with self._reading() as session:
            key = session.get_one(ApiKey, api_key.split("_")[1])
            return verify(session, session.get_one(Account, key.account_id)).problem

    def open_holds(self) -> int:
        """How many requests are admitted but neither charged nor released, over all accounts."""
        with self._reading() as session:
            return session.scalar(select(func.count()).where(Hold.state == "open")) or 0

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        with closing(Database(self.database_url)) as database, database.read() as session:
            yield session

    def _end(self, sent: signal.Signals) -> int:
        assert self._process is not None
        if self._process.poll() is None:
            os.killpg(self._process.pid, sent)
        code = end_of(self._process, _STOP_SECONDS)
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


def end_of(process: "subprocess.Popen[str] | ForkedCommand", seconds: float) -> int:
    """Wait for the end of a process that leads a group of its own; its exit code.

    Raises:
        subprocess.TimeoutExpired: it went on for longer than that, and was killed.
    """
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(seconds)
        raise


def resident_bytes(pid: int, line: str = "VmRSS") -> int:
    """The memory of a process; as `RssAnon`, what no file backs of it; as `VmHWM`, its peak."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(status.partition(f"{line}:")[2].split()[0])


def forget_peak(pid: int) -> int:
    """Have the `VmHWM` of a process begin anew, with what it has in memory now; that is returned."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return resident_bytes(pid, "VmHWM")


def below(pid: int) -> list[int]:
    """The processes that a process has started, and those that these have."""
    parents = {}
    for each in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = each.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            parents[int(each.parent.name)] = int(parent)
    found = [child for child, parent in parents.items() if parent == pid]
    return found + [each for child in found for each in below(child)]


def alive(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def held_port() -> socket.socket:
    """A free port of 127.0.0.1 that a server may listen on, and that nobody is given while this is open."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until something that is bound to happen has happened."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {seconds} s"
        time.sleep(0.02)
