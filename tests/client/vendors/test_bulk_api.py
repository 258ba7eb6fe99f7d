"""What is asked of a vendor's bulk jobs while the vendor is away for a moment."""

from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import httpx
import pytest

from client.errors import ClientError, VendorError, VendorUnreachable
from client.vendors.bulk_api import BulkApi
from client.vendors.teachers.tuition import VendorClient
from shared.batches import BatchList, BatchObject, BatchReceipts, RequestCounts

JOB = BatchObject(
    id="batch_1",
    endpoint="/embed",
    model="m",
    model_fingerprint="fp_1",
    input_file_id="file-1",
    status="in_progress",
    output_file_id=None,
    error_file_id=None,
    created_at=0,
    in_progress_at=0,
    expires_at=1,
    completed_at=None,
    cancelled_at=None,
    expired_at=None,
    request_counts=RequestCounts(total=1, completed=0, failed=0),
    metadata=None,
    cost_micros=0,
    held_micros=1,
)
ANSWERS = {
    "/v1/batches": BatchList(data=[JOB], first_id=JOB.id, last_id=JOB.id, has_more=False),
    "/v1/batches/batch_1": JOB,
    "/v1/batches/batch_1/receipts": BatchReceipts(data=[], next_after=None),
    "/v1/files/file-1/content": JOB,
}

Ask = Callable[[VendorClient], object]


class Away(httpx.BaseTransport):
    """A vendor that is away until its clock shows so many seconds; waiting is what moves the clock."""

    def __init__(self, seconds: float, failure: Callable[[], httpx.Response]) -> None:
        self.now = 0.0
        self.tries = 0
        self._seconds = seconds
        self._failure = failure

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.tries += 1
        if self.now < self._seconds:
            return self._failure()
        return answer(200, ANSWERS[request.url.path].model_dump_json())

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        return False


def answer(status: int, content: str = "<html>no</html>") -> httpx.Response:
    return httpx.Response(status, stream=httpx.ByteStream(content.encode()))


def down() -> httpx.Response:
    raise httpx.ConnectError("refused")


def ask(away: Away, asked: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.vendors.transport.time.monotonic", lambda: away.now)
    with VendorClient("http://vendor", "tk_1_s", transport=away) as client:
        monkeypatch.setattr(client._http._stopping, "wait", away.wait)
        asked(client)


@pytest.mark.parametrize("failure", [down, lambda: answer(502)], ids=["down", "502"])
@pytest.mark.parametrize(
    "asked",
    [
        lambda client: client.bulk.get("batch_1"),
        lambda client: client.bulk.find("key"),
        lambda client: list(client.bulk.receipts("batch_1")),
        lambda client: client.bulk.download("file-1", BytesIO(), 2**20),
    ],
    ids=["job", "jobs", "receipts", "file"],
)
def test_whoever_waits_for_a_job_outlasts_a_vendor_that_is_restarted(
    asked: Ask, failure: Callable[[], httpx.Response], monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Away(50.0, failure)
    ask(away, asked, monkeypatch)
    assert away.tries > 5
    away = Away(10_000.0, failure)
    with pytest.raises(VendorError):
        ask(away, asked, monkeypatch)
    assert 60.0 <= away.now < 60.0 + 30.0


def test_a_file_that_took_long_before_it_was_cut_off_is_waited_for_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def cut() -> httpx.Response:
        away.now += 3600.0 if away.tries == 1 else 0.0
        raise httpx.ReadError("cut")

    away = Away(3650.0, cut)
    ask(away, lambda client: client.bulk.download("file-1", BytesIO(), 2**20), monkeypatch)
    assert away.now > 3650.0


@pytest.mark.parametrize("status", [403, 404])
def test_a_file_that_is_refused_is_not_asked_for_again(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    away = Away(10_000.0, lambda: answer(status))
    with pytest.raises(ClientError) as caught:
        ask(away, lambda client: client.bulk.download("file-1", BytesIO(), 2**20), monkeypatch)
    assert not isinstance(caught.value, VendorUnreachable)
    assert away.tries == 1


@pytest.mark.parametrize(
    "asked", [lambda bulk: bulk.jobs(), lambda bulk: bulk.files(), lambda bulk: bulk.receipts("b")]
)
def test_a_list_whose_pages_are_empty_ends(asked: Callable[[BulkApi], Iterator[object]]) -> None:
    def endless(request: httpx.Request) -> httpx.Response:
        after = request.url.params.get("after", "0")
        page: dict[str, Any] = {"data": [], "first_id": None, "last_id": f"{after}1", "has_more": True}
        return httpx.Response(200, json=page | {"next_after": int(after) + 1})

    with VendorClient("http://vendor", "tk_1_s", transport=httpx.MockTransport(endless)) as client:
        assert list(asked(client.bulk)) == []
