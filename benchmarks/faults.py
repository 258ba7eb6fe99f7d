"""What do customers notice of faults? Each is done to real vendors under load; then the books judge.

    make bench-faults

Meanwhile `client embed` buys images, and six callers of two accounts ask for texts and images, each request
under an idempotency key until it is answered. The fault is repeated until the client is done. Caddy, which
`pip install '.[dev]'` brings, stands before the two vendors that are restarted in turn, with the Caddyfile of
docs/operations.md.
"""

import argparse
import os
import random
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from benchmarks.customers import Customer, Receipt, judge
from benchmarks.exactly_once import write_images
from benchmarks.load_generator import LoadGenerator
from benchmarks.watching import Watch
from client.cache.cache import EmbeddingCache
from tests.end_to_end.command import Command
from tests.support.caddy import started_caddy
from tests.support.postgres import started_postgres
from tests.support.vendor_process import VendorProcess, wait_until

SMALL_DISK = 48 * 2**20  # bytes
SLOW, FLOOD = 200, 3000  # connections
HEAD = b"POST /embed HTTP/1.1\r\nhost: bench\r\n"

Fault = Callable[[random.Random], None]  # does it once, and undoes it


@dataclass(frozen=True)
class Scene:
    """One fault: its name, the vendors that it is done to, where customers ask, and how often it is done."""

    name: str
    vendors: Sequence[VendorProcess]
    url: str
    fault: Fault
    pause: float  # seconds between two


def suffer(scene: Scene, folder: Path, images: int) -> None:
    """Do it again and again while customers buy; print a row of the table, and fail if books are wrong."""
    books = scene.vendors[0]
    client = Command(folder, scene.url, books.create_key(quota=images))
    with ExitStack() as stack:
        customers = [stack.enter_context(Customer(scene.url, books.create_key())) for _ in range(2)]
        watches = [stack.enter_context(Watch(partial(getattr, each, "pid"), 0.1)) for each in scene.vendors]
        load = LoadGenerator(customers)
        with load.asking():
            times = _repeat_while_buying(scene, client)
        buyer = stack.enter_context(Customer(scene.url, client.api_key))
        with EmbeddingCache(folder / "cache.db") as cache:
            assert not cache.notes.of_run()
            for each in cache.receipts():
                buyer.receipts[each.request_id] = Receipt(each.queries, each.cost_micros)
        bought = sum(each.queries for each in buyer.receipts.values())
        verdict = judge(books, [*customers, buyer])
    answers = sum((each.answers for each in customers), Counter[str]())
    answered = answers.pop("served", 0) + answers.pop("replayed", 0)
    refused = ", ".join(f"{count} {code}" for code, count in answers.most_common()) or "-"
    peak = max(sample.resident for watch in watches for sample in watch.samples) / 1e6
    row = (scene.name, times, answered, refused, load.cut, f"{load.longest:.1f}", f"{peak:.0f}", bought)
    print(f"| {' | '.join(map(str, row))} | {verdict} |", flush=True)
    assert verdict.exact
    assert bought == images


def _repeat_while_buying(scene: Scene, client: Command) -> int:
    """Do it until `client embed` has ended well; how often that was."""
    dice, times = random.Random(scene.name), 0
    buying = client.start("embed", "--images", "../images", "--out", "out.npy", "--yes")
    try:
        while buying.poll() is None:
            scene.fault(dice)
            times += 1
            with suppress(subprocess.TimeoutExpired):
                buying.wait(scene.pause)
    finally:
        buying.kill()
        _, told = buying.communicate()
    assert buying.returncode == 0, told
    return times


def restarted_database(folder: Path, stack: ExitStack) -> Scene:
    """PostgreSQL is shut down, and started up to three seconds later."""

    def restart(dice: random.Random) -> None:
        postgres.stop()
        time.sleep(dice.uniform(0, 3))
        postgres.start()

    postgres = stack.enter_context(started_postgres())
    vendor = _vendor(folder, stack, postgres.create_database())
    return Scene("PostgreSQL restarted", [vendor], vendor.url, restart, pause=5)


def full_disk(folder: Path, stack: ExitStack) -> Scene:
    """The disk of SQLite's books is full for three seconds.

    Raises:
        SystemExit: this user may not mount a small disk.
    """

    def fill(_: random.Random) -> None:
        filler = disk / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        time.sleep(3)
        filler.unlink()

    disk = folder / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", str(disk)]
    if subprocess.run(command, check=False).returncode:
        raise SystemExit("only root may mount a small disk to fill; run this as root, in a container say")
    stack.callback(subprocess.run, ["umount", str(disk)], check=True)
    vendor = _vendor(folder, stack, f"sqlite:///{disk / 'vendor.db'}")
    return Scene("disk full for 3 s", [vendor], vendor.url, fill, pause=5)


def slow_clients(folder: Path, stack: ExitStack) -> Scene:
    """Another customer sends many bodies, each a byte every half second."""

    def trickle(_dice: random.Random) -> None:
        head = f"authorization: Bearer {key}\r\ncontent-length: 100000\r\n\r\n".encode()
        with _connected(vendor.url, SLOW) as connections:
            for each in connections:
                each.sendall(HEAD + head)
            for _ in range(20):
                time.sleep(0.5)
                for each in connections:
                    with suppress(ConnectionError):  # refused meanwhile
                        each.sendall(b" ")

    vendor = _vendor(folder, stack)
    key = vendor.create_key()
    return Scene(f"{SLOW} slow bodies", [vendor], vendor.url, trickle, pause=1)


def flood(folder: Path, stack: ExitStack) -> Scene:
    """Thousands of connections are opened, and ask half of a request or nothing."""

    def pour(_: random.Random) -> None:
        with _connected(vendor.url, FLOOD) as connections:
            for each in connections[::2]:
                with suppress(ConnectionError):
                    each.sendall(HEAD)
            time.sleep(3)

    vendor = _vendor(folder, stack)
    return Scene(f"{FLOOD} idle connections", [vendor], vendor.url, pour, pause=1)


def rolling_restart(folder: Path, stack: ExitStack) -> Scene:
    """Two vendors behind Caddy are stopped by SIGTERM and started again, one after the other."""

    def restart(_: random.Random) -> None:
        vendor = next(turns)
        assert vendor.stop() == 0
        vendor.start()
        time.sleep(4)  # the proxy looks every two seconds

    database_url = stack.enter_context(started_postgres()).create_database()
    vendors = []
    for name in ("one", "two"):
        (folder / name).mkdir()
        vendors.append(_vendor(folder / name, stack, database_url))
    turns = cycle(vendors)
    url = stack.enter_context(started_caddy([each.url for each in vendors]))
    wait_until(lambda: httpx.get(f"{url}/livez").is_success)
    return Scene("two vendors restarted in turn", vendors, url, restart, pause=0.1)


SCENES = (restarted_database, full_disk, slow_clients, flood, rolling_restart)


def _vendor(folder: Path, stack: ExitStack, database_url: str | None = None) -> VendorProcess:
    threads = os.cpu_count() or 1
    return stack.enter_context(VendorProcess(folder, "--migrate", database_url=database_url, threads=threads))


@contextmanager
def _connected(url: str, count: int) -> Iterator[list[socket.socket]]:
    """So many connections, each to itself."""
    address = ("127.0.0.1", int(url.rpartition(":")[2]))
    with ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection(address, timeout=30)) for _ in range(count)]


def main() -> None:
    """Do one fault after the other, and print the table of docs/results.md."""
    names = [scene.__name__ for scene in SCENES]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000, help="that the client buys during each")
    parser.add_argument("--only", choices=names, action="append", help="one of the faults, not all")
    options = parser.parse_args()
    columns = "fault | times | answered | refused | cut | longest s | peak MB | client bought | books"
    print(f"| {columns} |\n|{'---|' * len(columns.split('|'))}", flush=True)
    with TemporaryDirectory() as name:
        write_images(Path(name) / "images", options.images)
        for scene in SCENES:
            if options.only is None or scene.__name__ in options.only:
                folder = Path(name) / scene.__name__
                folder.mkdir()
                with ExitStack() as stack:
                    suffer(scene(folder, stack), folder, options.images)


if __name__ == "__main__":
    main()
