"""Bulk jobs over HTTP, by the unchanged SDK of OpenAI: files in, a job, its answers out, at half price."""

import asyncio
import errno
import hashlib
import json
import logging
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import jwt
import numpy as np
import openai
import pytest
from fsspec.implementations.local import LocalFileOpener
from sqlalchemy import select

from shared.encoding import from_wire
from shared.http.logging import TextFormatter
from shared.processes import worker
from shared.receipts import ReceiptClaims, Sold, answer_hash, request_hash, vector_digest
from tests.support.vendor_process import wait_until
from tests.vendor_service.batches.held_model import HeldModel
from tests.vendor_service.books import lose_answers
from tests.vendor_service.conftest import LIMITS
from tests.vendor_service.hostile_bodies import head
from tests.vendor_service.local_vendor import LocalVendor, error_code, image_file, image_input
from vendor_service.accounts.keys import Scope, revoke_key
from vendor_service.audit import log
from vendor_service.batches import limits, runner
from vendor_service.batches.files import input_name
from vendor_service.batches.intake import Intake
from vendor_service.batches.store import Store
from vendor_service.clock import DAY
from vendor_service.database.tables import Account, ApiKey, StoredFile, WebhookEvent
from vendor_service.http.account_threads import AccountThreads
from vendor_service.money import rate
from vendor_service.money.verification import verify
from vendor_service.run.chores import Chore

CAT = "a photo of a cat"
ENDED = {"completed", "cancelled", "expired"}


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalVendor]:
    folder = tmp_path_factory.mktemp("vendor")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(limits, "MOST_LINES", 200)
        with LocalVendor(
            folder, **LIMITS, batch_store=str(folder / "store"), batch_account_bytes=300_000
        ) as local:
            yield local


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[HeldModel]:
    held = HeldModel(monkeypatch)
    held.stop_at("nowhere")
    yield held
    held.go()


@pytest.fixture
def api_key(vendor: LocalVendor) -> str:
    return vendor.key()


@pytest.fixture
def client(vendor: LocalVendor, api_key: str) -> Iterator[openai.OpenAI]:
    url = f"http://127.0.0.1:{vendor.port}/v1"
    with openai.OpenAI(base_url=url, api_key=api_key, max_retries=0, timeout=30) as opened:
        yield opened


def line(custom_id: str, *given: Any, url: str = "/v1/embeddings", **rest: Any) -> str:
    body = {"model": "icon-clip", "input": list(given)} if url != "/embed" else {"inputs": list(given)}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body | rest})


def begin(client: openai.OpenAI, *lines: str, endpoint: Any = "/v1/embeddings", **rest: Any) -> Any:
    file = client.files.create(file=("in.jsonl", "\n".join(lines).encode()), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **rest)


def ended(client: openai.OpenAI, job: Any) -> Any:
    wait_until(lambda: client.batches.retrieve(job.id).status in ENDED, 20)
    return client.batches.retrieve(job.id)


def completed(client: openai.OpenAI, job: Any) -> int:
    counts = client.batches.retrieve(job.id).request_counts
    assert counts is not None
    return counts.completed


def answers(client: openai.OpenAI, file_id: str | None) -> dict[str, Any]:
    if file_id is None:
        return {}
    lines = client.files.content(file_id).text.splitlines()
    return {each["custom_id"]: each for each in map(json.loads, lines)}


def problem(vendor: LocalVendor, api_key: str) -> str | None:
    with vendor.books.read() as session:
        return verify(session, session.get_one(Account, vendor.account(api_key).id)).problem


def test_the_sdk_runs_a_job_with_texts_and_images(
    vendor: LocalVendor, client: openai.OpenAI, api_key: str
) -> None:
    job = begin(
        client,
        line("texts", CAT, "a dog", encoding_format="base64"),
        line("image", image_input()),
        line("mixed", CAT, image_input()),
        metadata={"name": "mine"},
    )
    assert (job.request_counts.total, job.metadata) == (3, {"name": "mine"})
    done = ended(client, job)
    assert (done.status, done.error_file_id) == ("completed", None)
    assert (done.request_counts.completed, done.request_counts.failed) == (3, 0)
    found = answers(client, done.output_file_id)
    expected = vendor.embed(vendor.key(), {"text": CAT}, {"text": "a dog"}, image_input()).json()["data"]
    cat, dog, image = (each["embedding"] for each in expected)
    bodies = {name: each["response"]["body"] for name, each in found.items()}
    assert np.allclose(
        [from_wire(each["embedding"], 256) for each in bodies["texts"]["data"]], [cat, dog], atol=1e-5
    )
    assert np.allclose(bodies["image"]["data"][0]["embedding"], image, atol=1e-5)
    assert np.allclose([each["embedding"] for each in bodies["mixed"]["data"]], [cat, image], atol=1e-5)
    assert [each["usage"]["cost_micros"] for each in bodies.values()] == [20, 50, 60]
    account = vendor.account(api_key)
    assert (account.spent_micros, account.queries_used, account.held_micros) == (130, 5, 0)
    assert problem(vendor, api_key) is None


def test_bad_lines_are_told_in_the_error_file_and_cost_nothing(
    vendor: LocalVendor, client: openai.OpenAI, api_key: str
) -> None:
    bad_image = {"image": "bm90IGFuIGltYWdl"}
    job = begin(
        client,
        line("good", CAT),
        '{"custom_id": "broken", "method": "POST", ',
        "",
        line("good", "a dog"),
        line("elsewhere", {"text": CAT}, url="/embed"),
        line("other model", CAT, model="ViT-B-32"),
        line("bad image", bad_image, CAT),
        line("many", *["x"] * 9),
        line("none"),
        line("unknown", CAT, unknown=1),
        line("dimensions", CAT, dimensions=3),
        json.dumps({"method": "POST", "url": "/v1/embeddings", "body": {}}),
    )
    done = ended(client, job)
    assert (done.status, done.request_counts.completed, done.request_counts.failed) == ("completed", 1, 10)
    assert list(answers(client, done.output_file_id)) == ["good"]
    errors = [json.loads(each) for each in client.files.content(done.error_file_id).text.splitlines()]
    told = [(each["custom_id"], each["response"]["body"]["error"]) for each in errors]
    assert [(name, error["code"]) for name, error in told] == [
        ("broken", "invalid_request"),
        ("good", "invalid_request"),
        ("elsewhere", "invalid_request"),
        ("other model", "invalid_request"),
        ("bad image", "unsupported_image_format"),
        ("many", "too_many_inputs"),
        ("none", "empty_input"),
        ("unknown", "invalid_request"),
        ("dimensions", "invalid_request"),
        (None, "invalid_request"),
    ]
    assert told[0][1]["message"].startswith("line 2: ")
    assert told[4][1]["message"].startswith("line 6: input.0.image: ")
    assert all(each["response"]["status_code"] in (400, 422) for each in errors)
    account = vendor.account(api_key)
    assert (account.spent_micros, account.queries_used, account.held_micros) == (10, 1, 0)
    assert problem(vendor, api_key) is None


def test_a_model_takes_no_more_inputs_in_a_line_than_in_a_request(
    vendor: LocalVendor, client: openai.OpenAI, api_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = vendor.app.state.models.default
    limits = served.terms.limits.model_copy(update={"max_inputs": 2})
    monkeypatch.setattr(served, "terms", replace(served.terms, limits=limits))
    assert error_code(vendor.embed(api_key, *[{"text": CAT}] * 3)) == "too_many_inputs"
    done = ended(client, begin(client, line("two", CAT, "a dog"), line("three", CAT, "a dog", "a cow")))
    assert list(answers(client, done.output_file_id)) == ["two"]
    refused = answers(client, done.error_file_id)["three"]["response"]
    assert (refused["status_code"], refused["body"]["error"]["code"]) == (400, "too_many_inputs")
    account = vendor.account(api_key)
    assert (account.spent_micros, account.queries_used, account.held_micros) == (20, 2, 0)
    assert problem(vendor, api_key) is None


def test_blank_lines_are_passed_over_and_not_read(
    vendor: LocalVendor, client: openai.OpenAI, api_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: dict[str, list[int]] = {}
    read = Store.read

    def measured(store: Store, name: str, first: int, size: int) -> bytes:
        sizes.setdefault(name, []).append(size)
        return read(store, name, first, size)

    monkeypatch.setattr("vendor_service.batches.intake._PIECE_BYTES", 1000)
    monkeypatch.setattr(Store, "read", measured)
    blank = [" " * 300] * 40
    done = ended(client, begin(client, *blank, line("a", CAT), *blank, "{}", line("b", "a dog"), *blank))
    assert (done.status, done.request_counts.completed, done.request_counts.failed) == ("completed", 2, 1)
    assert set(answers(client, done.output_file_id)) == {"a", "b"}
    assert next(iter(answers(client, done.error_file_id).values()))["id"].endswith("-1")
    assert max(sizes[input_name(done.input_file_id)]) <= 1000
    assert problem(vendor, api_key) is None


def test_embed_passes_over_what_is_bad_if_it_is_asked_to(client: openai.OpenAI) -> None:
    bad = {"image": "bm90IGFuIGltYWdl"}
    lines = [
        line(name, bad, *good, url="/embed", on_error="skip")
        for name, good in (("a", [{"text": CAT}]), ("b", []))
    ]
    done = ended(client, begin(client, *lines, endpoint="/embed"))
    found = answers(client, done.output_file_id)
    body = found["a"]["response"]["body"]
    assert [each["index"] for each in body["data"]] == [1]
    assert [each["code"] for each in body["errors"]] == ["unsupported_image_format"]
    assert [found[name]["response"]["body"]["usage"]["cost_micros"] for name in "ab"] == [10, 0]


def test_the_jobs_of_an_account_wait_for_what_was_decoded_of_them_in_vain_and_its_requests_do_not(
    vendor: LocalVendor, client: openai.OpenAI, api_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate, "UNPAID_BURST", 32)
    monkeypatch.setattr(runner, "_AT_ONCE", 1)
    bad = {"image": "bm90IGFuIGltYWdl"}
    job = begin(client, *[line(str(number), bad) for number in range(80)])

    def failed() -> int:
        counts = client.batches.retrieve(job.id).request_counts
        assert counts is not None
        return counts.failed

    wait_until(lambda: failed() == 64, 20)  # of the first chunk
    assert vendor.embed(api_key, {"text": CAT}).status_code == 200
    other = openai.OpenAI(base_url=client.base_url, api_key=vendor.key(), max_retries=0, timeout=30)
    with other:
        assert ended(other, begin(other, line("a", CAT))).status == "completed"
    assert failed() == 64
    vendor.clock.advance(3)
    assert ended(client, job).request_counts.failed == 80


def test_lines_take_of_the_allowance_what_of_them_was_prepared_and_is_not_charged(
    vendor: LocalVendor, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    monkeypatch.setattr(rate.Allowance, "take_for_job", lambda *given: taken.append(given[2]))
    monkeypatch.setattr(worker, "believed", lambda _: 0.5)  # so long took each
    bad, good = {"image": "bm90IGFuIGltYWdl"}, {"text": CAT}
    lines = [
        line("good", good, url="/embed"),
        line("bad", good, bad, good, url="/embed"),
        line("passed over", bad, good, url="/embed", on_error="skip"),
        line("not prepared", {"text": ""}, url="/embed"),
    ]
    assert ended(client, begin(client, *lines, endpoint="/embed")).request_counts.failed == 2
    assert taken == [3 * 8 + 8 + 1]


def test_what_is_in_hand_when_a_job_ends_takes_of_the_allowance_once(
    vendor: LocalVendor, client: openai.OpenAI, model: HeldModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    monkeypatch.setattr(rate.Allowance, "take_for_job", lambda *given: taken.append(given[2]))
    monkeypatch.setattr(worker, "believed", lambda _: 0.5)  # so long took each
    model.stop_at("wait")
    bad = {"image": "bm90IGFuIGltYWdl"}
    lines = [
        line("good", {"text": "wait"}, {"text": CAT}, url="/embed"),
        line("bad", {"text": CAT}, bad, url="/embed"),
        line("passed over", bad, {"text": CAT}, url="/embed", on_error="skip"),
    ]
    begin(client, *lines, endpoint="/embed")
    assert model.stopped.wait(10)
    refused = 2 * 8 + 8
    assert taken == [refused]
    vendor.clock.advance(24 * 3600 + 1)
    assert vendor.app.state.batches.jobs.end_overdue() == 1
    model.go()
    wait_until(lambda: not vendor.app.state.batches.runner.busy)
    assert taken == [refused, 2 * 8 + 8]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file has no lines"),
        (image_file(), "no line of this file can be asked"),
        (b"x" * 200_001, "line 1 is longer than 200000 bytes"),
        (b'{"custom_id": 1}\n' * 201, "a file may have 200 lines"),
    ],
)
def test_wrong_files_are_refused_when_they_come(
    vendor: LocalVendor, client: openai.OpenAI, content: bytes, message: str
) -> None:
    with pytest.raises(openai.APIStatusError, match=message):
        client.files.create(file=("in.jsonl", content), purpose="batch")
    assert list(client.files.list()) == []
    with vendor.books.read() as session:
        assert list(session.scalars(select(StoredFile).where(StoredFile.state != "ready"))) == []


def test_no_name_with_the_character_nul_goes_into_the_books(
    vendor: LocalVendor, client: openai.OpenAI, api_key: str
) -> None:
    headers = {"authorization": f"Bearer {api_key}", "content-type": "multipart/form-data; boundary=b"}
    head = 'content-disposition: form-data; name="file"; filename="in\0.jsonl"'
    form = f"--b\r\n{head}\r\n\r\n{line('a', CAT)}\r\n--b--\r\n"
    answer = vendor.http.post("/v1/files", content=form, headers=headers)
    assert (error_code(answer), "NUL" in answer.text) == ("invalid_request", True)
    with pytest.raises(openai.UnprocessableEntityError, match="NUL"):
        begin(client, line("a", CAT), metadata={"a": "\0"})


def test_a_file_is_listed_read_and_deleted_by_its_account_alone(
    vendor: LocalVendor, client: openai.OpenAI
) -> None:
    content = (line("a", CAT) + "\n\n" + line("b", "é")).encode()
    files = []
    for name in "abc":
        files.append(client.files.create(file=(f"{name}.jsonl", content), purpose="batch"))
        vendor.clock.advance(1)
    assert [each.id for each in client.files.list(limit=2)] == [each.id for each in reversed(files)]
    assert [each.filename for each in client.files.list(order="asc", limit=1)] == [
        "a.jsonl",
        "b.jsonl",
        "c.jsonl",
    ]
    assert list(client.files.list(purpose="batch_output")) == []
    assert client.files.content(files[0].id).content == content
    stranger = {"authorization": f"Bearer {vendor.key()}"}
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        answer = vendor.http.request(method, f"/v1/files/{files[0].id}{path}", headers=stranger)
        assert error_code(answer) == "not_found"
    assert client.files.delete(files[0].id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(files[0].id)
    much = content + b"\n" * 100_000
    for _ in range(2):
        client.files.create(file=("much", much), purpose="batch")
    with pytest.raises(openai.APIStatusError, match="delete some"):
        client.files.create(file=("much", much), purpose="batch")


def test_files_can_be_deleted_while_they_are_listed(
    vendor: LocalVendor, client: openai.OpenAI, api_key: str
) -> None:
    of_account = {
        "account_id": vendor.account(api_key).id,
        "project_id": "",
        "purpose": "batch",
        "state": "ready",
    }
    with vendor.books.write() as session:
        for number in range(101):
            times = {"created_at": number, "expires_at": vendor.clock() + DAY}
            session.add(StoredFile(id=f"file-listed-{number}", name="in", bytes=0, **of_account, **times))
    for file in client.files.list():
        client.files.delete(file.id)
    assert list(client.files.list()) == []


def test_a_file_that_comes_without_its_size_is_refused_once_there_is_no_room(
    vendor: LocalVendor, api_key: str
) -> None:
    def is_coming() -> bool:
        with vendor.books.read() as session:
            return session.scalars(select(StoredFile).where(StoredFile.state != "ready")).first() is not None

    def form() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
        wait_until(is_coming, 20)
        yield b"\n" * 1_000_000
        wait_until(lambda: not is_coming(), 20)  # before the end has come

    headers = {"authorization": f"Bearer {api_key}", "content-type": "multipart/form-data; boundary=x"}
    refused = vendor.http.post("/v1/files", content=form(), headers=headers)
    assert (refused.status_code, error_code(refused)) == (413, "request_too_large")
    assert "delete some" in refused.text


def test_the_price_of_all_lines_is_held_against_every_limit(vendor: LocalVendor) -> None:
    lines = [line(str(number), image_input()) for number in range(4)]
    for code, terms in (
        ("quota_exhausted", {"quota": 3}),
        ("spend_limit_reached", {"spend_limit_micros": 199}),
        ("insufficient_credit", {"credit_micros": 199}),
        ("coverage_limit_reached", {"coverage_limit": 3}),
    ):
        api_key = vendor.key(**terms)
        with openai.OpenAI(
            base_url=f"http://127.0.0.1:{vendor.port}/v1", api_key=api_key, max_retries=0
        ) as client:
            with pytest.raises(openai.APIStatusError) as refused:
                begin(client, *lines)
            assert refused.value.code == code
            assert list(client.batches.list()) == []
            assert ended(client, begin(client, *lines[:3])).status == "completed"
        assert vendor.account(api_key).spent_micros == 150
        assert problem(vendor, api_key) is None
    limited = vendor.key(queries_per_second=1)  # which is no limit of bulk jobs
    with openai.OpenAI(
        base_url=f"http://127.0.0.1:{vendor.port}/v1", api_key=limited, max_retries=0
    ) as client:
        assert (
            ended(client, begin(client, *[line(str(n), *["x"] * 8) for n in range(3)])).status == "completed"
        )


def test_what_a_job_would_cost_is_told_beforehand(vendor: LocalVendor, api_key: str) -> None:
    asked = {"images": 3, "texts": 2, "batch": True}
    headers = {"authorization": f"Bearer {api_key}"}
    assert vendor.http.post("/v1/estimate", json=asked, headers=headers).json()["cost_micros"] == 170
    (card,) = vendor.http.get("/v1/models").json()["data"]
    assert card["batch_prices"] == {"image_micros": 50, "text_micros": 10}
    paths = vendor.http.get("/openapi.json").json()["paths"]
    assert {"/v1/files", "/v1/files/{file_id}/content", "/v1/batches/{batch_id}/cancel"} <= set(paths)


def test_an_idempotency_key_begins_one_job(vendor: LocalVendor, client: openai.OpenAI, api_key: str) -> None:
    headers = {"Idempotency-Key": "mine", "x-max-cost-micros": "10"}
    first, again = (begin(client, line("a", CAT), extra_headers=headers) for _ in range(2))
    assert first.id == again.id
    assert ended(client, first).status == "completed"
    with pytest.raises(openai.APIStatusError) as refused:
        begin(client, line("a", "a dog"), extra_headers=headers)
    assert refused.value.code == "idempotency_key_reused"
    with pytest.raises(openai.APIStatusError) as refused:
        begin(client, line("a", CAT), extra_headers={"x-max-cost-micros": "9"})
    assert refused.value.code == "max_cost_exceeded"
    with pytest.raises(openai.APIStatusError) as refused:
        begin(client, line("a", CAT), extra_headers={"x-expect-fingerprint": "fp_other"})
    assert refused.value.code == "fingerprint_mismatch"
    assert len(list(client.batches.list())) == 1
    assert vendor.account(api_key).spent_micros == 10


def test_a_job_of_which_nobody_heard_is_found_by_its_key_or_to_be_looked_for(
    vendor: LocalVendor, client: openai.OpenAI, api_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = client.files.create(file=("in.jsonl", line("a", CAT).encode()), purpose="batch")

    def create(key: str | None) -> httpx.Response:
        headers = {"authorization": f"Bearer {api_key}"} | ({} if key is None else {"idempotency-key": key})
        asked = {"input_file_id": file.id, "endpoint": "/v1/embeddings", "completion_window": "24h"}
        return vendor.http.post("/v1/batches", json=asked, headers=headers)

    with monkeypatch.context() as cut:
        lose_answers(cut)
        keyed, keyless = create("mine"), create(None)
    assert (error_code(keyed), error_code(keyless)) == ("overloaded", "overloaded")
    assert "same Idempotency-Key" in keyed.text
    assert keyed.headers["retry-after"] == "1"
    assert "it may have been: look before" in keyless.text
    assert keyless.headers["x-should-retry"] == "false"
    assert len(list(client.batches.list())) == 2
    assert create("mine").json()["id"] in {each.id for each in client.batches.list()}
    assert len(list(client.batches.list())) == 2


def test_what_is_done_when_a_job_is_cancelled_is_kept_and_charged(
    vendor: LocalVendor,
    client: openai.OpenAI,
    api_key: str,
    model: HeldModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[int] = []
    monkeypatch.setattr(rate.Allowance, "take_for_job", lambda *given: taken.append(given[2]))
    monkeypatch.setattr(worker, "believed", lambda _: 0.0)
    model.stop_at("wait")
    many = [line(str(number), f"text {number}") for number in range(64)]
    job = begin(client, *many, line("held up", "wait"), *[line(f"late {n}", f"late {n}") for n in range(70)])
    with pytest.raises(openai.APIStatusError, match="in progress reads this file"):
        client.files.delete(job.input_file_id)
    wait_until(lambda: completed(client, job) == 71)
    assert model.stopped.wait(10)
    assert vendor.account(api_key).held_micros == 640
    wait_until(lambda: "tuition_bulk_jobs 1.0" in vendor.http.get("/metrics").text)  # counted now and then
    assert "tuition_bulk_lines 64.0" in vendor.http.get("/metrics").text
    done = client.batches.cancel(job.id)
    model.go()
    assert done.status == "cancelled"
    assert client.batches.cancel(job.id).cancelled_at == done.cancelled_at
    with vendor.books.read() as session:
        (act,) = [each for each in log.entries(session, limit=1000) if each.action == "batch.cancel"]
    assert act.actor == f"key:{api_key.split('_')[1]}"
    assert (vendor.account(api_key).spent_micros, vendor.account(api_key).held_micros) == (710, 0)
    assert len(answers(client, done.output_file_id)) == 71
    wait_until(lambda: not vendor.app.state.batches.runner.busy)
    assert completed(client, job) == 71
    assert vendor.account(api_key).spent_micros == 710
    assert taken == [64]  # of the chunk that was in hand
    assert problem(vendor, api_key) is None
    assert client.files.delete(job.input_file_id).deleted


def test_a_job_expires_and_what_is_kept_for_long_enough_is_deleted(
    vendor: LocalVendor, client: openai.OpenAI, api_key: str, model: HeldModel
) -> None:
    done = ended(client, begin(client, line("a", CAT)))
    model.stop_at("wait")
    job = begin(client, line("a", "wait"))
    assert model.stopped.wait(10)
    desk, folder = vendor.app.state.batches, Path(vendor.app.state.batches.files.store.root)
    vendor.clock.advance(24 * 3600 - 1)
    assert desk.jobs.end_overdue() == 0
    vendor.clock.advance(2)
    assert desk.jobs.end_overdue() == 1
    model.go()
    assert client.batches.retrieve(job.id).status == "expired"
    assert (vendor.account(api_key).spent_micros, vendor.account(api_key).held_micros) == (10, 0)
    assert client.files.retrieve(done.output_file_id).bytes > 0
    vendor.clock.advance(30 * 24 * 3600)
    wait_until(lambda: not desk.runner.busy)
    desk.files.remove_expired()
    assert list(client.files.list()) == []
    assert client.batches.retrieve(done.id).status == "completed"
    assert [each for each in folder.rglob("*") if each.is_file()] == []
    assert problem(vendor, api_key) is None


def test_a_store_that_hangs_keeps_no_job_from_being_ended(
    vendor: LocalVendor, client: openai.OpenAI, model: HeldModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.stop_at("wait")
    job = begin(client, line("a", "wait"))
    assert model.stopped.wait(10)
    desk, hangs, go = vendor.app.state.batches, threading.Event(), threading.Event()

    def expired() -> list[str]:
        hangs.set()
        go.wait(60)
        return []

    async def keep_up() -> None:
        removing = Chore("removing", desk.files.remove_expired, 0.01, call=desk.files.store.do)
        ending = Chore("ending", desk.jobs.end_overdue, 0.01)
        repeated = asyncio.gather(removing.repeat(), ending.repeat())
        await asyncio.to_thread(hangs.wait, 60)
        vendor.clock.advance(24 * 3600 + 1)
        while (await asyncio.to_thread(client.batches.retrieve, job.id)).status != "expired":
            await asyncio.sleep(0.01)
        repeated.cancel()

    monkeypatch.setattr(desk.files, "expired", expired)
    try:
        asyncio.run(asyncio.wait_for(keep_up(), 60))
    finally:
        go.set()
        model.go()


def test_a_job_ends_with_its_key(
    vendor: LocalVendor, client: openai.OpenAI, api_key: str, model: HeldModel
) -> None:
    model.stop_at("wait")
    job = begin(client, line("a", "wait"))
    assert model.stopped.wait(10)
    another = vendor.another_key(api_key, Scope.EMBED)
    with vendor.books.write() as session:
        revoke_key(session, api_key.split("_")[1], vendor.clock)
    assert vendor.app.state.batches.jobs.end_overdue() == 1
    model.go()
    assert vendor.get(f"/v1/batches/{job.id}", another)["status"] == "cancelled"
    wait_until(lambda: not vendor.app.state.batches.runner.busy)
    assert (vendor.account(another).spent_micros, vendor.account(another).held_micros) == (0, 0)


def test_receipts_of_a_job_prove_its_answers(
    vendor: LocalVendor, client: openai.OpenAI, api_key: str
) -> None:
    texts = [f"text {number}" for number in range(70)]
    lines = [line("refused", CAT, ""), *(line(text, text, encoding_format="base64") for text in texts)]
    job = ended(client, begin(client, *lines))
    found = answers(client, job.output_file_id)
    vectors = [from_wire(found[text]["response"]["body"]["data"][0]["embedding"], 256) for text in texts]
    digests = [
        (hashlib.sha256(text.encode()).hexdigest(), vector_digest(each))
        for text, each in zip(texts, vectors, strict=True)
    ]
    # A chunk has 64 queries, and the two of the line that is refused have their places among them.
    expected = [
        [Sold(place, "text", *digest) for place, digest in enumerate(digests[:62], start=2)],
        [Sold(place, "text", *digest) for place, digest in enumerate(digests[62:])],
    ]
    keys = {each["kid"]: each for each in vendor.http.get("/.well-known/jwks.json").json()["keys"]}
    entries = {each["seq"]: each["entry_hash"] for each in vendor.get("/v1/ledger", api_key)["data"]}
    receipts = [
        *vendor.get(f"/v1/batches/{job.id}/receipts", api_key, limit="1")["data"],
        *vendor.get(f"/v1/batches/{job.id}/receipts", api_key, after="0")["data"],
    ]
    assert [(each["first_line"], each["lines"]) for each in receipts] == [(0, 63), (63, 8)]
    beyond = f"/v1/batches/{job.id}/receipts?after={10**20}"
    answer = vendor.http.get(beyond, headers={"authorization": f"Bearer {api_key}"})
    assert error_code(answer) == "invalid_request"
    for token, sold in zip((each["receipt"] for each in receipts), expected, strict=True):
        key = jwt.PyJWK(keys[jwt.get_unverified_header(token)["kid"]])
        claims = ReceiptClaims.model_validate(
            jwt.decode(token, key, algorithms=["EdDSA"], options={"verify_iat": False})
        )
        assert (claims.cost_micros, claims.texts) == (10 * len(sold), len(sold))
        assert claims.entry_hash == entries[claims.ledger_seq]
        assert (claims.request_hash, claims.answer_hash) == (request_hash(sold), answer_hash(sold))


def test_receipts_of_jobs_are_signed_at_the_rate_of_questions_about_the_past(
    vendor: LocalVendor, client: openai.OpenAI, api_key: str
) -> None:
    path = f"/v1/batches/{ended(client, begin(client, line('a', CAT))).id}/receipts"
    assert len(vendor.get(path, api_key, limit="1000")["data"]) == 1
    for _ in range(2):
        refused = vendor.http.get(f"{path}?limit=1000", headers={"authorization": f"Bearer {api_key}"})
        assert error_code(refused) == "rate_limited"
        assert int(refused.headers["retry-after"]) in (7, 8)
    vendor.get("/v1/ledger/head", vendor.key())  # another account has a rate of its own


def test_the_end_of_a_job_is_told_to_receivers_once(vendor: LocalVendor, client: openai.OpenAI) -> None:
    job = ended(client, begin(client, line("a", CAT)))
    with vendor.books.read() as session:
        told = session.scalars(select(WebhookEvent).where(WebhookEvent.kind == "batch.completed"))
        mine = [each for event in told if (each := json.loads(event.content)["data"])["id"] == job.id]
    assert [(each["completed"], each["cost_micros"]) for each in mine] == [(1, 10)]


def test_what_fails_is_tried_again_and_harms_no_neighbour(
    vendor: LocalVendor,
    client: openai.OpenAI,
    api_key: str,
    model: HeldModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner, "_LATER_SECONDS", 0.0)
    job = ended(client, begin(client, line("good", "good"), line("bad", "explode"), line("too", "good too")))
    assert (job.request_counts.completed, job.request_counts.failed) == (2, 1)
    (error,) = answers(client, job.error_file_id).values()
    assert error["response"]["body"]["error"]["code"] == "internal_error"
    assert "secret" not in json.dumps(error)
    assert vendor.account(api_key).spent_micros == 20
    assert problem(vendor, api_key) is None


def uploads(vendor: LocalVendor) -> int:
    with vendor.books.read() as session:
        return len(session.scalars(select(StoredFile).where(StoredFile.state == "coming")).all())


def test_who_hangs_up_while_a_file_is_sent_is_no_fault_of_the_store(
    vendor: LocalVendor, api_key: str, caplog: pytest.LogCaptureFixture
) -> None:
    lines = ("content-type: multipart/form-data; boundary=b", "content-length: 1000")
    with caplog.at_level(logging.INFO, "shared"):
        with socket.create_connection(("127.0.0.1", vendor.port)) as caller:
            caller.sendall(head("/v1/files", *lines, api_key=api_key) + b"--b\r\n")
            wait_until(lambda: uploads(vendor) == 1, 20)
        wait_until(lambda: any("499" in TextFormatter().format(record) for record in caplog.records), 20)
    assert {record.levelname for record in caplog.records} == {"INFO"}
    assert uploads(vendor) == 0


def test_a_fault_while_a_file_is_taken_is_none_of_the_store_unless_it_is_one(
    vendor: LocalVendor, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a mistake")

    file = ("in.jsonl", line("a", CAT).encode())
    with monkeypatch.context() as patch:
        patch.setattr(Intake, "feed", fail)
        with pytest.raises(openai.InternalServerError, match="something went wrong here"):
            client.files.create(file=file, purpose="batch")
    with monkeypatch.context() as patch:
        patch.setattr(LocalFileOpener, "write", fail, raising=False)
        with pytest.raises(openai.InternalServerError, match="full or away"):
            client.files.create(file=file, purpose="batch")
    assert uploads(vendor) == 0


def test_a_store_that_is_full_or_away_puts_off_what_needs_it(
    vendor: LocalVendor, client: openai.OpenAI, api_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_LATER_SECONDS", 0.0)
    full: list[str] = []
    fsync = os.fsync

    def refuse(descriptor: int) -> None:
        if full:
            full.append("asked")
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    file = client.files.create(file=("in", line("a", CAT).encode()), purpose="batch")
    full.append("begun")
    with pytest.raises(openai.InternalServerError, match="full or away"):
        client.files.create(file=("in", line("b", CAT).encode()), purpose="batch")
    job = client.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")
    wait_until(lambda: len(full) > 3)
    assert client.batches.retrieve(job.id).status == "in_progress"
    assert (vendor.account(api_key).spent_micros, vendor.account(api_key).held_micros) == (0, 10)
    full.clear()
    assert ended(client, job).status == "completed"
    assert (vendor.account(api_key).spent_micros, vendor.account(api_key).held_micros) == (10, 0)
    assert [each.id for each in client.files.list(purpose="batch")] == [file.id]


def test_a_store_that_hangs_holds_up_nobody_who_does_not_need_it(
    vendor: LocalVendor, api_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, writing = threading.Event(), Store.writing

    @contextmanager
    def hangs(store: Store, name: str) -> Iterator[Any]:
        go.wait(60)
        with writing(store, name) as write:
            yield write

    def send(number: int) -> int:
        form = {"file": ("in", line(str(number), CAT).encode())}
        return caller.post("/v1/files", files=form, data={"purpose": "batch"}).status_code

    monkeypatch.setattr(Store, "writing", hangs)
    headers = {"authorization": f"Bearer {api_key}"}
    url = f"http://127.0.0.1:{vendor.port}"
    with httpx.Client(base_url=url, headers=headers, timeout=90) as caller, ThreadPoolExecutor(40) as pool:
        sent = [pool.submit(send, number) for number in range(40)]
        try:
            wait_until(lambda: uploads(vendor) == 40, 20)  # as many as hang, and more than there are threads
            assert caller.get("/v1/account", timeout=20).status_code == 200
        finally:
            go.set()
        assert {each.result() for each in sent} == {200}


def test_a_key_that_ends_while_it_waits_deletes_no_file_and_cancels_no_job(
    vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = vendor.key()
    thief = vendor.another_key(key, Scope.EMBED)
    line = {"custom_id": "1", "method": "POST", "url": "/embed", "body": {"inputs": [{"text": CAT}]}}
    sent = vendor.http.post(
        "/v1/files",
        headers={"authorization": f"Bearer {key}"},
        data={"purpose": "batch"},
        files={"file": ("lines.jsonl", json.dumps(line))},
    ).json()["id"]
    do = AccountThreads.do

    async def waits(self: AccountThreads, account_id: str, function: Any, *given: Any, **named: Any) -> Any:
        with vendor.books.write() as session:
            revoke_key(session, thief.split("_")[1], vendor.clock)
        return await do(self, account_id, function, *given, **named)

    for method, path in (("DELETE", f"/v1/files/{sent}"), ("POST", "/v1/batches/batch_1/cancel")):
        with vendor.books.write() as session:
            session.get_one(ApiKey, thief.split("_")[1]).revoked_at = None
        with monkeypatch.context() as patch:
            patch.setattr(AccountThreads, "do", waits)
            refused = vendor.http.request(method, path, headers={"authorization": f"Bearer {thief}"})
        assert error_code(refused) == "key_revoked"
    vendor.get(f"/v1/files/{sent}", key)
