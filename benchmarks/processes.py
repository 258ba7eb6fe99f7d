"""What several vendor processes on one PostgreSQL do beside one of them, each with a part of a core.

    sudo make bench-processes

On two cores, two processes would wait for each other, for the database and for the callers. So the kernel
gives each process the same small part of a core (Linux's control groups, which want root), and the rest is
for the database and the callers. What then keeps two processes from twice the work of one is what they
share: the books. Texts are charged and signed; the encoder answers at once (benchmarks/money.py).
"""

import argparse
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from benchmarks.money import Served, served, text, throughput
from tests.support.postgres import started_postgres

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
    arguments = parser.parse_args()
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
