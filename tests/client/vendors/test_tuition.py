"""Retries, and the vendor's errors as the client's, against a scripted network edge."""

import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from client import errors
from client.vendors import transport
from client.vendors.query import Query
from client.vendors.teachers.tuition import VendorClient
from client.vendors.transport import Hooks
from client.vendors.vendor import EmbedResult
from client.vendors.wire import embed_form
from shared.embeddings import ModelCard
from shared.encoding import to_base64
from shared.receipts import KEYS_PATH
from tests.client.cards import MODEL
from tests.client.forms import read_form
from tests.support.figures import holds

pytestmark = pytest.mark.usefixtures("hurry")

QUERIES = [(Query.text(text), text.encode()) for text in ("cat", "dog")]

Step = httpx.Response | Exception


class Script(httpx.BaseTransport):
    """Answers each request with the next step; the last one stays."""

    def __init__(self, *steps: Step) -> None:
        self._steps = list(steps)
        self.requests: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == KEYS_PATH:
            return _error(404, "not_found")  # it does not sign
        self.requests.append(request)
        step = self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
        if isinstance(step, Exception):
            raise step
        return httpx.Response(step.status_code, headers=step.headers, content=step.content)


def _answer(**changes: Any) -> httpx.Response:
    vector = to_base64(np.array([0.6, 0.8], dtype=np.float32))
    body: dict[str, Any] = {
        "id": "req_1",
        "model": "m",
        "model_fingerprint": "fp_1",
        "dimensions": 2,
        "data": [{"index": i, "kind": "text", "embedding": vector} for i in range(2)],
        "errors": [],
        "usage": {"images": 0, "texts": 2, "billed_queries": 2, "cost_micros": 40},
        "replayed": False,
    }
    return httpx.Response(200, json=body | changes)


def _error(status: int, code: str, **headers: str) -> httpx.Response:
    detail = {
        "code": code,
        "type": "t",
        "message": "what happened",
        "request_id": "req_9",
        "retryable": False,
    }
    return httpx.Response(status, json={"error": detail}, headers=headers)


def _embed(script: Script) -> EmbedResult:
    with VendorClient("http://vendor", "tk_1", transport=script) as client:
        return client.embed(QUERIES, model=MODEL, idempotency_key="key")


def test_an_answer_is_vectors_by_query() -> None:
    script = Script(_answer())
    answer = _embed(script)
    assert [answer.vectors[query].tolist() for query, _ in QUERIES] == [
        [pytest.approx(0.6), pytest.approx(0.8)]
    ] * 2
    sent = script.requests[0]
    assert sent.headers["authorization"] == "Bearer tk_1"
    assert sent.headers["x-expect-fingerprint"] == "fp_1"
    assert read_form(sent) == ({"model": "m", "on_error": "skip"}, [("text", b"cat"), ("text", b"dog")])


@pytest.mark.parametrize(
    "trouble",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("cut"),
        *(_error(status, "whatever") for status in (408, 409, 429, 500, 502, 503, 504)),
        httpx.Response(502, text="<html>a proxy</html>"),
    ],
    ids=str,
)
def test_what_may_pass_is_tried_again_under_the_same_key(trouble: Step) -> None:
    script = Script(trouble, trouble, _answer())
    assert _embed(script).usage.billed_queries == 2
    assert {request.headers["idempotency-key"] for request in script.requests} == {"key"}
    assert {request.content for request in script.requests} == {embed_form(QUERIES, "m").body}


def test_trying_ends() -> None:
    script = Script(httpx.ConnectError("refused"))
    with pytest.raises(errors.VendorUnreachable, match="http://vendor"):
        _embed(script)
    assert len(script.requests) == transport.TRIES


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (_error(401, "invalid_api_key"), errors.KeyRefused),
        (_error(401, "key_expired"), errors.KeyRefused),
        (_error(403, "key_revoked"), errors.KeyRefused),
        (_error(403, "project_archived"), errors.KeyRefused),
        (_error(403, "account_suspended"), errors.KeyRefused),
        (_error(402, "quota_exhausted"), errors.QuotaExhausted),
        (_error(402, "spend_limit_reached"), errors.QuotaExhausted),
        (_error(402, "insufficient_credit"), errors.QuotaExhausted),
        (_error(402, "max_cost_exceeded"), errors.PriceRaised),
        (_error(412, "fingerprint_mismatch"), errors.FingerprintChanged),
        (_error(413, "request_too_large"), errors.RequestTooLarge),
        (httpx.Response(413, text="<html>a proxy</html>"), errors.RequestTooLarge),
        (_error(400, "something_new"), errors.RequestRefused),
        (httpx.Response(404, text="not here"), errors.VendorError),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_cannot_pass_is_raised_at_once(response: httpx.Response, expected: type[Exception]) -> None:
    script = Script(response)
    with pytest.raises(expected):
        _embed(script)
    assert len(script.requests) == 1


def test_retry_after_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(_error(503, "overloaded", **{"retry-after": "7"}), _answer())
    waited: list[float] = []
    with VendorClient("http://vendor", None, transport=script) as client:
        monkeypatch.setattr(client._http._stopping, "wait", lambda seconds: waited.append(seconds))
        client.embed(QUERIES, model=MODEL, idempotency_key="key")
    assert waited
    assert 7 <= waited[0] <= 7.01


def test_only_a_vendor_that_is_asked_too_much_pushes_back() -> None:
    pushed: list[int] = []
    troubles = [_error(429, "rate_limited"), _error(503, "overloaded"), _error(502, "x"), _error(409, "x")]
    script = Script(*troubles, _answer())
    with VendorClient("http://vendor", None, transport=script) as client:
        client.embed(
            QUERIES,
            model=MODEL,
            idempotency_key="key",
            max_cost_micros=40,
            hooks=Hooks(on_push_back=lambda: pushed.append(len(script.requests))),
        )
    assert pushed == [1, 2]
    assert {request.headers["x-max-cost-micros"] for request in script.requests} == {"40"}


def test_another_model_is_never_taken_for_this_one() -> None:
    with pytest.raises(errors.FingerprintChanged, match="fp_2"):
        _embed(Script(_answer(model_fingerprint="fp_2")))


def test_a_client_that_is_told_to_stop_does_not_wait() -> None:
    script = Script(_error(503, "overloaded", **{"retry-after": "3600"}))
    with VendorClient("http://vendor", None, transport=script) as client:
        client.stop()
        with pytest.raises(errors.VendorUnreachable):
            client.embed(QUERIES, model=MODEL, idempotency_key="key")


@pytest.mark.parametrize(
    "garbage",
    [
        lambda: httpx.Response(200, text="hello"),
        lambda: httpx.Response(200, json={"id": 1}),
        lambda: _answer(data=[]),
        lambda: _answer(data=[{"index": 9, "kind": "text", "embedding": "AAAAAAAAAAA="}]),
        lambda: _answer(dimensions=3),
        lambda: _answer(data=[{"index": i, "kind": "text", "embedding": "!"} for i in range(2)]),
        lambda: _answer(
            data=[{"index": i, "kind": "text", "embedding": [float("1e39"), 0]} for i in range(2)]
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_garbage_is_never_taken_for_an_answer(garbage: Callable[[], httpx.Response]) -> None:
    with pytest.raises(errors.VendorError):
        _embed(Script(garbage()))


def test_a_skipped_input_is_told_apart() -> None:
    vector = "AACAPwAAAAA="
    answer = _embed(
        Script(
            _answer(
                data=[{"index": 1, "kind": "text", "embedding": vector}],
                errors=[{"index": 0, "code": "invalid_image", "message": "no image"}],
                usage={"images": 0, "texts": 1, "billed_queries": 1, "cost_micros": 20},
            )
        )
    )
    assert answer.refused == {QUERIES[0][0]: "no image"}
    assert answer.vectors[QUERIES[1][0]].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("billed", [1, 3, -2])
def test_a_bill_for_other_than_what_was_answered_is_not_taken(billed: int) -> None:
    usage = {"images": 0, "texts": billed, "billed_queries": billed, "cost_micros": 20 * abs(billed)}
    with pytest.raises(errors.VendorError, match="billed"):
        _embed(Script(_answer(usage=usage)))


def test_a_person_is_told_once_that_several_requests_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(_error(503, "overloaded", **{"retry-after": "7"}))
    said: list[str] = []
    with VendorClient("http://vendor", None, transport=script, on_wait=said.append) as client:
        monkeypatch.setattr(client._http._stopping, "wait", lambda _: False)
        for _ in range(2):
            with pytest.raises(errors.VendorError):
                client.models()
    (told,) = said
    assert "http://vendor said 503" in told


@pytest.mark.parametrize("url", ["vendor:8000", "localhost", "ftp://vendor", "http://", "http://[::1"])
def test_what_is_no_address_is_said_at_once(url: str) -> None:
    with pytest.raises(errors.UsageError, match="no address"):
        VendorClient(url, None)


@pytest.mark.parametrize(
    "url",
    ["http://me:secret@vendor", "me:secret@vendor:8000", "ftp://:secret@vendor", "http://a:secret@[::1"],
)
def test_an_address_with_a_password_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(errors.UsageError, match="has no user and no password") as refused:
        VendorClient(url, "tk_1")
    assert "secret" not in str(refused.value)


def test_an_at_sign_in_the_path_is_none_of_a_user() -> None:
    with VendorClient("http://vendor/@team", "tk_1") as client:
        assert client.url == "http://vendor/@team"


@pytest.mark.parametrize("api_key", ["tk_1\nx: y", "tk 1", "tk_é", "hvs.secret", "sk-1", "tk_a.b"])
def test_what_is_no_key_is_said_at_once(api_key: str) -> None:
    with pytest.raises(errors.UsageError, match="TUITION_API_KEY"):
        VendorClient("http://vendor", api_key)


def test_a_vendors_message_cannot_drive_the_terminal() -> None:
    response = _error(401, "invalid_api_key")
    response = httpx.Response(401, content=response.content.replace(b"what happened", b"\\u001b[2Jgone"))
    with pytest.raises(errors.KeyRefused) as caught:
        _embed(Script(response))
    assert "\x1b" not in str(caught.value)


def test_one_of_several_models_is_named() -> None:
    def sells(*names: str) -> Script:
        cards = [MODEL.model_copy(update={"id": name}).model_dump() for name in names]
        return Script(httpx.Response(200, json={"object": "list", "data": cards}))

    def choose(script: Script, name: str | None) -> str:
        with VendorClient("http://vendor", None, transport=script) as client:
            return client.model(name).id

    assert choose(sells("a"), None) == "a"
    assert choose(sells("a", "b"), "b") == "b"
    for script, name in ((sells("a", "b"), None), (sells("a"), "z")):
        with pytest.raises(errors.VendorError, match="sells a"):
            choose(script, name)


def test_without_a_name_it_is_the_model_that_was_had_before_or_else_the_default() -> None:
    def choose(fingerprint: str | None, *cards: ModelCard) -> str:
        content = {"object": "list", "data": [card.model_dump(mode="json") for card in cards]}
        script = Script(httpx.Response(200, json=content))
        with VendorClient("http://vendor", None, transport=script) as client:
            return client.model(fingerprint=fingerprint).id

    old = MODEL.model_copy(update={"id": "old", "fingerprint": "fp_old"})
    new = MODEL.model_copy(update={"id": "new", "fingerprint": "fp_new", "default": True})
    assert choose(None, old, new) == "new"
    assert choose("fp_old", old, new) == "old"
    assert choose("fp_gone", old, new) == "new"
    assert choose("fp_gone", old) == "old"


def test_a_purchase_of_a_deprecated_model_says_so() -> None:
    said: list[str] = []
    moments = {"deprecated_at": "2026-10-01T00:00:00Z", "sunset_at": "2027-01-31T00:00:00Z"}
    script = Script(httpx.Response(200, json={"data": [MODEL.model_dump() | moments]}))
    with VendorClient("http://vendor", None, transport=script, on_wait=said.append) as client:
        client.model()
    assert "deprecated as of 2026-10-01, and sold until 2027-01-31" in said[0]


@pytest.mark.parametrize(("stated", "sent"), [({}, None), ({"default": False}, "toy")])
def test_an_estimate_names_the_model_to_a_vendor_that_tells_models_apart(
    stated: dict[str, bool], sent: str | None
) -> None:
    card = ModelCard.model_validate(MODEL.model_dump(exclude={"default"}) | {"id": "toy"} | stated)
    script = Script(_error(401, "invalid_api_key"))
    with VendorClient("http://vendor", None, transport=script) as client, pytest.raises(errors.KeyRefused):
        client.estimate(texts=1, model=card)
    assert json.loads(script.requests[0].content).get("model") == sent


class _Endless(httpx.SyncByteStream):
    """More than anybody has memory for; `given` counts what was taken."""

    def __init__(self) -> None:
        self.given = 0

    def __iter__(self) -> Iterator[bytes]:
        while True:
            self.given += 2**16
            yield bytes(2**16)


class _Once(httpx.SyncByteStream):
    def __init__(self, content: bytes) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        yield self._content


class _Endlessly(httpx.BaseTransport):
    def __init__(self, status: int, **headers: str) -> None:
        self.stream = _Endless()
        self._status = status
        self._headers = headers

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert request.headers["accept-encoding"] == "identity"
        if request.url.path == KEYS_PATH:
            return _error(404, "not_found")  # it does not sign
        return httpx.Response(self._status, headers=self._headers, stream=self.stream)


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.models(),
        lambda client: client.account(),
        lambda client: client.estimate(texts=1),
        lambda client: list(client.ledger()),
        lambda client: client.invoice("2026-01"),
        lambda client: client.usage(),
        lambda client: client.keys(),
        lambda client: client.embed(QUERIES, model=MODEL, idempotency_key="key"),
    ],
)
@pytest.mark.parametrize("status", [200, 403, 500])
def test_no_answer_is_read_without_a_bound(ask: Callable[[VendorClient], object], status: int) -> None:
    edge = _Endlessly(status)
    with VendorClient("http://vendor", "tk_1", transport=edge) as client, pytest.raises(errors.VendorError):
        ask(client)
    assert holds(edge.stream.given / 2**20, 9, "MiB")


def test_an_embed_answer_is_read_no_further_than_it_can_go_and_its_bill_is_kept() -> None:
    headers = {
        "x-embedding-id": "req_1",
        "x-model-fingerprint": "fp_1",
        "x-cost-micros": "40",
        "x-billed-queries": "2",
        "x-billed-images": "0",
        "x-billed-texts": "2",
    }
    edge = _Endlessly(200, **headers)
    with (
        VendorClient("http://vendor", "tk_1", transport=edge) as client,
        pytest.raises(errors.AnswerRejected, match="more than the") as caught,
    ):
        client.embed(QUERIES, model=MODEL, idempotency_key="key")
    assert holds(edge.stream.given / 2**20, 1 / 4, "MiB")
    assert caught.value.bill is not None
    assert caught.value.bill.usage.cost_micros == 40


def test_what_is_compressed_is_not_unpacked() -> None:
    packed = zlib.compress(bytes(2**20))
    edge = httpx.MockTransport(
        lambda _: httpx.Response(200, headers={"content-encoding": "deflate"}, stream=_Once(packed))
    )
    with (
        VendorClient("http://vendor", "tk_1", transport=edge) as client,
        pytest.raises(errors.VendorError, match="compressed"),
    ):
        client.models()


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("\u00b2", 0),
        ("-5", 0),
        ("inf", 0),
        ("nan", 0),
        ("1e9", 0),
        ("7.5", 0),
        ("Fri, 31 Dec 2049 23:59:59 GMT", 0),
        ("9" * 5000, 300),
        ("3600", 300),
        (" 7 ", 7),
    ],
)
def test_whatever_retry_after_says_the_wait_is_bounded(
    monkeypatch: pytest.MonkeyPatch, said: str, seconds: int
) -> None:
    refusal = _error(503, "overloaded")
    refusal.headers = httpx.Headers([(b"retry-after", said.encode("latin-1"))])
    script = Script(refusal, _answer())
    waited: list[float] = []
    with VendorClient("http://vendor", None, transport=script) as client:
        monkeypatch.setattr(client._http._stopping, "wait", lambda delay: waited.append(delay))
        client.embed(QUERIES, model=MODEL, idempotency_key="key")
    assert seconds <= waited[0] <= seconds + 0.01


@pytest.mark.parametrize("status", [409, 412])
def test_a_key_that_is_spent_is_not_tried_again(status: int) -> None:
    script = Script(_error(status, "idempotency_key_expired"))
    with pytest.raises(errors.IdempotencyKeySpent):
        _embed(script)
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    ("trouble", "unsure"),
    [
        (httpx.ConnectError("refused"), False),
        (_error(429, "rate_limited"), False),
        (httpx.ReadTimeout("slow"), True),
        (_error(503, "overloaded"), True),
        (_error(409, "idempotency_in_flight"), True),
        (httpx.Response(502, text="a proxy"), True),
    ],
    ids=str,
)
def test_a_refusal_is_sure_only_if_every_try_before_it_was(trouble: Step, unsure: bool) -> None:
    for refusal in (_error(401, "invalid_api_key"), _error(402, "quota_exhausted"), _error(412, "new")):
        with pytest.raises(errors.ClientError) as caught:
            _embed(Script(trouble, refusal))
        assert caught.value.unsure is unsure
        assert caught.value.request_id == "req_9"


def test_a_ledger_that_never_ends_is_left() -> None:
    entry = {"seq": 1, "kind": "top_up", "amount_micros": 1, "images": 0, "texts": 0, "image_micros": 0}
    entry |= {"text_micros": 0, "created_at": "2026-01-01T00:00:00Z", "previous_hash": "", "entry_hash": ""}
    unset = ("model", "model_fingerprint", "key_id", "request_id", "corrects_seq", "reason")
    page = httpx.Response(200, json={"data": [entry | dict.fromkeys(unset)], "next_after": 0})
    with (
        VendorClient("http://vendor", "tk_1", transport=Script(page)) as client,
        pytest.raises(errors.VendorError, match="again and again"),
    ):
        list(client.ledger())


def _page_of_keys(*key_ids: str, has_more: bool) -> httpx.Response:
    unset = dict.fromkeys(("quota", "spend_limit_micros", "last_used_at", "former_until", "revoked_at"))
    told = {"label": "", "scopes": [], "queries_used": 0, "spent_micros": 0}
    key = unset | told | {"created_at": "2026-01-01T00:00:00Z"}
    data = [key | {"key_id": key_id} for key_id in key_ids]
    return httpx.Response(200, json={"data": data, "has_more": has_more})


def test_all_keys_are_listed_page_by_page() -> None:
    script = Script(_page_of_keys("a", "b", has_more=True), _page_of_keys("c", has_more=False))
    with VendorClient("http://vendor", "tk_1", transport=script) as client:
        listed = client.keys()
    assert [key.key_id for key in listed] == ["a", "b", "c"]
    assert [dict(each.url.params) for each in script.requests] == [{}, {"after": "b"}]


@pytest.mark.parametrize("key_ids", [["a"], []])
def test_keys_that_never_end_are_left(key_ids: list[str]) -> None:
    page = _page_of_keys(*key_ids, has_more=True)
    with (
        VendorClient("http://vendor", "tk_1", transport=Script(page)) as client,
        pytest.raises(errors.VendorError, match="again and again"),
    ):
        client.keys()
