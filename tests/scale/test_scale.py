"""What only a cluster does: replicas that die, come and go under load, and nobody is charged for nothing."""

import os
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import func, select

from tests.scale.ray_vendor import RayVendor
from tests.support.model_shop import ICONS, TINY
from tests.support.tiny_clip import write_tiny_clip
from tests.support.vendor_process import wait_until
from tests.vendor_service.local_vendor import image_input
from vendor_service.database.tables import Hold, LedgerEntry
from vendor_service.encoder.clip import ClipModel, choose_devices
from vendor_service.encoder.sources import find_model
from vendor_service.money.verification import verify

pytestmark = pytest.mark.scale


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayVendor]:
    scale = {"max_replicas": 2, "num_cpus": 0.5}
    with RayVendor(tmp_path_factory.mktemp("vendor"), scale=scale) as on_ray:
        yield on_ray


def replicas(deployment: str) -> list[int]:
    """The processes that are replicas of a deployment."""
    wanted = f"ray::ServeReplica:tuition:{deployment}"
    named = subprocess.run(["ps", "-eo", "pid=,args="], check=True, capture_output=True, text=True).stdout
    lines = (line.split(maxsplit=1) for line in named.splitlines())
    return [int(pid) for pid, command in lines if command.startswith(wanted)]


def charged(vendor: RayVendor, key: str) -> int:
    """The queries on the ledger of a key's account, whose books are in order and have nothing open."""
    account = vendor.account(key)
    with vendor.books.read() as session:
        assert verify(session, account).problem is None
        assert (
            session.scalar(select(func.count()).where(Hold.account_id == account.id, Hold.state == "open"))
            == 0
        )
        mine = (LedgerEntry.account_id == account.id, LedgerEntry.kind == "charge")
        return sum(sum(each.values()) for each in session.scalars(select(LedgerEntry.counts).where(*mine)))


def test_it_answers_what_the_model_says(vendor: RayVendor) -> None:
    local = ClipModel(find_model("icon-clip", None), choose_devices("cpu"))
    answer = vendor.embed(vendor.key(), {"text": "a cat"}, image_input(), {"text": "a dog"})
    got = [each["embedding"] for each in answer.json()["data"]]
    texts = local.encode_texts(["a cat", "a dog"])
    np.testing.assert_allclose([got[0], got[2]], texts, atol=local.tolerance)
    assert abs(float(np.linalg.norm(got[1])) - 1) < 1e-5
    assert answer.headers["x-model-fingerprint"] == local.fingerprint


def test_a_replica_that_is_killed_costs_nobody_anything_and_is_replaced(vendor: RayVendor) -> None:
    key = vendor.key()
    statuses: Counter[int] = Counter()
    over = threading.Event()

    def buy(number: int) -> None:
        for turn in range(10_000):
            if over.is_set():
                return
            statuses[vendor.embed(key, {"text": f"text {number} {turn}"}, image_input()).status_code] += 1

    known = replicas("model")
    with ThreadPoolExecutor(4) as pool:
        buying = [pool.submit(buy, number) for number in range(4)]
        wait_until(lambda: statuses[200] > 20, seconds=60)
        for pid in known:
            os.kill(pid, signal.SIGKILL)
        served = statuses[200]
        wait_until(lambda: statuses[200] > served + 20, seconds=120)
        over.set()
        for each in buying:
            each.result()
    assert set(statuses) <= {200, 503, 504}
    assert not set(known) & set(replicas("model"))
    assert charged(vendor, key) == 2 * statuses[200]


def test_load_brings_another_replica(vendor: RayVendor) -> None:
    key = vendor.key()
    over = threading.Event()

    def buy() -> int:
        bought = 0
        while not over.is_set():
            answer = vendor.embed(key, *(image_input() for _ in range(64)))
            if answer.status_code == 200:
                bought += 64
            else:
                assert answer.status_code == 503, answer.text
        return bought

    with ThreadPoolExecutor(32) as pool:
        buying = [pool.submit(buy) for _ in range(32)]
        try:
            wait_until(lambda: len(replicas("model")) == 2, seconds=120)
        finally:
            over.set()
        bought = sum(each.result() for each in buying)
    assert charged(vendor, key) == bought


def test_several_models_are_deployments_of_their_own(tmp_path: Path) -> None:
    tiny = write_tiny_clip(tmp_path / "tiny", seed=1)
    file = tmp_path / "models.toml"
    file.write_text(ICONS + TINY.replace("local-dir:tiny", tiny))
    with RayVendor(tmp_path, scale={"num_cpus": 0.5}, models=file) as vendor:
        key, models = vendor.key(), vendor.http.get("/v1/models").json()["data"]
        assert [each["id"] for each in models] == ["icon-clip", "tiny/1"]
        for each, cost in zip(models, (120, 10), strict=True):
            answer = vendor.embed(key, {"text": "a cat"}, image_input(), model=each["id"]).json()
            assert answer["model_fingerprint"] == each["fingerprint"]
            assert (len(answer["data"][1]["embedding"]), answer["usage"]["cost_micros"]) == (
                each["dimensions"],
                cost,
            )
        assert len(replicas("model-tiny-1")) == len(replicas("model-icon-clip")) == 1
        assert charged(vendor, key) == 4
