"""`POST /embed` as its contract says: what is answered, what is refused, and that refusals are free."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from shared.embeddings import EmbedResponse
from shared.encoding import from_wire
from shared.errors import APIError, ErrorCode
from tests.support.vendor_process import wait_until
from tests.vendor_service.hostile_bodies import hanging_up
from tests.vendor_service.local_vendor import (
    LocalVendor,
    ScriptedTexts,
    Vendor,
    error_code,
    image_input,
)
from vendor_service.embed.models import ModelTerms
from vendor_service.encoder.engine import Engine
from vendor_service.encoder.queries import Prepared

CAT = {"text": "a photo of a cat"}


def test_texts_and_images_are_answered_in_order_as_unit_vectors(vendor: Vendor) -> None:
    key = vendor.key(quota=10)
    answer = vendor.embed(key, CAT, image_input(), {"text": "a dog"}, model="icon-clip")
    assert answer.status_code == 200, answer.text
    response = EmbedResponse.model_validate_json(answer.content)
    assert [(each.index, each.kind) for each in response.data] == [(0, "text"), (1, "image"), (2, "text")]
    rows = np.stack([from_wire(each.embedding, response.dimensions) for each in response.data])
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert response.usage.model_dump() == {"images": 1, "texts": 2, "billed_queries": 3, "cost_micros": 140}
    assert response.id == answer.headers["x-request-id"]
    assert not response.replayed
    assert answer.headers["x-model-fingerprint"] == response.model_fingerprint
    assert answer.headers["x-cost-micros"] == "140"
    assert answer.headers["x-quota-remaining-queries"] == "7"


def test_both_encodings_carry_the_same_numbers(vendor: Vendor) -> None:
    key = vendor.key()
    answers = [
        vendor.embed(key, CAT, encoding=encoding).json()["data"][0] for encoding in ("float", "base64")
    ]
    floats, packed = (from_wire(each["embedding"], 256) for each in answers)
    assert np.array_equal(floats, packed)


@pytest.mark.parametrize(
    ("inputs", "rest", "code", "param"),
    [
        ([], {}, "empty_input", "inputs"),
        ([{"text": "  "}], {}, "empty_input", "inputs.0.text"),
        ([CAT, {"image": ""}], {}, "empty_input", "inputs.1.image"),
        ([CAT] * 9, {}, "too_many_inputs", "inputs"),
        ([{"text": "x" * 1001}], {}, "invalid_request", "inputs.0.text"),
        ([{"text": "nul \0 inside"}], {}, "invalid_request", "inputs.0.text"),
        ([{"text": "a", "image": "b"}], {}, "invalid_request", "inputs.0"),
        ([{}], {}, "invalid_request", "inputs.0"),
        ([{"url": "http://127.0.0.1/"}], {}, "invalid_request", "inputs.0.url"),
        ([CAT], {"encoding": "hex"}, "invalid_request", "encoding"),
        ([CAT], {"colour": "blue"}, "invalid_request", "colour"),
        ([CAT], {"model": "ViT-B-32"}, "model_not_found", "model"),
        ([CAT, {"image": "no base64!"}], {}, "invalid_image", "inputs.1.image"),
        ([CAT], {"headers": {"x-max-cost-micros": "19"}}, "max_cost_exceeded", None),
        ([CAT], {"headers": {"x-max-cost-micros": "-1"}}, "invalid_request", "x-max-cost-micros"),
        (
            [CAT],
            {"headers": {"x-expect-fingerprint": "fp_0"}},
            "fingerprint_mismatch",
            "x-expect-fingerprint",
        ),
        ([CAT], {"headers": {"idempotency-key": "k" * 256}}, "invalid_request", "idempotency-key"),
        ([CAT], {"headers": {"accept": "image/png"}}, "not_acceptable", "accept"),
        ([CAT], {"headers": {"content-type": "text/plain"}}, "unsupported_media_type", "content-type"),
    ],
)
def test_what_cannot_be_answered_is_named_and_free(
    vendor: Vendor, inputs: list[Any], rest: dict[str, Any], code: str, param: str | None
) -> None:
    key = vendor.key()
    answer = vendor.embed(key, *inputs, **rest)
    assert error_code(answer) == code
    assert answer.json()["error"]["param"] == param
    account = vendor.account(key)
    assert (account.queries_used, account.queries_held, account.spent_micros, account.ledger_seq) == (
        0,
        0,
        0,
        0,
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'{"inputs": [{"text": "cut',
        b'{"inputs": [{"text": "\\ud800"}]}',
        b'{"inputs": [{"text": "\xff\xfe"}]}',
        b"[" * 100_000,
        b'{"inputs": [' + b"0," * 90_000 + b"0]}",
    ],
)
def test_a_body_that_is_no_request_is_a_422(vendor: Vendor, body: bytes) -> None:
    headers = {"authorization": f"Bearer {vendor.key()}", "content-type": "application/json"}
    assert error_code(vendor.http.post("/embed", content=body, headers=headers)) == "invalid_request"


def test_a_body_over_the_limit_is_refused_while_it_is_read(vendor: Vendor) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(20_000):
            yield b"x" * 1000

    headers = {"authorization": f"Bearer {vendor.key()}", "content-type": "application/json"}
    assert error_code(vendor.http.post("/embed", content=endless(), headers=headers)) == "request_too_large"


def test_skip_answers_and_charges_the_good_inputs_only(vendor: Vendor) -> None:
    key = vendor.key()
    answer = vendor.embed(key, image_input(b"text"), CAT, {"image": "%"}, image_input(), on_error="skip")
    response = EmbedResponse.model_validate_json(answer.content)
    assert [each.index for each in response.data] == [1, 3]
    assert [(each.index, each.code) for each in response.errors] == [
        (0, "unsupported_image_format"),
        (2, "invalid_image"),
    ]
    assert response.usage.cost_micros == 120
    assert vendor.account(key).spent_micros == 120


def test_skip_with_nothing_good_is_an_answer_that_costs_nothing(vendor: Vendor) -> None:
    key = vendor.key(quota=1)
    answer = vendor.embed(key, image_input(b"text"), image_input(b"text"), on_error="skip")
    assert answer.status_code == 200
    assert answer.json()["usage"]["cost_micros"] == 0
    assert vendor.account(key).ledger_seq == 0


@pytest.mark.parametrize("authorization", [None, "Bearer", "Bearer tk_1_2", "Basic dTpw", "Bearer tk_é"])
def test_without_a_good_key_nothing_is_answered(vendor: Vendor, authorization: str | None) -> None:
    sent = {} if authorization is None else {"authorization": authorization}
    headers = httpx.Headers(sent, encoding="utf-8")
    for answer in (
        vendor.http.post("/embed", json={"inputs": [CAT]}, headers=headers),
        vendor.http.get("/v1/account", headers=headers),
    ):
        assert error_code(answer) == "invalid_api_key"
        assert answer.headers["www-authenticate"] == "Bearer"


def test_a_wrong_secret_of_a_real_key_is_refused(vendor: Vendor) -> None:
    key = vendor.key()
    other = key[:-1] + ("0" if key[-1] != "0" else "1")
    assert error_code(vendor.embed(other, CAT)) == "invalid_api_key"


@pytest.mark.parametrize(("path", "code"), [("/nothing", "not_found"), ("/embed", "method_not_allowed")])
def test_the_frameworks_own_errors_have_the_same_body(vendor: Vendor, path: str, code: str) -> None:
    assert error_code(vendor.http.get(path)) == code


def test_a_repeated_request_is_answered_again_and_paid_once(vendor: Vendor) -> None:
    key = vendor.key(quota=2)
    once = {"idempotency-key": "purchase 1"}
    first = vendor.embed(key, CAT, image_input(), headers=once)
    again = vendor.embed(key, CAT, image_input(), headers=once)
    assert again.status_code == 200
    assert again.json() == first.json() | {"replayed": True}
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert vendor.account(key).queries_used == 2
    assert error_code(vendor.embed(key, CAT, headers=once)) == "idempotency_key_reused"
    assert error_code(vendor.embed(key, CAT)) == "quota_exhausted"
    assert (
        error_code(vendor.embed(vendor.key(quota=0), CAT, image_input(), headers=once)) == "quota_exhausted"
    )


def test_what_was_paid_for_is_not_answered_with_fewer_or_more(
    vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, taken = Engine.prepare, [True]

    async def some(*arguments: Any, **options: Any) -> list[Prepared | APIError]:
        all_of_them = await prepare(*arguments, **options)
        refused = APIError(ErrorCode.IMAGE_TOO_LARGE, "it is too large")
        return [each if took else refused for each, took in zip(all_of_them, taken, strict=True)]

    def ask(*which: bool) -> httpx.Response:
        taken[:] = which
        images = [image_input()] * 3
        return vendor.embed(key, *images, on_error="skip", headers={"idempotency-key": "purchase 3"})

    monkeypatch.setattr(Engine, "prepare", some)
    key = vendor.key()
    assert ask(True, True, False).json()["usage"]["images"] == 2
    assert error_code(ask(True, False, False)) == "conflict"
    assert error_code(ask(False, False, False)) == "conflict"
    assert error_code(ask(True, True, True)) == "idempotency_key_expired"
    assert ask(True, True, False).json()["replayed"]
    assert vendor.account(key).queries_used == 2


def test_a_refused_request_leaves_its_idempotency_key_free(vendor: Vendor) -> None:
    key = vendor.key()
    once = {"idempotency-key": "purchase 2"}
    assert error_code(vendor.embed(key, {"image": "%"}, headers=once)) == "invalid_image"
    assert vendor.embed(key, CAT, headers=once).json()["replayed"] is False


def test_the_quota_says_when_it_resets(vendor: Vendor) -> None:
    answer = vendor.embed(vendor.key(quota=1), CAT, CAT)
    assert error_code(answer) == "quota_exhausted"
    assert answer.json()["error"]["resets_at"] == "2026-12-01T00:00:00Z"
    assert (
        vendor.embed(vendor.key(quota=1, quota_period="total"), CAT, CAT).json()["error"]["resets_at"] is None
    )


def test_the_rate_limit_says_when_to_come_back(vendor: LocalVendor) -> None:
    key = vendor.key(queries_per_second=1)
    answer = vendor.embed(key, *[CAT] * 8)
    assert answer.headers["x-ratelimit-limit-queries"] == "10"
    assert answer.headers["x-ratelimit-remaining-queries"] == "2"
    assert answer.headers["x-ratelimit-reset-queries"] == "8"
    refused = vendor.embed(key, *[CAT] * 8)
    assert error_code(refused) == "rate_limited"
    assert refused.headers["retry-after"] == "6"
    vendor.clock.advance(6)
    assert vendor.embed(key, *[CAT] * 8).status_code == 200


def test_a_failing_model_fails_its_batch_free_of_charge_and_says_nothing_of_why(
    scripted: ScriptedTexts, tmp_path: Path
) -> None:
    with LocalVendor(tmp_path) as vendor:
        key = vendor.key()
        answer = vendor.embed(key, {"text": "explode"})
        assert error_code(answer) == "internal_error"
        assert "secret" not in answer.text
        assert vendor.embed(key, CAT).status_code == 200
        account = vendor.account(key)
        assert (account.queries_used, account.queries_held, account.ledger_seq) == (1, 0, 1)


def test_dates_of_a_model_that_cannot_be_told_fail_before_anything_is_charged(
    vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModelTerms, "headers", property(lambda _: 1 / 0))
    key = vendor.key()
    assert error_code(vendor.embed(key, CAT)) == "internal_error"
    account = vendor.account(key)
    assert (account.queries_used, account.queries_held, account.ledger_seq) == (0, 0, 0)


def test_while_a_request_is_in_flight(scripted: ScriptedTexts, tmp_path: Path) -> None:
    """Its idempotency key is taken, its queries are held, and what does not fit the queue is turned away."""
    with LocalVendor(tmp_path, max_inputs=4, max_queued_inputs=4) as vendor, ThreadPoolExecutor() as pool:
        key = vendor.key(quota=10)
        once = {"idempotency-key": "slow"}
        slow = pool.submit(vendor.embed, key, {"text": "wait"}, headers=once)
        assert scripted.waiting.wait(10)
        twin = vendor.embed(key, {"text": "wait"}, headers=once)
        assert error_code(twin) == "idempotency_in_flight"
        assert twin.headers["retry-after"] == "1"
        assert vendor.account(key).queries_held == 1
        crowd = vendor.embed(vendor.key(), CAT, CAT, CAT, CAT)
        assert error_code(crowd) == "overloaded"
        assert crowd.headers["retry-after"] == "1"
        scripted.go.set()
        assert slow.result().status_code == 200
        account = vendor.account(key)
        assert (account.queries_used, account.queries_held) == (1, 0)


def test_a_caller_that_hangs_up_is_neither_encoded_nor_charged(
    scripted: ScriptedTexts, tmp_path: Path
) -> None:
    with LocalVendor(tmp_path) as vendor, ThreadPoolExecutor() as pool:
        key, patient = vendor.key(), vendor.key()
        ahead = pool.submit(vendor.embed, patient, {"text": "wait"})
        assert scripted.waiting.wait(10)
        with hanging_up(str(vendor.http.base_url), key, {"text": "gone"}):
            wait_until(lambda: vendor.account(key).queries_held == 1)
        wait_until(lambda: vendor.account(key).queries_held == 0)
        scripted.go.set()
        assert ahead.result().status_code == 200
        assert vendor.account(key).ledger_seq == 0
        assert "gone" not in scripted.seen


def test_two_replicas_serve_at_once_and_give_the_same_vectors(
    scripted: ScriptedTexts, tmp_path: Path
) -> None:
    with LocalVendor(tmp_path, device="cpu,cpu", dtype="float32") as vendor, ThreadPoolExecutor() as pool:
        inputs = ({"text": "wait"}, CAT, image_input())
        asked = [pool.submit(vendor.embed, vendor.key(), *inputs)]
        assert scripted.waiting.wait(10)
        asked += [pool.submit(vendor.embed, vendor.key(), *inputs)]
        # The first stands still in one replica: only another one can come to the second.
        wait_until(lambda: scripted.seen.count("wait") == 2)
        scripted.go.set()
        one, other = (
            [from_wire(row["embedding"], 256) for row in each.result().json()["data"]] for each in asked
        )
        assert np.allclose(one, other, rtol=0, atol=1e-5)


def test_an_answer_that_takes_too_long_is_not_charged(scripted: ScriptedTexts, tmp_path: Path) -> None:
    with LocalVendor(tmp_path, request_timeout_seconds=1) as vendor:
        key = vendor.key()
        assert error_code(vendor.embed(key, {"text": "wait"})) == "deadline_exceeded"
        scripted.go.set()
        account = vendor.account(key)
        assert (account.queries_used, account.queries_held, account.ledger_seq) == (0, 0, 0)


def test_many_callers_never_pass_a_quota_and_never_miss_it(vendor: Vendor) -> None:
    key = vendor.key(quota=23)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: vendor.embed(key, CAT), range(60)))
    codes = [200 if each.status_code == 200 else error_code(each) for each in answers]
    assert codes.count(200) == 23
    assert codes.count("quota_exhausted") == 37
    account = vendor.account(key)
    assert (account.queries_used, account.queries_held, account.ledger_seq) == (23, 0, 23)


def test_the_openapi_document_is_whole(vendor: Vendor) -> None:
    document = vendor.http.get("/openapi.json").json()

    def references(node: Any) -> list[str]:
        if isinstance(node, list):
            return [each for child in node for each in references(child)]
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [each for child in node.values() for each in references(child)]
        return []

    for reference in references(document):
        target = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]
    assert "HTTPValidationError" not in json.dumps(document)
    embed = document["paths"]["/embed"]["post"]
    assert set(embed["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    assert embed["security"]
