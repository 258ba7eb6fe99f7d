"""Several real workers on one address: one set of books, one `/metrics`, and none that dies is missed."""

import json
import os
import re
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.commit_cutter import CUTS, CommitCutter
from tests.support.postgres import Postgres
from tests.support.vendor_process import VendorProcess, wait_until

pytestmark = pytest.mark.long

REQUESTS, QUOTA = 60, 35
SOLD = ("/embed", "200")


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VendorProcess]:
    """Two workers on SQLite; tests/end_to_end/test_money.py has two processes on PostgreSQL."""
    with VendorProcess(
        tmp_path_factory.mktemp("workers"), "--workers", "2", "--log-format", "json", "--admin-port", "0"
    ) as process:
        yield process


def ask(vendor: VendorProcess, key: str, idempotency_key: str | None = None) -> int:
    """The status of one request, on a connection of its own: any worker may take it."""
    headers = {"authorization": f"Bearer {key}"}
    if idempotency_key is not None:
        headers["idempotency-key"] = idempotency_key
    body = {"inputs": [{"text": "a cat"}]}
    return httpx.post(f"{vendor.url}/embed", json=body, headers=headers, timeout=60).status_code


def worker_pids(vendor: VendorProcess) -> list[int]:
    """The processes of the workers, in the order in which they were started."""
    lines = [json.loads(line) for line in vendor.log.read_text().splitlines() if line.startswith("{")]
    return [line["pid"] for line in lines if line["message"] == "worker started"]


def workers_stopped(vendor: VendorProcess) -> int:
    """How many workers say that they have stopped; the process that started them says so of all."""
    told = vendor.log.read_text()
    return told.count(" stopped") - told.count("the workers have stopped")


def answered_by_worker(vendor: VendorProcess) -> Counter[str]:
    """Successful answers of `POST /embed`, by worker."""
    told = httpx.get(f"{vendor.url}/metrics").text
    counts: Counter[str] = Counter()
    for family in text_string_to_metric_families(told):
        for sample in family.samples:
            labels = sample.labels
            if sample.name == "tuition_requests_total" and (labels["route"], labels["status"]) == SOLD:
                counts[labels["worker"]] += int(sample.value)
    return counts


def test_workers_share_a_quota_and_are_counted_together(vendor: VendorProcess) -> None:
    key = vendor.create_key(quota=QUOTA)
    before = answered_by_worker(vendor)
    with ThreadPoolExecutor(24) as pool:
        statuses = Counter(pool.map(lambda _: ask(vendor, key), range(REQUESTS)))
    assert statuses == {200: QUOTA, 402: REQUESTS - QUOTA}
    assert vendor.charges(key).queries == QUOTA
    assert vendor.problem(key) is None
    answered = answered_by_worker(vendor) - before
    assert answered.total() == QUOTA
    assert set(answered) == {"0", "1"}


def test_processes_say_in_ps_what_they_are(vendor: VendorProcess) -> None:
    shown = {Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0") for pid in worker_pids(vendor)}
    assert shown == {b"vendor worker 0", b"vendor worker 1"}
    every = {each.read_text().strip() for each in Path("/proc").glob("[0-9]*/comm") if each.exists()}
    assert {"vendor worker 1", "vendor admin pr", "tuition inputs"} <= every


@pytest.mark.parametrize("connections", [3, 4, 8, 16])
def test_connections_that_are_kept_are_spread_evenly(vendor: VendorProcess, connections: int) -> None:
    key, before = vendor.create_key(), answered_by_worker(vendor)
    time.sleep(0.2)  # until all is closed that was open a moment before
    headers, body = {"authorization": f"Bearer {key}"}, {"inputs": [{"text": "a cat"}]}
    with ExitStack() as stack, ThreadPoolExecutor(connections) as pool:
        clients = [stack.enter_context(httpx.Client(timeout=60, headers=headers)) for _ in range(connections)]
        for _ in range(3):
            answers = pool.map(lambda each: each.post(f"{vendor.url}/embed", json=body), clients)
            assert {each.status_code for each in answers} == {200}
        answered = answered_by_worker(vendor) - before
    fewest, most = sorted(answered.values())
    assert fewest + most == 3 * connections
    assert most - fewest <= 3 * (1 + connections % 2)


def test_a_rate_limit_holds_over_all_workers(vendor: VendorProcess) -> None:
    key = vendor.create_key(queries_per_second=1)
    began = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        statuses = Counter(pool.map(lambda _: ask(vendor, key), range(40)))
    # A burst of ten, and what the bucket gains while they run.
    assert 10 <= statuses[200] <= 11 + (time.monotonic() - began)
    assert statuses[200] + statuses[429] == 40


def test_a_killed_worker_is_replaced_and_takes_nothing_of_its_sibling_along(vendor: VendorProcess) -> None:
    key = vendor.create_key()
    known = worker_pids(vendor)
    statuses: Counter[int] = Counter()

    def buy(_: int) -> None:
        try:
            statuses[ask(vendor, key)] += 1
        except httpx.TransportError:
            statuses[0] += 1

    with ThreadPoolExecutor(8) as pool:
        buying = [pool.submit(buy, number) for number in range(100)]
        wait_until(lambda: statuses[200] > 20, seconds=30)
        os.kill(known[-1], signal.SIGKILL)
        for each in buying:
            each.result()
    wait_until(lambda: len(worker_pids(vendor)) == len(known) + 1, seconds=30)
    assert set(statuses) <= {0, 200}
    assert statuses[0] <= 8
    wait_until(lambda: vendor.open_holds() == 0, seconds=40)
    assert statuses[200] <= vendor.charges(key).queries <= statuses[200] + statuses[0]
    assert vendor.problem(key) is None


@pytest.mark.slow
def test_workers_tell_what_became_of_commits_that_nobody_heard_of(postgres: Postgres, tmp_path: Path) -> None:
    """Every tenth commit on PostgreSQL is cut, on either side: who got no answer was not charged."""
    with (
        CommitCutter(postgres.create_database()) as cutter,
        VendorProcess(tmp_path, "--workers", "2", "--migrate", database_url=cutter.url) as vendor,
        ThreadPoolExecutor(8) as pool,
    ):
        key = vendor.create_key()
        cutter.share = 0.1
        cutter.cut_next(*CUTS * 3)  # at least, however few commits there are
        statuses = Counter(pool.map(lambda _: ask(vendor, key), range(80)))
        cutter.share = 0.0
        assert set(statuses) <= {200, 503}
        assert statuses[200] > 40
        assert min(cutter.cuts.values()) >= 3
        wait_until(lambda: vendor.open_holds() == 0, seconds=40)
        assert vendor.charges(key).entries == statuses[200]
        assert vendor.problem(key) is None


def test_replays_are_bounded_over_all_workers(vendor: VendorProcess) -> None:
    key = vendor.create_key(quota=1)
    assert ask(vendor, key, "again") == 200
    with ThreadPoolExecutor(8) as pool:
        statuses = Counter(pool.map(lambda _: ask(vendor, key, "again"), range(36)))
    assert statuses == {200: 32, 410: 4}
    assert vendor.charges(key).entries == 1
    assert vendor.problem(key) is None


def test_whoever_comes_while_workers_stop_is_answered_or_refused_and_not_left_waiting(tmp_path: Path) -> None:
    vendor = VendorProcess(tmp_path, "--workers", "2").start()
    key = vendor.create_key()
    host, _, port = vendor.url.removeprefix("http://").partition(":")
    body = b'{"inputs": [{"text": "a photo of a cat"}]}'
    length = f"content-length: {len(body)}"
    head = f"POST /embed HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n{length}\r\n\r\n"
    ended: list[str] = []

    def come() -> None:
        try:
            answer = httpx.get(f"{vendor.url}/readyz", timeout=3)
            ended.append(answer.json()["error"]["code"])
        except httpx.ConnectError:
            ended.append("refused")
        except httpx.ReadError:
            ended.append("reset")
        except httpx.TimeoutException:
            ended.append("left waiting")

    with socket.create_connection((host, int(port)), timeout=60) as slow, ThreadPoolExecutor() as pool:
        slow.sendall(head.encode() + body[:10])
        in_hand = re.compile(r"tuition_in_hand_bytes\{.*\} 10\.0")
        wait_until(lambda: bool(in_hand.search(httpx.get(f"{vendor.url}/metrics", timeout=30).text)), 30)
        stopping = pool.submit(vendor.stop)
        wait_until(lambda: "stopping the workers" in vendor.log.read_text())
        # One worker has something in hand, so the other one soon stops alone.
        wait_until(lambda: workers_stopped(vendor) == 1, seconds=30)
        for _ in range(5):
            come()
        assert set(ended) == {"shutting_down"}
        slow.sendall(body[10:])
        assert slow.recv(1000).startswith(b"HTTP/1.1 200 OK")
        wait_until(lambda: workers_stopped(vendor) == 2, seconds=30)
        ended.clear()
        while not stopping.done():
            come()
            time.sleep(0.05)
        assert stopping.result() == 0
    # Nobody listens any more, while the processes take their time to end.
    assert set(ended) <= {"refused"}
    assert vendor.charges(key).queries == 1
    assert vendor.log.read_text().count("the workers have stopped") == 1


def test_operators_are_served_once_beside_several_workers(vendor: VendorProcess) -> None:
    answers = [httpx.get(f"{vendor.admin_url}/{path}").status_code for path in ("livez", "admin/prices")]
    assert answers == [200, 401]
    assert httpx.get(f"{vendor.url}/admin/prices").status_code == 404
