"""Vendors with OpenAI's API: what they lack is made up for here, and a budget is kept all the same."""

import base64
import hashlib
import json
import random
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.cache.cache import EmbeddingCache
from client.cache.notes import Payer, make_batch
from client.errors import (
    Bill,
    CacheError,
    ClientError,
    FingerprintChanged,
    InputRefused,
    KeyRefused,
    QuotaExhausted,
    VendorError,
    VendorUnreachable,
)
from client.purchase.buyer import Buyer
from client.purchase.identification import identify
from client.vendors import transport
from client.vendors.embeddings_api import EmbeddingsApi
from client.vendors.query import Query, Spending
from client.vendors.teachers.jina import Jina
from client.vendors.teachers.openai import OpenAiLike
from shared.encoding import to_base64
from shared.kinds import Usage

pytestmark = pytest.mark.usefixtures("hurry")

DIMENSIONS = 12


class Infinity(httpx.BaseTransport):
    """Charges every request that it serves, repeated or not; refuses what holds "bad"."""

    def __init__(self) -> None:
        self.weights = "one"  # another word is another model
        self.noise = 0.0
        self.name: str | None = "clip"
        self.charged = 0
        self.embeds_images = True
        self.bodies: list[dict[str, Any]] = []
        # What happens to the next requests: "", "lost", "unsent", "cut off" or "busy".
        self.trouble: list[str] = []
        self._lock = threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={"data": [{"id": "clip"}]})
        with self._lock:
            trouble = self.trouble.pop() if self.trouble else ""
            if trouble == "unsent":
                raise httpx.ConnectError("refused")
            if trouble == "cut off":
                assert isinstance(request.stream, httpx.SyncByteStream)
                next(iter(request.stream))
                raise httpx.WriteError("connection reset")
            if trouble == "busy":
                return httpx.Response(503, text="busy")
            body = json.loads(request.content)
            items = [each if isinstance(each, str) else next(iter(each.values())) for each in body["input"]]
            is_refused = body.get("modality") == "image" and not self.embeds_images
            if is_refused or any("bad" in item for item in items):
                return httpx.Response(400, json={"error": {"message": "cannot be read"}})
            self.bodies.append(body)
            self.charged += len(items)
            if trouble == "lost":
                raise httpx.ReadError("cut")
            vectors = [self._vector(item) for item in items]
        rows = [{"index": i, "embedding": to_base64(v)} for i, v in enumerate(vectors)]
        return httpx.Response(
            200,
            json={
                "model": body["model"] if self.name == "clip" else self.name,
                "data": rows[::-1],
                "usage": {},
            },
        )

    def _vector(self, item: str) -> np.ndarray:
        seed = int.from_bytes(hashlib.sha256((self.weights + item).encode()).digest()[:4], "big")
        vector = np.random.default_rng(seed).normal(size=DIMENSIONS)
        return (3 * vector + self.noise * random.random()).astype(np.float32)


class Shop:
    """Such a vendor, a cache, and teachers that use both."""

    def __init__(self, folder: Path, kind: type[EmbeddingsApi] = OpenAiLike) -> None:
        self.server = Infinity()
        self.vendor = kind("http://vendor", None, transport=self.server)
        self.cache = EmbeddingCache(folder / "cache.db")

    def teacher(self, budget: int | None = None, run_id: str = "run") -> Buyer:
        before = self.server.charged
        model = identify(self.vendor, self.cache)
        assert self.server.charged == before + 2
        self.server.charged = before
        return Buyer(self.vendor, self.cache, model=model, run_id=run_id, budget=budget)

    def close(self) -> None:
        self.vendor.__exit__()
        self.cache.__exit__()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path)
    yield shop
    shop.close()


def _texts(count: int, word: str = "good") -> list[Query]:
    return [Query.text(f"{word} {i}") for i in range(count)]


def _image(folder: Path, content: bytes) -> Query:
    path = folder / f"{len(content)}.png"
    path.write_bytes(content)
    return Query.image_file(path)


@pytest.mark.parametrize("kind", [OpenAiLike, Jina])
def test_each_api_is_asked_in_its_own_way_and_batches_are_of_one_kind(
    tmp_path: Path, kind: type[EmbeddingsApi]
) -> None:
    shop = Shop(tmp_path, kind)
    content = BytesIO()
    PIL.Image.new("RGB", (4, 4), "red").save(content, "PNG")
    image = _image(tmp_path, content.getvalue())
    teacher = shop.teacher()
    del shop.server.bodies[:]
    assert teacher.buy([Query.text("a cat"), image, Query.text("a dog")]).bought == 3
    encoded = base64.b64encode(content.getvalue()).decode()
    sent = {str(body["input"]): body for body in shop.server.bodies}
    if kind is OpenAiLike:
        wanted = {"['a cat']": "text", f"['data:image/png;base64,{encoded}']": "image", "['a dog']": "text"}
        assert {words: body["modality"] for words, body in sent.items()} == wanted
    else:
        assert sent.keys() == {"[{'text': 'a cat'}]", f"[{{'image': '{encoded}'}}]", "[{'text': 'a dog'}]"}
    vectors, have = teacher.lookup([image])
    assert have.all()
    assert np.linalg.norm(vectors[0]) == pytest.approx(1, abs=1e-6)
    shop.close()


def test_a_model_is_known_again_by_what_it_says_of_the_canaries(shop: Shop) -> None:
    first = shop.teacher().model
    assert first.fingerprint.startswith("openai:clip:")
    shop.server.noise = 0.01  # other hardware
    assert shop.teacher().model == first
    shop.server.weights = "two"
    second = shop.teacher().model
    assert second.fingerprint != first.fingerprint
    shop.server.weights = "one"
    assert shop.teacher().model == first
    assert shop.cache.spending("canary") == Spending(8, 0)


def test_what_was_bought_from_one_model_is_not_taken_for_anothers(shop: Shop) -> None:
    assert shop.teacher().buy(_texts(5)).bought == 5
    assert shop.teacher(run_id="again").buy(_texts(5)).bought == 0
    shop.server.weights = "two"
    assert shop.teacher(run_id="other").buy(_texts(5)).bought == 5


def test_another_model_in_the_middle_is_noticed_by_its_name_or_its_dimensions(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = shop.teacher()
    shop.server.name = "other"
    with pytest.raises(FingerprintChanged, match="other"):
        teacher.buy(_texts(5))
    shop.server.name = None  # not every vendor says
    monkeypatch.setattr("tests.client.vendors.test_openai.DIMENSIONS", 8)
    with pytest.raises(FingerprintChanged, match="8 dimensions"):
        teacher.buy(_texts(5))
    assert not shop.cache.known(teacher.model.fingerprint, _texts(5))


@settings(max_examples=40)
@given(
    budget=st.integers(0, 200),
    trouble=st.lists(st.sampled_from(["", "", "lost", "unsent", "busy"]), max_size=25),
)
def test_whatever_is_lost_what_may_have_been_paid_never_exceeds_the_budget(
    tmp_path_factory: pytest.TempPathFactory, budget: int, trouble: list[str]
) -> None:
    shop = Shop(tmp_path_factory.mktemp("shop"))
    for _ in range(30):  # a person who starts it again and again
        teacher = shop.teacher(budget)
        shop.server.trouble = trouble
        try:
            done = teacher.buy(_texts(120))
        except VendorError:
            trouble = shop.server.trouble
        else:
            assert done.out_of_budget or teacher.lookup(_texts(120))[1].all()
            break
        finally:
            shop.server.trouble = []
    assert shop.server.charged <= shop.cache.spending("run").queries <= budget
    assert not shop.cache.notes.of_run("run")
    shop.close()


def test_an_answer_that_was_lost_counts_as_paid_and_is_bought_again(shop: Shop) -> None:
    teacher = shop.teacher()
    shop.server.trouble = ["lost"]
    purchase = teacher.buy(_texts(20))
    assert (purchase.bought, purchase.lost, shop.server.charged) == (20, 20, 40)
    assert shop.cache.spending("run").queries == 40


def test_what_was_certainly_not_served_costs_nothing(shop: Shop) -> None:
    teacher = shop.teacher(20)
    for trouble in ("unsent", "cut off"):
        shop.server.trouble = [trouble] * transport.TRIES
        with pytest.raises(VendorUnreachable):
            teacher.buy(_texts(20))
        assert not shop.cache.notes.of_run("run")
    shop.server.trouble = ["busy"] * transport.TRIES
    with pytest.raises(VendorError, match="busy"):
        teacher.buy(_texts(20))
    assert shop.teacher(20).buy(_texts(20)).bought == 20
    assert shop.cache.spending("run").queries == shop.server.charged == 20


def test_what_a_killed_run_had_sent_is_written_off(shop: Shop) -> None:
    teacher = shop.teacher(50)
    shop.cache.begin(make_batch("run", teacher.model.fingerprint, tuple(_texts(32))))
    purchase = teacher.buy(_texts(50))
    assert (purchase.bought, purchase.lost, purchase.out_of_budget) == (18, 32, True)
    assert not shop.cache.notes.of_run("run")


def test_what_was_billed_and_not_taken_is_not_counted_again(shop: Shop) -> None:
    teacher = shop.teacher(50)
    batch = make_batch("run", teacher.model.fingerprint, tuple(_texts(32)))
    shop.cache.begin(batch)
    usage = Usage(images=0, texts=32, billed_queries=32, cost_micros=0)
    shop.cache.reject(batch, Bill("jina-1", batch.fingerprint, usage), "differs")
    purchase = teacher.buy(_texts(18))
    assert (purchase.bought, purchase.lost, purchase.out_of_budget) == (18, 32, False)
    assert shop.cache.spending("run").queries == 50


def test_what_was_sent_to_another_vendor_stays_noted_and_is_never_sent_here(shop: Shop) -> None:
    teacher = shop.teacher(50)
    batch = make_batch("run", teacher.model.fingerprint, tuple(_texts(32)))
    shop.cache.begin(batch, payer=Payer("http://elsewhere:80", "a"))
    purchase = teacher.buy(_texts(50, "other"))
    assert (purchase.bought, purchase.lost, shop.server.charged) == (18, 0, 18)
    assert [note.batch for note in shop.cache.notes.of_run("run")] == [batch]


def test_what_cannot_be_embedded_is_found_and_skipped(shop: Shop) -> None:
    queries = [*_texts(20), *_texts(1, "bad"), *_texts(20, "better")]
    purchase = shop.teacher().buy(queries)
    assert purchase.bought == shop.server.charged == 40
    assert list(purchase.refused) == [queries[20]]
    assert "cannot be read" in purchase.refused[queries[20]]


@pytest.mark.parametrize(
    ("status", "expected"),
    [(401, KeyRefused), (403, KeyRefused), (402, QuotaExhausted), (404, VendorError), (418, VendorError)],
)
def test_a_status_says_what_to_do(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, status: int, expected: type[Exception]
) -> None:
    teacher = shop.teacher()
    refusal = httpx.Response(status, text="\x1b[2Jno")
    monkeypatch.setattr(shop.server, "handle_request", lambda _: refusal)
    with pytest.raises(expected) as caught:
        teacher.buy(_texts(3))
    assert "\x1b" not in str(caught.value)


def test_prices_are_not_known_and_said_not_to_be(shop: Shop) -> None:
    teacher = shop.teacher()
    outlook = teacher.outlook(_texts(3))
    assert (outlook.quote, outlook.prices_known) == (None, False)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"index": 1, "embedding": [1.0] * DIMENSIONS}],
        [{"index": 0, "embedding": "!"}],
        [{"index": 0, "embedding": [0.0] * DIMENSIONS}],
    ],
)
def test_garbage_is_never_taken_for_an_answer(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]]
) -> None:
    teacher = shop.teacher()
    garbage = httpx.Response(
        200, json={"data": rows}, request=httpx.Request("POST", "http://vendor/embeddings")
    )
    monkeypatch.setattr(shop.server, "handle_request", lambda _: garbage)
    with pytest.raises(VendorError):
        teacher.buy(_texts(1))


def test_one_of_several_models_is_named(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = httpx.Response(200, json={"data": [{"id": "a"}, {"id": "b"}]})
    monkeypatch.setattr(shop.server, "handle_request", lambda _: listed)
    with pytest.raises(VendorError, match="--teacher openai:MODEL"):
        identify(shop.vendor, shop.cache)


def _identify_in_vain(shop: Shop) -> ClientError:
    """What is said of a vendor that does not show which model it sells."""
    with pytest.raises(VendorError) as caught:
        identify(shop.vendor, shop.cache)
    assert shop.cache.spending("canary").queries == shop.server.charged
    assert not shop.cache.fingerprints()
    return caught.value


def test_a_model_that_embeds_no_images_was_paid_for_the_text_in_vain(shop: Shop) -> None:
    shop.server.embeds_images = False
    error = _identify_in_vain(shop)
    assert (type(error), error.paid_in_vain, shop.server.charged) == (InputRefused, True, 1)
    assert [receipt.queries for receipt in shop.cache.receipts()] == [1]


def test_a_model_of_two_widths_is_refused_and_was_paid_in_vain(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    vector = shop.server._vector
    monkeypatch.setattr(shop.server, "_vector", lambda item: vector(item)[: 8 if "base64" in item else None])
    error = _identify_in_vain(shop)
    assert "a text with 12 dimensions and about an image with 8" in str(error)
    assert (error.paid_in_vain, shop.server.charged) == (True, 2)


def test_a_vendor_that_is_away_was_not_paid(shop: Shop) -> None:
    shop.server.trouble = ["unsent"] * transport.TRIES
    assert not _identify_in_vain(shop).paid_in_vain


def test_an_answer_by_another_name_was_paid_in_vain(shop: Shop) -> None:
    shop.server.name = "other"
    error = _identify_in_vain(shop)
    assert (type(error), error.paid_in_vain, shop.server.charged) == (FingerprintChanged, True, 1)


def test_what_the_cache_cannot_store_was_paid_in_vain(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shop.cache, "commit", _full)
    monkeypatch.setattr(shop.cache, "reject", _full)
    with pytest.raises(CacheError, match="no room") as caught:
        identify(shop.vendor, shop.cache)
    assert caught.value.paid_in_vain


def _full(*_: object, **__: object) -> None:
    raise CacheError("no room")
