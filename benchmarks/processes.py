"""What several vendor processes on one PostgreSQL do beside one of them, each with a part of a core.

    sudo make bench-processes

On two cores, two processes would wait for each other, for the database and for the callers. So the kernel
gives each process the same small part of a core (Linux's control groups, which want root), and the rest is
for the database and the callers. What then keeps two processes from twice the work of one is what they
share: the books. Texts are charged and signed; the encoder answers at once (benchmarks/money.py).
"""

import argparse
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import httpx

from benchmarks.money import Served, served, text, throughput
from tests.support.postgres import started_postgres
from tests.support.vendor_process import VendorProcess

CONNECTIONS = (3, 4, 8, 16)
GROUPS = Path("/sys/fs/cgroup")
LEAST_QUOTA = 1_000  # microseconds; the shorter it is, the shorter who holds a lock is kept from a core


def main() -> None:
    """Measure, and print the table of docs/results.md."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--share", type=float, default=0.25, help="of a core, for each process")
    parser.add_argument("--callers", type=int, default=16, help="of each process")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--workers", action="store_true", help="of one `vendor serve`, and how they share")
    arguments = parser.parse_args()
    if arguments.workers:
        measure_workers(arguments.processes, arguments.share, arguments.rounds, arguments.seconds)
        return
    print("| asked by | one process, texts/s | all | times as many |")
    print("|---|---|---|---|")
    with ExitStack() as stack:
        url = stack.enter_context(started_postgres()).create_database()
        vendors = [
            stack.enter_context(served(url, account=f"bench-{number}"))
            for number in range(arguments.processes)
        ]
        for vendor in vendors:
            stack.enter_context(confined(vendor.pid, arguments.share))
        one_account = [Served(vendor.port, vendors[0].key, vendor.pid) for vendor in vendors]
        for asked_by, asked in (("an account each", vendors), ("one account", one_account)):
            alone, together = [], []
            for _ in range(arguments.rounds):
                alone.append(answered(asked[:1], arguments.callers, arguments.seconds))
                together.append(answered(asked, arguments.callers, arguments.seconds))
            ratio = median(every / one for every, one in zip(together, alone, strict=True))
            print(f"| {asked_by} | {median(alone):.1f} | {median(together):.1f} | {ratio:.2f} |", flush=True)


def measure_workers(count: int, share: float, rounds: int, seconds: float) -> None:
    """Print what `--workers` of a part of a core each answer beside one, and how connections are shared.

    Two can do twice the work of one only where one has no time left: `busy` is the share of its part of a
    core that a worker used. Where it is far below 1, callers wait for the books, and not for the worker.
    """
    rates: dict[int, dict[int, list[float]]] = {}
    busy: dict[int, dict[int, float]] = {}
    spread: dict[int, list[int]] = {}
    for workers in (1, count):
        rates[workers], busy[workers] = {connections: [] for connections in CONNECTIONS}, {}
        with ExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory()))
            url = stack.enter_context(started_postgres()).create_database()
            options = ("--migrate", "--workers", str(workers), "--log-format", "json")
            vendor = stack.enter_context(VendorProcess(folder, *options, database_url=url))
            asked = Served(int(vendor.url.rpartition(":")[2]), vendor.create_key(), vendor.pid)
            pids = [*map(int, re.findall(r'"pid": (\d+)', vendor.log.read_text()))] or [vendor.pid]
            for pid in pids:
                stack.enter_context(confined(pid, share))
            for connections in CONNECTIONS:
                before, used, began = by_worker(vendor.url), processor_seconds(pids), time.monotonic()
                for _ in range(rounds):
                    rates[workers][connections].append(throughput(asked, text(), connections, seconds))
                whole = share * workers * (time.monotonic() - began)
                busy[workers][connections] = (processor_seconds(pids) - used) / whole
                spread[connections] = sorted((by_worker(vendor.url) - before).values())
    one, several = sorted(rates)
    print(
        f"| connections | {one} worker, texts/s | busy | {several} | busy | times as many | of each worker |"
    )
    print("|---|---|---|---|---|---|---|")
    for connections in CONNECTIONS:
        alone, together = (median(rates[each][connections]) for each in (one, several))
        shares = ", ".join(f"{each:,}" for each in spread[connections])
        times, (first, all_) = together / alone, (busy[each][connections] for each in (one, several))
        found = f"{alone:.1f} | {first:.2f} | {together:.1f} | {all_:.2f} | {times:.2f} | {shares}"
        print(f"| {connections} | {found} |")


def processor_seconds(pids: Sequence[int]) -> float:
    """What these processes, with all their threads, have used of processors."""
    fields = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids)
    return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


def by_worker(url: str) -> Counter[str]:
    """Answered requests, by worker."""
    told = httpx.get(f"{url}/metrics").text
    found = re.findall(r'^tuition_requests_total\{(.*route="/embed".*)\} (\S+)$', told, re.MULTILINE)
    counts: Counter[str] = Counter()
    for labels, value in found:
        worker = re.search(r'worker="(\d+)"', labels)
        counts["0" if worker is None else worker[1]] += int(float(value))
    return counts


def answered(vendors: Sequence[Served], callers: int, seconds: float) -> float:
    """Texts a second of all these vendors, which are asked at once."""
    with ThreadPoolExecutor(len(vendors)) as pool:
        return sum(pool.map(lambda vendor: throughput(vendor, text(), callers, seconds), vendors))


@contextmanager
def confined(pid: int, share: float) -> Iterator[None]:
    """Give a process and its threads this `share` of a core at most.

    Raises:
        SystemExit: this machine's kernel, or who runs this, does not allow that.
    """
    period = round(LEAST_QUOTA / share)
    first = GROUPS / "cpu" if (GROUPS / "cpu").is_dir() else GROUPS  # version 1 of control groups, or 2
    group = first / f"tuition-{os.getpid()}-{pid}"
    try:
        group.mkdir()
        if first is GROUPS:
            (group / "cpu.max").write_text(f"{LEAST_QUOTA} {period}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(period))
            (group / "cpu.cfs_quota_us").write_text(str(LEAST_QUOTA))
        (group / "cgroup.procs").write_text(str(pid))
    except OSError as error:
        raise SystemExit(f"A process cannot be given a part of a core here: {error}") from error
    try:
        yield
    finally:
        (first / "cgroup.procs").write_text(str(pid))
        group.rmdir()


if __name__ == "__main__":
    main()
