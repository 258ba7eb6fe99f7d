"""What does a good customer notice of an attack by another, or by nobody? (`make bench-attacks`)

A good customer asks one text, then 32 images, then one text again, each as soon as the last is answered,
beside each attack of benchmarks/attacks.py, on a vendor of its own. The yardstick is an honest customer who
asks 32 images or texts at a time on as many connections (16 at most) as the attack. An attack passes if the
good customer's 99th percentile is at most three times that beside the honest customer, for texts and for
images, and the good customer is never refused.

Attackers and vendor share the cores of this machine. What only burns the attacker's processor is not the
vendor's doing, so attackers send what was built beforehand, at the rate that they state, each in one process,
as the honest customer does; the result has the cores that they took. It reads Linux's /proc.
"""

import os
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar, Self

from benchmarks.attacks import Attack, honest
from benchmarks.barrage import AttackProcess, AttackResult, Keys
from benchmarks.bystander import GoodCustomer, LivezWatch, Waits, percentiles
from benchmarks.watching import Watch, session_bytes
from tests.support.long_history import write_history
from tests.support.postgres import Postgres, started_postgres
from tests.support.vendor_process import Charges, VendorProcess
from vendor_service.accounts.keys import KeyTerms, Scope, issue_key
from vendor_service.clock import system_clock
from vendor_service.database.session import Database
from vendor_service.database.tables import Account, ApiKey


@dataclass(frozen=True)
class Outcome:
    """What was seen of one attack; `livez` in seconds, `grown` in bytes."""

    BOUND: ClassVar[float] = 3.0

    attack: Attack
    waits: Waits
    livez: float
    grown: int
    result: AttackResult
    charged: Charges

    def ratio(self, yardstick: "Outcome") -> float:
        """How many times longer the slowest answers took than beside another, the worse of both kinds."""
        mine, others = (
            (percentiles(each.waits.texts)[1], percentiles(each.waits.images)[1])
            for each in (self, yardstick)
        )
        return max(one / other for one, other in zip(mine, others, strict=True))

    def passes(self, yardstick: "Outcome") -> bool:
        """Whether a good customer can live beside it."""
        return self.ratio(yardstick) <= self.BOUND and not self.waits.refused


def measure(attack: Attack, seconds: float, postgres: Postgres | None) -> Outcome:
    """Put a good customer beside one attack, on a fresh vendor with fresh books."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        url = postgres.create_database() if postgres else None
        vendor = VendorProcess(folder, "--migrate", database_url=url, threads=os.cpu_count() or 1).start()
        stack.callback(vendor.kill)  # it may have work left for minutes
        good_key = vendor.create_key(scopes=frozenset({Scope.ADMIN}))
        keys = Keys(good_key, vendor.create_key(quota=0), _suspended(vendor))
        if attack.entries:
            with closing(Database(vendor.database_url)) as database:
                write_history(database, keys.good.split("_")[1], attack.entries, system_clock())
        _issue(vendor, keys.good, attack.keys - 1)
        before = vendor.charges(keys.good)
        port = int(vendor.url.rpartition(":")[2])
        attacking = AttackProcess(attack.deed, port, keys)
        good = stack.enter_context(closing(GoodCustomer(port, vendor.create_key())))
        good.ask(min(seconds, 3.0))
        began = session_bytes(vendor.pid)
        with (
            attacking,
            LivezWatch(port) as livez,
            Watch(lambda: vendor.pid, 0.25, session_bytes) as memory,
        ):
            time.sleep(min(seconds, 1.0))
            waits = good.ask(seconds)
        after = vendor.charges(keys.good)
        charged = Charges(
            *(getattr(after, name) - getattr(before, name) for name in Charges.__dataclass_fields__)
        )
        most = max((sample.resident for sample in memory.samples), default=began)
    return Outcome(attack, waits, livez.worst, most - began, attacking.result, charged)


def _suspended(vendor: VendorProcess) -> str:
    """A key of an account that may buy nothing any more."""
    key = vendor.create_key()
    with closing(Database(vendor.database_url)) as database, database.write() as session:
        account_id = session.get_one(ApiKey, key.split("_")[1]).account_id
        session.get_one(Account, account_id).status = "suspended"
    return key


def _issue(vendor: VendorProcess, api_key: str, count: int) -> None:
    """Give the account of a key so many more."""
    with closing(Database(vendor.database_url)) as database, database.write() as session:
        account = session.get_one(Account, session.get_one(ApiKey, api_key.split("_")[1]).account_id)
        for _ in range(count):
            issue_key(session, account, KeyTerms(), system_clock)


class Comparison:
    """Attacks compared with honest customers on one kind of database, each on a fresh vendor.

    `seconds` is how long a good customer asks beside each.
    """

    def __init__(self, database: str, seconds: float) -> None:
        self._database = database
        self._seconds = seconds
        self._yardsticks: dict[int, Outcome] = {}
        self._stack = ExitStack()
        self._postgres: Postgres | None = None

    def __enter__(self) -> Self:
        if self._database == "postgresql":
            self._postgres = self._stack.enter_context(started_postgres())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def measure(self, attack: Attack) -> tuple[Outcome, Outcome]:
        """What came of it, and of an honest customer on as many connections, who is measured once.

        Where it did not pass, both are measured once more, and that counts: a machine that does something
        else for a moment looks like an attack.
        """
        peers = attack.peer_connections
        if peers not in self._yardsticks:
            self._yardsticks[peers] = measure(honest(peers), self._seconds, self._postgres)
        outcome = measure(attack, self._seconds, self._postgres)
        if not outcome.passes(self._yardsticks[peers]):
            self._yardsticks[peers] = measure(honest(peers), self._seconds, self._postgres)
            outcome = measure(attack, self._seconds, self._postgres)
        return outcome, self._yardsticks[peers]
