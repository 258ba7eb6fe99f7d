"""OpenAI's own SDK, unchanged, against the real server: what it sends, what it raises, how it retries."""

import base64
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from shared.errors import ErrorCode
from tests.vendor_service.local_vendor import (
    LocalVendor,
    ScriptedTexts,
    Vendor,
    error_code,
    image_file,
    image_input,
)
from vendor_service.errors import APIError, CommitInDoubt
from vendor_service.money import checkout
from vendor_service.money.admission import Admission
from vendor_service.money.orders import Admitted, Charged, Order

CAT = "a photo of a cat"
DATA_URI = f"data:image/png;base64,{image_input()['image']}"


def sdk(vendor: Vendor, api_key: str, max_retries: int = 0, **rest: Any) -> openai.OpenAI:
    url = f"http://127.0.0.1:{vendor.port}/v1"
    return openai.OpenAI(base_url=url, api_key=api_key, max_retries=max_retries, timeout=30, **rest)


@pytest.fixture
def api_key(vendor: Vendor) -> str:
    return vendor.key()


@pytest.fixture
def client(vendor: Vendor, api_key: str) -> Iterator[openai.OpenAI]:
    with sdk(vendor, api_key) as opened:
        yield opened


def native(vendor: Vendor, *inputs: dict[str, str]) -> list[list[float]]:
    return [each["embedding"] for each in vendor.embed(vendor.key(), *inputs).json()["data"]]


def test_texts_by_default_and_as_floats(vendor: Vendor, client: openai.OpenAI, api_key: str) -> None:
    expected = native(vendor, {"text": CAT}, {"text": "a dog"})
    packed = client.embeddings.create(model="icon-clip", input=[CAT, "a dog"])
    floats = client.embeddings.create(model="icon-clip", input=[CAT, "a dog"], encoding_format="float")
    for answer in (packed, floats):
        assert [each.index for each in answer.data] == [0, 1]
        assert np.allclose([each.embedding for each in answer.data], expected, atol=1e-5)
        assert (answer.usage.prompt_tokens, answer.usage.total_tokens, answer.model) == (2, 2, "icon-clip")
    assert vendor.account(api_key).spent_micros == 80


def test_one_string_is_one_text(vendor: Vendor, client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="icon-clip", input=CAT, user="somebody", dimensions=256)
    assert np.allclose(answer.data[0].embedding, native(vendor, {"text": CAT})[0], atol=1e-5)


@pytest.mark.parametrize(
    ("given", "rest"),
    [
        ([DATA_URI], {"modality": "image"}),
        (DATA_URI, {"modality": "image"}),
        ([{"image": DATA_URI}], {}),
        ([image_input()], {}),
        ([image_input()], {"modality": "image"}),
    ],
)
def test_images_by_either_convention(
    vendor: Vendor, client: openai.OpenAI, given: Any, rest: dict[str, str]
) -> None:
    answer = client.embeddings.create(model="icon-clip", input=given, extra_body=rest)
    assert np.allclose(answer.data[0].embedding, native(vendor, image_input())[0], atol=1e-5)


def test_objects_and_strings_mix(vendor: Vendor, client: openai.OpenAI) -> None:
    given: Any = [CAT, {"image": DATA_URI}, {"text": CAT}]
    rows = [each.embedding for each in client.embeddings.create(model="icon-clip", input=given).data]
    assert np.allclose(rows, native(vendor, {"text": CAT}, image_input(), {"text": CAT}), atol=1e-5)


def test_a_data_uri_without_the_modality_is_a_text_like_any_other(
    vendor: Vendor, client: openai.OpenAI
) -> None:
    answer = client.embeddings.create(model="icon-clip", input=[DATA_URI])
    assert np.allclose(answer.data[0].embedding, native(vendor, {"text": DATA_URI})[0], atol=1e-5)


def test_what_we_tell_beyond_openai_rides_along(vendor: Vendor, client: openai.OpenAI) -> None:
    raw = client.embeddings.with_raw_response.create(model="icon-clip", input=[CAT])
    answer = raw.http_response.json()
    assert answer["usage"]["billed_queries"] == 1
    assert answer["usage"]["cost_micros"] == int(raw.headers["x-cost-micros"]) == 20
    assert answer["model_fingerprint"] == raw.headers["x-model-fingerprint"]
    assert answer["id"] == raw.headers["x-request-id"]


def test_its_list_of_models(client: openai.OpenAI) -> None:
    assert [each.id for each in client.models.list()] == ["icon-clip"]
    assert client.models.retrieve("icon-clip").owned_by == "tuition-vendor"


BROKEN = base64.b64encode(image_file()[:50]).decode()


@pytest.mark.parametrize(
    ("request_", "raised", "code", "param"),
    [
        ({"input": []}, openai.BadRequestError, "empty_input", "input"),
        ({"input": ""}, openai.BadRequestError, "empty_input", "input.0.text"),
        ({"input": [CAT] * 9}, openai.BadRequestError, "too_many_inputs", "input"),
        ({"input": [CAT, {"image": BROKEN}]}, openai.BadRequestError, "invalid_image", "input.1.image"),
        ({"input": [{"image": "data:image/png,%89PNG"}]}, openai.BadRequestError, "invalid_image", None),
        ({"input": [[1, 2, 3]]}, openai.UnprocessableEntityError, "invalid_request", "input.0"),
        ({"input": [1, 2, 3]}, openai.UnprocessableEntityError, "invalid_request", "input.0"),
        ({"input": [{}]}, openai.UnprocessableEntityError, "invalid_request", "input.0"),
        ({"input": None}, openai.UnprocessableEntityError, "invalid_request", "input.0"),
        (
            {"input": [{"image": "https://example.com/cat.png"}]},
            openai.UnprocessableEntityError,
            "invalid_request",
            "input.0",
        ),
        ({"input": CAT, "dimensions": 64}, openai.UnprocessableEntityError, "invalid_request", "dimensions"),
        ({"input": CAT, "model": "clip"}, openai.NotFoundError, "model_not_found", "model"),
        (
            {"input": CAT, "extra_body": {"modality": "audio"}},
            openai.UnprocessableEntityError,
            "invalid_request",
            "modality",
        ),
        (
            {"input": CAT, "extra_headers": {"x-expect-fingerprint": "fp_0"}},
            openai.APIStatusError,
            "fingerprint_mismatch",
            "x-expect-fingerprint",
        ),
        (
            {"input": CAT, "extra_headers": {"x-max-cost-micros": "19"}},
            openai.APIStatusError,
            "max_cost_exceeded",
            None,
        ),
    ],
)
def test_refusals_are_its_exceptions_and_cost_nothing(
    vendor: Vendor,
    client: openai.OpenAI,
    api_key: str,
    request_: dict[str, Any],
    raised: type[openai.APIStatusError],
    code: str,
    param: str | None,
) -> None:
    with pytest.raises(raised) as error:
        client.embeddings.create(**{"model": "icon-clip"} | request_)
    assert error.value.code == code
    assert error.value.request_id is not None
    assert param is None or error.value.param == param
    assert vendor.account(api_key).ledger_seq == 0


def test_keys_and_limits_are_its_exceptions_too(vendor: Vendor) -> None:
    with sdk(vendor, "tk_no_key") as stranger, pytest.raises(openai.AuthenticationError):
        stranger.embeddings.create(model="icon-clip", input=CAT)
    with sdk(vendor, vendor.key(quota=0)) as poor, pytest.raises(openai.APIStatusError) as exhausted:
        poor.embeddings.create(model="icon-clip", input=CAT)
    assert (exhausted.value.status_code, exhausted.value.code) == (402, "quota_exhausted")
    with sdk(vendor, vendor.key(queries_per_second=1)) as hasty:
        hasty.embeddings.create(model="icon-clip", input=[CAT] * 8)
        with pytest.raises(openai.RateLimitError):
            hasty.embeddings.create(model="icon-clip", input=[CAT] * 8)


def test_it_retries_after_as_long_as_it_is_told_to(vendor: LocalVendor) -> None:
    key = vendor.key(queries_per_second=1)
    refused_at: list[float] = []

    def pass_the_time(answer: httpx.Response) -> None:
        if answer.status_code == 429:
            refused_at.append(time.monotonic())
            vendor.clock.advance(int(answer.headers["retry-after"]))

    hooked = openai.DefaultHttpxClient(event_hooks={"response": [pass_the_time]})
    with sdk(vendor, key, max_retries=2, http_client=hooked) as client:
        client.embeddings.create(model="icon-clip", input=[CAT] * 8)
        answer = client.embeddings.with_raw_response.create(model="icon-clip", input=[CAT] * 3)
    assert answer.retries_taken == len(refused_at) == 1
    assert time.monotonic() - refused_at[0] >= 1
    assert vendor.account(key).queries_used == 11


def test_it_retries_what_the_vendor_failed_at(scripted: ScriptedTexts, tmp_path: Path) -> None:
    with LocalVendor(tmp_path) as vendor:
        key = vendor.key()
        with sdk(vendor, key, max_retries=1) as client, pytest.raises(openai.InternalServerError):
            client.embeddings.create(model="icon-clip", input="explode")
        assert scripted.seen.count("explode") == 2
        assert vendor.account(key).ledger_seq == 0


@pytest.fixture
def lost_charges(monkeypatch: pytest.MonkeyPatch) -> list[Charged]:
    """Charges, of which nobody hears; the database stays away while their holds are released."""
    settle, sell, charges = Admission.settle, Admission.sell, list[Charged]()

    def unanswered(self: Admission, *given: Any) -> Future[Charged]:
        charges.append(settle(self, *given).result(20))
        return _failed(CommitInDoubt.unkeyed())

    def unsold(self: Admission, *given: Any) -> Future[Admitted]:
        sold = sell(self, *given).result(20)
        assert sold.charged is not None
        charges.append(sold.charged)
        return _failed(CommitInDoubt.unkeyed())

    def away(*_: Any) -> Future[bool]:
        return _failed(APIError(ErrorCode.OVERLOADED, "try again", retry_after=1))

    monkeypatch.setattr(Admission, "settle", unanswered)
    monkeypatch.setattr(Admission, "sell", unsold)
    monkeypatch.setattr(Admission, "void", away)
    return charges


@pytest.mark.parametrize("at_once", [True, False])
def test_what_may_have_been_charged_is_not_repeated_without_a_key(
    tmp_path: Path, lost_charges: list[Charged], monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    monkeypatch.setattr(checkout, "_FEW_QUERIES", 1 if at_once else 0)
    monkeypatch.setattr(checkout, "_SOON_SECONDS", 10)
    with (
        LocalVendor(tmp_path) as vendor,
        sdk(vendor, vendor.key(), max_retries=1) as client,
        pytest.raises(openai.InternalServerError, match="look at GET /v1/ledger") as refused,
    ):
        client.embeddings.create(model="icon-clip", input=CAT)
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert "retry-after" not in refused.value.response.headers
    assert refused.value.response.json()["error"]["retryable"] is False
    assert len(lost_charges) == 1


def test_what_may_have_been_charged_is_repeated_under_its_key(
    tmp_path: Path, lost_charges: list[Charged]
) -> None:
    with LocalVendor(tmp_path) as vendor:
        key = vendor.key()
        headers = {"idempotency-key": "mine"}
        doubtful = vendor.embed(key, {"text": CAT}, headers=headers)
        assert error_code(doubtful) == "overloaded"
        assert "same Idempotency-Key" in doubtful.text
        assert doubtful.headers["retry-after"] == "1"
        assert doubtful.json()["error"]["retryable"] is True
        assert vendor.embed(key, {"text": CAT}, headers=headers).json()["replayed"]
    assert len(lost_charges) == 1


def test_a_hold_of_which_nobody_heard_is_no_charge_and_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkout, "_FEW_QUERIES", 0)  # each is held
    admit = Admission.admit
    failures = iter([CommitInDoubt.unkeyed()])

    def unanswered(self: Admission, order: Order) -> Future[Admitted]:
        admitting, failure = admit(self, order), next(failures, None)
        return admitting if failure is None else _failed(failure)

    with LocalVendor(tmp_path) as vendor, sdk(vendor, key := vendor.key(), max_retries=1) as client:
        monkeypatch.setattr(Admission, "admit", unanswered)
        client.embeddings.create(model="icon-clip", input=CAT)
        assert vendor.account(key).ledger_seq == 1


def test_a_retry_under_its_idempotency_key_is_paid_once(vendor: Vendor, client: openai.OpenAI) -> None:
    for _ in range(2):
        answer = client.embeddings.with_raw_response.create(
            model="icon-clip", input=CAT, extra_headers={"Idempotency-Key": "mine"}
        )
    assert answer.headers["idempotent-replayed"] == "true"
    assert answer.http_response.json()["replayed"] is True


def test_other_media_types_are_refused(vendor: Vendor, api_key: str) -> None:
    headers = {"authorization": f"Bearer {api_key}"}
    form: httpx.Response = vendor.http.post("/v1/embeddings", files={"input": b"x"}, headers=headers)
    assert error_code(form) == "unsupported_media_type"


def _failed(error: Exception) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(error)
    return future
