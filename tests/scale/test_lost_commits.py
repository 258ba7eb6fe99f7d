"""Two fronts on one PostgreSQL whose commits are cut: who got no answer was not charged."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.scale.ray_vendor import RayVendor
from tests.support.commit_cutter import CUTS, CommitCutter
from tests.support.postgres import Postgres
from tests.support.vendor_process import wait_until
from vendor_service.money.verification import verify

pytestmark = pytest.mark.scale


def test_fronts_tell_what_became_of_commits_that_nobody_heard_of(postgres: Postgres, tmp_path: Path) -> None:
    scale = {"num_cpus": 0.5, "fronts": 2}
    with (
        CommitCutter(postgres.create_database()) as cutter,
        RayVendor(tmp_path, scale=scale, database_url=cutter.url, migrate=True) as vendor,
        ThreadPoolExecutor(8) as pool,
    ):
        key, again = vendor.key(), {"idempotency-key": "again"}
        assert vendor.embed(key, {"text": "a cat"}, headers=again).status_code == 200
        cutter.share = 0.1
        cutter.cut_next(*CUTS * 3)  # at least, however few commits there are
        statuses = Counter(
            pool.map(lambda n: vendor.embed(key, {"text": f"number {n}"}).status_code, range(80))
        )
        cutter.share = 0.3  # replays share few transactions, and some of them are to be cut
        replays = Counter(
            pool.map(lambda _: vendor.embed(key, {"text": "a cat"}, headers=again).status_code, range(80))
        )
        cutter.share = 0.0
        assert set(statuses) <= {200, 503}
        assert statuses[200] > 40
        assert set(replays) == {200, 410, 503}
        assert replays[200] <= 32
        assert min(cutter.cuts.values()) >= 3
        wait_until(lambda: vendor.account(key).queries_held == 0, seconds=40)
        account = vendor.account(key)
        assert account.ledger_seq == statuses[200] + 1
        with vendor.books.read() as session:
            assert verify(session, account).problem is None
