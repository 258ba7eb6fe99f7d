"""One real vendor that serves several models: chosen by name, priced apart, exchanged while it serves."""

import base64
import gc
import json
import os
import signal
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from sqlalchemy import select

from tests.support.model_shop import DEPRECATED, ICONS, OTHER, SUNSET, TINY, Shop
from tests.support.tiny_clip import TINY_DIMENSIONS, write_tiny_clip
from tests.support.vendor_process import wait_until
from tests.vendor_service.batches.held_model import HeldModel
from tests.vendor_service.local_vendor import LocalVendor, ScriptedTexts, error_code, image_input
from tests.vendor_service.run.test_metrics import Scrape
from vendor_service.acts import operators
from vendor_service.acts.act import Act, OperatorScope
from vendor_service.clock import system_clock
from vendor_service.database.session import Database
from vendor_service.database.tables import WebhookEvent
from vendor_service.run.hangups import Hangups

pytestmark = pytest.mark.long

# As Prometheus 3 asks.
OPEN_METRICS = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;q=0.2"
CAT = {"text": "a photo of a cat"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    write_tiny_clip(folder / "tiny", seed=1)
    process = Shop(folder, "--admin-port", "0")
    process.offer(ICONS, TINY)
    with process:
        yield process


@pytest.fixture(autouse=True)
def as_it_was(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "shop" in request.fixturenames:
        shop: Shop = request.getfixturevalue("shop")
        if set(shop.models()) != {"icon-clip", "tiny/1"}:
            shop.offer(ICONS, TINY)


def claims(answer: httpx.Response) -> Any:
    """What the receipt of an answer says."""
    payload = answer.headers["x-tuition-receipt"].split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def entries(shop: Shop, key: str) -> list[tuple[str, str, int]]:
    """Model, fingerprint and cost of all charges."""
    found = httpx.get(f"{shop.url}/v1/ledger?limit=1000", headers={"authorization": f"Bearer {key}"}).json()[
        "data"
    ]
    return [(each["model"], each["model_fingerprint"], -each["amount_micros"]) for each in found]


def test_a_request_is_answered_and_charged_by_the_model_that_it_names(shop: Shop) -> None:
    key, models = shop.create_key(), shop.models()
    assert [card["default"] for card in models.values()] == [True, False]
    inputs = [CAT, image_input()]
    bought = [
        shop.ask(key, inputs=inputs),
        shop.ask(key, inputs=inputs, model="icon-clip"),
        shop.ask(key, inputs=inputs, model="tiny/1"),
        shop.ask(key, "/v1/embeddings", input=["a photo of a cat"], model="tiny/1"),
    ]
    expected = [("icon-clip", 256, 120), ("icon-clip", 256, 120), ("tiny/1", TINY_DIMENSIONS, 10)]
    for answer, (name, dimensions, cost) in zip(
        bought, [*expected, ("tiny/1", TINY_DIMENSIONS, 3)], strict=True
    ):
        body, receipt = answer.json(), claims(answer)
        assert len(body["data"][0]["embedding"]) == dimensions
        assert body["model"] == receipt["model"] == name
        fingerprint = models[name]["fingerprint"]
        assert body["model_fingerprint"] == receipt["model_fingerprint"] == fingerprint
        assert body["usage"]["cost_micros"] == receipt["cost_micros"] == cost
        charge = (name, fingerprint, cost)
        assert charge in entries(shop, key)
    assert [cost for _, _, cost in entries(shop, key)] == [120, 120, 10, 3]
    assert shop.problem(key) is None


def test_the_price_of_a_plan_and_the_estimate_are_those_of_the_model(shop: Shop) -> None:
    key = shop.create_key()
    told = shop.ask(key, "/v1/estimate", images=10, texts=1, model="tiny/1").json()
    assert told["cost_micros"] == 73
    assert shop.ask(key, "/v1/estimate", images=10, texts=1).json()["cost_micros"] == 1020
    assert error_code(shop.ask(key, "/v1/estimate", images=1, model="gone")) == "model_not_found"
    shop.set_plan(key, "research")
    assert shop.models(key)["tiny/1"]["prices"] == {"image_micros": 2, "text_micros": 3}
    assert shop.ask(key, inputs=[image_input()], model="tiny/1").json()["usage"]["cost_micros"] == 2


def test_an_unknown_model_is_not_found_and_nothing_is_charged(shop: Shop) -> None:
    key = shop.create_key()
    for path, body in (("/embed", {"inputs": [CAT]}), ("/v1/embeddings", {"input": "a cat"})):
        answer = shop.ask(key, path, model="gpt", **body)
        assert (answer.status_code, error_code(answer)) == (404, "model_not_found")
        assert answer.json()["error"]["type"] == "invalid_request_error"
        assert answer.json()["error"]["param"] == "model"
    assert httpx.get(f"{shop.url}/v1/models/gpt").status_code == 404
    assert shop.charges(key).entries == 0


def test_openais_own_sdk_chooses_among_them(shop: Shop) -> None:
    with openai.OpenAI(base_url=f"{shop.url}/v1", api_key=shop.create_key(), max_retries=0) as client:
        assert [each.id for each in client.models.list()] == ["icon-clip", "tiny/1"]
        answer = client.embeddings.create(model="tiny/1", input=["a cat"], dimensions=TINY_DIMENSIONS)
        assert (answer.model, len(answer.data[0].embedding)) == ("tiny/1", TINY_DIMENSIONS)
        with pytest.raises(openai.NotFoundError) as unknown:
            client.embeddings.create(model="gpt", input=["a cat"])
        assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
        with pytest.raises(openai.UnprocessableEntityError, match="24 dimensions"):
            client.embeddings.create(model="tiny/1", input=["a cat"], dimensions=256)


def test_a_fingerprint_is_expected_of_the_model_that_is_named(shop: Shop) -> None:
    key, models = shop.create_key(), shop.models()
    tiny = {"x-expect-fingerprint": models["tiny/1"]["fingerprint"]}
    assert shop.ask(key, inputs=[CAT], model="tiny/1", headers=tiny).is_success
    assert error_code(shop.ask(key, inputs=[CAT], headers=tiny)) == "fingerprint_mismatch"
    once = {"idempotency-key": "of-one-model"}
    assert shop.ask(key, inputs=[CAT], model="tiny/1", headers=once).is_success
    assert shop.ask(key, inputs=[CAT], model="tiny/1", headers=once).json()["replayed"]
    assert error_code(shop.ask(key, inputs=[CAT], headers=once)) == "idempotency_key_reused"
    assert shop.charges(key).entries == 2


def test_a_model_has_limits_of_its_own(shop: Shop) -> None:
    key = shop.create_key()
    assert shop.models()["tiny/1"]["limits"]["max_inputs"] == 4
    assert error_code(shop.ask(key, inputs=[CAT] * 5, model="tiny/1")) == "too_many_inputs"
    assert shop.ask(key, inputs=[CAT] * 5).is_success


def test_a_deprecated_model_says_so_and_no_other(shop: Shop) -> None:
    key = shop.create_key()
    answers = [shop.ask(key, inputs=[CAT], model="tiny/1"), httpx.get(f"{shop.url}/v1/models/tiny/1")]
    for answer in answers:
        assert answer.headers["deprecation"] == f"@{int(DEPRECATED.timestamp())}"
        assert parsedate_to_datetime(answer.headers["sunset"]) == SUNSET
    assert {"deprecation", "sunset"}.isdisjoint(shop.ask(key, inputs=[CAT]).headers)
    with closing(Database(shop.database_url)) as database, database.read() as session:
        (told,) = session.scalars(select(WebhookEvent).where(WebhookEvent.kind == "model.deprecated"))
    assert json.loads(told.content)["data"]["model"] == "tiny/1"  # once, however often the file was read
    card = shop.models()["tiny/1"]
    assert datetime.fromisoformat(card["deprecated_at"]) == DEPRECATED
    assert datetime.fromisoformat(card["sunset_at"]) == SUNSET


def test_metrics_readiness_and_signed_cards_are_of_each_model(shop: Shop) -> None:
    key, models = shop.create_key(), shop.models()
    shop.ask(key, inputs=[CAT], model="tiny/1")
    text = httpx.get(f"{shop.url}/metrics").text
    for name in models:
        assert httpx.get(f"{shop.url}/readyz", params={"model": name}, timeout=30).is_success
        assert f'tuition_model_seconds_count{{kind="text",model="{name}"}}' in text
        assert f'tuition_devices_alive{{model="{name}"}}' in text
        signed = httpx.get(f"{shop.url}/v1/models/{name}/signed-card").json()["signed"]
        payload = json.loads(base64.urlsafe_b64decode(signed.split(".")[1] + "=="))
        assert payload["model_fingerprint"] == models[name]["fingerprint"]
    assert httpx.get(f"{shop.url}/readyz", timeout=30).is_success
    assert httpx.get(f"{shop.url}/readyz", params={"model": "gpt"}).status_code == 404


def test_an_operator_has_the_file_of_models_read_again(shop: Shop) -> None:
    with closing(Database(shop.database_url)) as database, database.write() as session:
        token = operators.issue(Act(session, "os:test", system_clock), "test", [OperatorScope.ALL]).token
    shop.file.write_text(ICONS)
    headers = {"authorization": f"Bearer {token}"}
    asked = httpx.post(f"{shop.admin_url}/admin/models/reload", headers=headers)
    assert asked.status_code == 202
    wait_until(lambda: set(shop.models()) == {"icon-clip"}, seconds=60)
    recorded = httpx.get(f"{shop.admin_url}/admin/audit", headers=headers).json()["data"]
    assert recorded[-1]["action"] == "models.reload"


def test_a_model_is_added_and_retired_while_the_others_serve(shop: Shop) -> None:
    key, before = shop.create_key(), shop.models()
    write_tiny_clip(shop.folder / "other", seed=3)
    shop.offer(ICONS, TINY, OTHER)
    assert shop.ask(key, inputs=[CAT], model="other").json()["usage"]["cost_micros"] == 20
    assert {name: shop.models()[name] for name in before} == before
    shop.offer(ICONS, TINY.replace("max_inputs = 4", "max_inputs = 5"))
    assert error_code(shop.ask(key, inputs=[CAT], model="other")) == "model_not_found"
    assert shop.ask(key, inputs=[CAT] * 5, model="tiny/1").is_success
    text = httpx.get(f"{shop.url}/metrics").text
    assert 'tuition_queue_inputs{kind="text",model="other"}' not in text
    assert 'tuition_queue_inputs{kind="text",model="tiny/1"}' in text
    wait_until(lambda: "the model other (" in shop.log.read_text())
    shop.offer(ICONS, TINY)


def test_a_wrong_file_changes_nothing_and_says_what_is_wrong(shop: Shop) -> None:
    before = shop.models()
    for tables, problem in (
        ((ICONS, TINY.replace("text_micros = 3", "text_micros = -3")), "prices.standard.text_micros"),
        ((ICONS, TINY, OTHER.replace("other", "nowhere")), "[[model]] 3 (nowhere), source"),
        ((TINY,), "default = true"),
    ):
        shop.offer(*tables)
        assert "models.toml" in shop.told()[-1]
        assert problem in shop.told()[-1]
        assert "tuition_models_file_faulty 1.0" in httpx.get(f"{shop.url}/metrics").text
    (shop.folder / "broken").mkdir()
    for name in ("open_clip_config.json", "open_clip_model.safetensors"):
        (shop.folder / "broken" / name).write_bytes((shop.folder / "tiny" / name).read_bytes()[:2000])
    shop.offer(ICONS, TINY, OTHER.replace("other", "broken"))
    assert "the model broken cannot be loaded" in shop.told()[-1]
    assert shop.models() == before
    shop.offer(ICONS, TINY)
    assert "tuition_models_file_faulty 0.0" in httpx.get(f"{shop.url}/metrics").text


def test_under_load_a_swap_mixes_no_fingerprints_and_costs_nobody_an_answer(shop: Shop) -> None:
    """Every vector is that of the fingerprint beside it, in the answer, in the receipt and in the ledger."""
    key, others, over = shop.create_key(), shop.create_key(), threading.Event()
    write_tiny_clip(shop.folder / "other", seed=4)
    shop.offer(ICONS, TINY, OTHER)
    texts = [f"text {number}" for number in range(4)]
    first = shop.ask(key, inputs=[{"text": each} for each in texts], model="other").json()

    def buy(number: int) -> list[httpx.Response]:
        answers = []
        while not over.is_set():
            answers.append(shop.ask(key, inputs=[{"text": each} for each in texts], model="other"))
            answers.append(shop.ask(others, inputs=[{"text": f"{number} {len(answers)}"}]))
        return answers

    with ThreadPoolExecutor(4) as pool:
        buying = [pool.submit(buy, number) for number in range(4)]
        write_tiny_clip(shop.folder / "other", seed=5)
        shop.offer(ICONS, TINY, OTHER)
        last = shop.ask(key, inputs=[{"text": each} for each in texts], model="other").json()
        over.set()
        answers = [answer for each in buying for answer in each.result()]
    assert {answer.status_code for answer in answers} == {200}
    known = {each["model_fingerprint"]: _rows(each) for each in (first, last)}
    assert len(known) == 2
    assert np.abs(np.subtract(*known.values())).max() > 0.1
    bought = [first, last]
    for answer in answers:
        body = answer.json()
        assert claims(answer)["model_fingerprint"] == body["model_fingerprint"]
        if body["model"] == "other":
            bought.append(body)
            np.testing.assert_allclose(_rows(body), known[body["model_fingerprint"]], atol=1e-3)
    charged = [fingerprint for _, fingerprint, _ in entries(shop, key)]
    assert sorted(charged) == sorted(each["model_fingerprint"] for each in bought)
    assert shop.problem(key) is None
    assert shop.open_holds() == 0


def _rows(body: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([each["embedding"] for each in body["data"]])


def test_what_was_admitted_for_a_model_is_answered_by_it_after_the_swap(
    tmp_path: Path, scripted: ScriptedTexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny_clip(tmp_path / "other", seed=1)
    (tmp_path / "models.toml").write_text(OTHER + "default = true")
    before = signal.getsignal(signal.SIGHUP)
    try:
        with (
            LocalVendor(tmp_path, hangups=Hangups(), models=Path("models.toml")) as vendor,
            ThreadPoolExecutor(1) as pool,
        ):
            key, encoder = vendor.key(), vendor.app.state.models.default.encoder
            processes, kept = encoder.preparation.processes, weakref.ref(encoder)
            del encoder
            gc.disable()  # a server's collector leaves alone what it began with
            former = vendor.http.get("/v1/models/other").json()["fingerprint"]
            asked = pool.submit(vendor.embed, key, {"text": "wait"})
            assert scripted.waiting.wait(20)
            write_tiny_clip(tmp_path / "other", seed=2)
            os.kill(os.getpid(), signal.SIGHUP)
            wait_until(
                lambda: vendor.http.get("/v1/models/other").json()["fingerprint"] != former, seconds=30
            )
            later = vendor.embed(key, CAT)
            assert later.json()["model_fingerprint"] != former
            assert not asked.done()
            assert processes.living("text")  # whoever is in hand may still need them
            scripted.go.set()
            assert asked.result().json()["model_fingerprint"] == former
            wait_until(lambda: not processes.living("text"))
            wait_until(lambda: kept() is None)
            charged = vendor.get("/v1/ledger", key)["data"]
            assert [each["model_fingerprint"] == former for each in charged] == [False, True]
            assert (
                Scrape(vendor)("model_info", model="other", fingerprint=former, dtype="float32", device="cpu")
                == 0
            )
    finally:
        gc.enable()
        signal.signal(signal.SIGHUP, before)


def test_a_model_takes_no_more_inputs_in_hand_than_its_own_limit(
    tmp_path: Path, scripted: ScriptedTexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny_clip(tmp_path / "other", seed=1)
    limits = "limits = {max_queued_inputs = 2}\n"
    (tmp_path / "models.toml").write_text(ICONS + OTHER + limits)
    with (
        LocalVendor(tmp_path, models=Path("models.toml")) as vendor,
        ThreadPoolExecutor(1) as pool,
    ):
        one, another = vendor.key(), vendor.key()
        asked = pool.submit(vendor.embed, one, {"text": "wait"}, model="other")
        assert scripted.waiting.wait(20)
        assert error_code(vendor.embed(another, CAT, CAT, model="other")) == "overloaded"
        assert vendor.embed(another, CAT, CAT).is_success
        scripted.go.set()
        assert asked.result().is_success
        assert vendor.embed(another, CAT, CAT, CAT, model="other").is_success  # alone it may be larger


@contextmanager
def held_model_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> Iterator[tuple[LocalVendor, HeldModel, ThreadPoolExecutor]]:
    """A vendor whose model takes so many inputs and can be held up, and a thread to ask it."""
    held = HeldModel(monkeypatch)
    (folder / "models.toml").write_text(ICONS + f"limits = {{max_queued_inputs = {most}}}\n")
    with (
        LocalVendor(folder, models=Path("models.toml")) as vendor,
        ThreadPoolExecutor(1) as pool,
    ):
        yield vendor, held, pool


def test_an_account_leaves_as_much_of_a_model_to_others_as_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with held_model_of(tmp_path, monkeypatch, most=6) as (vendor, held, pool):
        hungry, modest = vendor.key(), vendor.key()
        held.stop_at("wait")
        asked = pool.submit(vendor.embed, hungry, {"text": "wait"}, CAT)
        assert held.stopped.wait(20)
        assert error_code(vendor.embed(hungry, CAT, CAT, CAT)) == "overloaded"
        assert vendor.embed(hungry, CAT, CAT).is_success
        assert vendor.embed(modest, CAT, CAT, CAT, CAT).is_success
        held.go()
        assert asked.result().is_success
        assert vendor.embed(hungry, *[CAT] * 8).is_success  # alone it may be larger


def test_while_a_large_request_is_in_hand_a_model_is_ready_and_shows_its_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with held_model_of(tmp_path, monkeypatch, most=2) as (vendor, held, pool):
        key = vendor.key()
        held.stop_at("wait")
        asked = pool.submit(vendor.embed, key, {"text": "wait"}, CAT, CAT)
        assert held.stopped.wait(20)
        for path in ("/readyz", "/v1/models/icon-clip/signed-card"):
            assert vendor.http.get(path).is_success
        held.go()
        assert asked.result().is_success


def test_several_models_may_be_named_on_the_command_line(tmp_path: Path) -> None:
    tiny = write_tiny_clip(tmp_path / "tiny", seed=1)
    with LocalVendor(tmp_path, model=("icon-clip", tiny)) as vendor:
        key = vendor.key()
        assert vendor.embed(key, CAT).json()["model"] == "icon-clip"
        assert vendor.embed(key, CAT, model="tiny").json()["dimensions"] == TINY_DIMENSIONS


def test_a_slow_request_of_each_model_is_named_by_an_exemplar(tmp_path: Path) -> None:
    tiny = write_tiny_clip(tmp_path / "tiny", seed=1)
    with LocalVendor(tmp_path, model=("icon-clip", tiny)) as vendor:
        key = vendor.key()
        asked = {name: vendor.embed(key, CAT, model=name) for name in ("icon-clip", "tiny")}
        vendor.embed(key, CAT, model="invented")
        told = vendor.http.get("/metrics", headers={"accept": OPEN_METRICS})
    assert told.headers["content-type"].startswith("application/openmetrics-text")
    found = text_string_to_metric_families(told.text)  # type: ignore[no-untyped-call]
    families = {each.name: each for each in found}
    named = {
        sample.labels["model"]: sample.exemplar.labels["request_id"]
        for sample in families["tuition_request_seconds"].samples
        if sample.exemplar is not None and sample.labels["route"] == "/embed"
    }
    assert named.keys() == {"", "icon-clip", "tiny"}
    assert {name: answer.headers["x-request-id"] for name, answer in asked.items()}.items() <= named.items()


@pytest.mark.slow
def test_every_worker_takes_the_file_up(tmp_path: Path) -> None:
    write_tiny_clip(tmp_path / "tiny", seed=1)
    write_tiny_clip(tmp_path / "other", seed=2)
    workers = Shop(tmp_path, "--workers", "2")
    workers.offer(ICONS, TINY)
    with workers:
        workers.offer(ICONS, OTHER)
        wait_until(lambda: len(workers.told()) == 2, seconds=60)
        key = workers.create_key()
        for _ in range(20):  # each on a connection of its own: any worker may take it
            assert workers.ask(key, inputs=[CAT], model="other").is_success
            assert error_code(workers.ask(key, inputs=[CAT], model="tiny/1")) == "model_not_found"
        metrics = httpx.get(f"{workers.url}/metrics").text
        for worker in ("0", "1"):
            assert f'tuition_devices_alive{{model="other",worker="{worker}"}} 1.0' in metrics
