"""The vendor is killed (SIGKILL) at random moments while it works on jobs: no line twice, and none lost."""

import json
import random
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import openai
import pytest
from sqlalchemy import select

from tests.support.vendor_process import VendorProcess, wait_until
from vendor_service.database.session import Database
from vendor_service.database.tables import LedgerEntry, WebhookEvent

LINES = 400


@contextmanager
def sdk(vendor: VendorProcess, api_key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{vendor.url}/v1", api_key=api_key, max_retries=0, timeout=60) as client:
        yield client


def begin(client: openai.OpenAI, number: int) -> str:
    lines = [
        {
            "custom_id": str(each),
            "method": "POST",
            "url": "/v1/embeddings",
            "body": {"model": "icon-clip", "input": f"{number}: {each}", "encoding_format": "base64"},
        }
        for each in range(LINES)
    ]
    file = client.files.create(file=("in", "\n".join(map(json.dumps, lines)).encode()), purpose="batch")
    job = client.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")
    return job.id


@pytest.mark.parametrize(
    "kills", [3, pytest.param(100, marks=pytest.mark.slow)], ids=lambda kills: f"{kills} kills"
)
def test_a_vendor_that_is_killed_at_any_moment_charges_each_line_once(tmp_path: Path, kills: int) -> None:
    rng = random.Random(kills)
    vendor = VendorProcess(tmp_path, "--batch-store", str(tmp_path / "store"))
    jobs: list[str] = []
    in_the_middle = 0
    # One client for all of it: to make one takes as long as the vendor takes for a job.
    with vendor, sdk(vendor, api_key := vendor.create_key()) as client:
        look = client.batches.retrieve
        for _ in range(kills):
            if not jobs or look(jobs[-1]).status == "completed":
                jobs.append(begin(client, len(jobs)))
            time.sleep(rng.uniform(0, 0.4))
            in_the_middle += look(jobs[-1]).status == "in_progress"
            vendor.kill()
            vendor.start()
        for job in jobs:
            wait_until(lambda job=job: look(job).status == "completed", 60)  # type: ignore[misc]
        for job in jobs:
            done = look(job)
            assert (done.request_counts.completed, done.request_counts.failed) == (LINES, 0)  # type: ignore[union-attr]
            content = client.files.content(str(done.output_file_id)).text
            assert [json.loads(each)["custom_id"] for each in content.splitlines()] == [
                str(each) for each in range(LINES)
            ]
        assert in_the_middle > kills // 3
        assert vendor.charges(api_key).cost_micros == 10 * LINES * len(jobs)
        assert vendor.charges(api_key).queries == LINES * len(jobs)
        assert vendor.problem(api_key) is None
        assert vendor.open_holds() == 0
        assert httpx.get(f"{vendor.url}/readyz", timeout=30).status_code == 200
    with closing(Database(vendor.database_url)) as database, database.read() as session:
        told = [json.loads(each)["data"]["id"] for each in session.scalars(select(WebhookEvent.content))]
        entries = [each["text"] for each in session.scalars(select(LedgerEntry.counts))]
    assert sorted(told) == sorted(jobs)
    assert sorted(entries) == sorted([16] * len(jobs) + [64] * (6 * len(jobs)))
