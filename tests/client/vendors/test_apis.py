"""Other vendors' APIs, each against a server of it: how they are asked, what they cost, what they refuse."""

import base64
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from client.cache.cache import EmbeddingCache
from client.errors import ClientError, FingerprintChanged, KeyRefused, QuotaExhausted, VendorError
from client.purchase.buyer import Buyer
from client.purchase.identification import identify
from client.vendors.embeddings_api import EmbeddingsApi
from client.vendors.query import Query
from client.vendors.teacher import Teacher
from shared.embeddings import Prices
from tests.client.vendors.servers import ApiServer, Refusal, apis

pytestmark = pytest.mark.usefixtures("hurry")

ADDRESSES = {
    "cohere": "http://vendor",
    "voyage": "http://vendor/v1",
    "jina": "http://vendor/v1",
    "vertex": "http://vendor/v1/projects/p/locations/us-central1",
    "bedrock": "http://vendor",
}
CANARIES = 2
OF_USER = Prices(image_micros=200, text_micros=1)


@dataclass
class Shop:
    """A server of an API, the client's side of it, and a cache."""

    server: ApiServer
    vendor: EmbeddingsApi
    cache: EmbeddingCache

    def teacher(self, budget: int | None = None, max_spend_micros: int | None = None) -> Buyer:
        model = identify(self.vendor, self.cache)
        return Buyer(
            self.vendor,
            self.cache,
            model=model,
            run_id="run",
            budget=budget,
            max_spend_micros=max_spend_micros,
        )


def _open(api: str, folder: Path, *, key: str = apis.KEY, **more: Any) -> Shop:
    server = ApiServer(getattr(apis, api))
    kind: Callable[..., EmbeddingsApi] = import_module(f"client.vendors.teachers.{api}").TEACHER
    vendor = kind(ADDRESSES[api], key, transport=server, **more)
    return Shop(server, vendor, EmbeddingCache(folder / "cache.db"))


@pytest.fixture(params=list(ADDRESSES))
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    is_listed = Teacher(request.param).declares().priced_on is not None  # type: ignore[union-attr]
    shop = _open(request.param, tmp_path, prices=None if is_listed else OF_USER)
    yield shop
    shop.vendor.close()
    shop.cache.__exit__()


def _image(folder: Path, size: tuple[int, int] = (8, 6), form: str = "PNG", colour: str = "blue") -> Query:
    path = folder / f"{size[0]}-{colour}.{form.lower()}"
    Image.new("RGB", size, colour).save(path, form)
    return Query.image_file(path)


def test_images_and_texts_are_bought_once_at_the_prices_of_the_list(shop: Shop, tmp_path: Path) -> None:
    queries = [Query.text("a photo of a cat"), _image(tmp_path), Query.text("a photo of a dog")]
    teacher = shop.teacher()
    prices = teacher.model.prices
    assert prices == (shop.vendor.declares.listed(teacher.model.id) or OF_USER)
    bought = teacher.buy(queries)
    assert (bought.bought, bought.cost_micros) == (3, prices.image_micros + 2 * prices.text_micros)
    assert shop.server.charged == 3 + CANARIES
    vectors, have = teacher.lookup(queries)
    assert have.all()
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)
    assert shop.teacher().buy(queries).bought == 0
    quote = teacher.outlook(queries).quote
    assert quote is not None
    assert (quote.cost_micros, quote.currency) == (bought.cost_micros, "USD")


def test_money_is_capped_by_the_list_or_by_the_prices_of_the_user(tmp_path: Path) -> None:
    shop = _open("cohere", tmp_path, prices=Prices(image_micros=100, text_micros=10))
    bought = shop.teacher(max_spend_micros=35).buy([Query.text(f"a {i}") for i in range(9)])
    assert (bought.bought, bought.cost_micros, bought.out_of_budget) == (3, 30, True)


def test_a_model_that_is_on_no_list_has_no_price(tmp_path: Path) -> None:
    vendor = _open("cohere", tmp_path).vendor
    assert [vendor.knows_prices(name) for name in (None, "embed-v4.0", "embed-v9")] == [True, True, False]
    shop = _open("jina", tmp_path)  # its list could not be read
    assert not shop.vendor.knows_prices()
    assert shop.teacher().outlook([Query.text("a cat")]).quote is None
    assert "give them with --price" in " ".join(shop.vendor.declares.warnings(None, of_user=False))


def test_one_input_a_request_where_the_api_takes_no_more(shop: Shop, tmp_path: Path) -> None:
    before = len(shop.server.asked)
    queries = [Query.text(f"a photo of {i}") for i in range(5)]
    teacher = shop.teacher()
    teacher.buy(queries)
    requests = len(shop.server.asked) - before - CANARIES
    assert requests == (5 if shop.vendor.declares.limits.max_inputs == 1 else 1)
    assert shop.server.charged == 5 + CANARIES


def test_a_large_image_is_sent_at_the_size_that_its_price_is_for(shop: Shop, tmp_path: Path) -> None:
    shop.teacher().buy([_image(tmp_path, (1600, 900), "JPEG"), _image(tmp_path, (20, 30), "WEBP")])
    sizes = []
    for asked in shop.server.asked[CANARIES:]:
        for encoded in re.findall(r"[\w+/]{60,}=*", str(asked.json)):
            with Image.open(BytesIO(base64.b64decode(encoded))) as image:
                sizes.append(image.size)
                assert image.format in shop.vendor.declares.formats
    assert sorted(sizes) == [(20, 30), (682, 384)]


def test_what_cannot_be_read_is_skipped_and_costs_nothing(shop: Shop, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    queries = [_image(tmp_path), Query.image_file(bad), _image(tmp_path, colour="red")]
    bought = shop.teacher().buy(queries)
    assert list(bought.refused) == [queries[1]]
    assert (bought.bought, shop.server.charged) == (2, 2 + CANARIES)


def test_a_wrong_key_is_named_and_nothing_is_charged(tmp_path: Path) -> None:
    for api in ADDRESSES:
        shop = _open(api, tmp_path, key="wrong")
        with pytest.raises(KeyRefused) as caught:
            shop.teacher()
        assert (shop.vendor.declares.key_variable or "--api-key-file") in str(caught.value)
        assert shop.server.charged == 0


@pytest.mark.parametrize("status", [429, 500, 503])
def test_it_is_asked_again_after_a_refusal_or_a_fault(shop: Shop, status: int) -> None:
    teacher = shop.teacher()
    shop.server.fates = [Refusal(status, {"message": "later"}, {"retry-after": "0"})]
    bought = teacher.buy([Query.text("a cat")])
    in_doubt = 1 if status == 500 else 0  # it may have been served
    assert (bought.bought, bought.lost) == (1, in_doubt)
    assert shop.cache.spending("run").queries == 1 + in_doubt


def test_a_lost_answer_counts_as_paid_within_the_budget(shop: Shop) -> None:
    teacher = shop.teacher(budget=1)
    shop.server.fates = ["lost"]
    with pytest.raises(ClientError, match="may have charged"):
        teacher.buy([Query.text("a cat")])
    charged = shop.server.charged - CANARIES
    assert shop.teacher(budget=1).buy([Query.text("a cat")]).out_of_budget
    assert shop.cache.spending("run").queries == charged == 1


def test_another_model_in_the_middle_is_noticed_by_its_dimensions(shop: Shop) -> None:
    teacher = shop.teacher()
    shop.server.dimensions = 4
    with pytest.raises(FingerprintChanged, match="4 dimensions, not 8"):
        teacher.buy([Query.text("a cat")])
    assert not shop.cache.known(teacher.model.fingerprint, [Query.text("a cat")])
    shop.server.dimensions = 8
    assert shop.teacher().buy([]).lost == 1
    assert shop.cache.spending("run").queries == 1  # it may have been paid for


def _all_numbers(value: float) -> Callable[[Any], Any]:
    def replaced(body: Any) -> Any:
        if isinstance(body, list):
            return [value if isinstance(each, float) else replaced(each) for each in body]
        if isinstance(body, dict):
            return {
                name: _numbers(each, value) if name == "embedding" else replaced(each)
                for name, each in body.items()
            }
        return body

    return replaced


def _numbers(vector: Any, value: float) -> Any:
    if isinstance(vector, str):
        length = len(base64.b64decode(vector)) // 4
        return base64.b64encode(np.full(length, value, "<f4").tobytes()).decode()
    return [value] * len(vector)


@pytest.mark.parametrize(
    ("fate", "said"),
    [
        (_all_numbers(0.0), "a vector of zeros"),
        (_all_numbers(float("nan")), "not finite"),
        (lambda _: {"unknown": 1}, "does not answer as"),
        (lambda _: [], "does not answer as"),
    ],
    ids=["zeros", "not finite", "another body", "a list"],
)
def test_an_answer_that_is_none_is_paid_once_and_not_stored(shop: Shop, fate: Any, said: str) -> None:
    teacher = shop.teacher()
    shop.server.fates = [fate]
    with pytest.raises(VendorError, match=said):
        teacher.buy([Query.text("a cat")])
    assert not shop.cache.known(teacher.model.fingerprint, [Query.text("a cat")])
    assert shop.server.charged == 1 + CANARIES
    assert shop.teacher().buy([Query.text("a cat")]).bought == 1
    assert shop.cache.spending("run").queries == 2


def test_texts_are_embedded_as_what_searches_and_images_as_what_is_found(tmp_path: Path) -> None:
    for api, of_text, of_image in (("cohere", "search_query", "image"), ("voyage", "query", "document")):
        shop = _open(api, tmp_path)
        shop.teacher()
        assert [asked.json["input_type"] for asked in shop.server.asked] == [of_text, of_image]


@pytest.mark.parametrize(
    ("api", "refusal"),
    [
        ("jina", Refusal(402, {"detail": "Insufficient balance"})),
        ("jina", Refusal(403, {"detail": "no balance", "code": "AUTHZ_INSUFFICIENT_BALANCE"})),
        (
            "bedrock",
            Refusal(
                400, {}, {"x-amzn-errortype": "ServiceQuotaExceededException:http://internal.amazon.com/"}
            ),
        ),
    ],
)
def test_an_account_that_may_spend_no_more_ends_the_purchase_for_now(
    tmp_path: Path, api: str, refusal: Refusal
) -> None:
    shop = _open(api, tmp_path)
    teacher = shop.teacher()
    shop.server.fates = [refusal]
    with pytest.raises(QuotaExhausted, match="continues from here"):
        teacher.buy([Query.text("a cat")])


@pytest.mark.parametrize("api", list(ADDRESSES))
def test_the_declaration_is_complete(api: str) -> None:
    declares = Teacher(api).declares()
    assert declares is not None
    assert declares.name == api
    assert declares.default_model in declares.models
    assert all(source.startswith("https://") for source in declares.sources)
    prices = declares.listed(declares.default_model or "")
    assert (prices is None) == (declares.priced_on is None)
    said = " ".join(declares.warnings(prices, of_user=False))
    assert "counts as paid" in said
    assert (f"{declares.priced_on:%B %Y}" if declares.priced_on else "with --price") in said


def test_vertex_is_asked_with_a_token_of_googles_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    google = pytest.importorskip("google.auth")
    credentials = pytest.importorskip("google.oauth2.credentials")
    token = credentials.Credentials(token=apis.KEY)
    monkeypatch.setattr(google, "default", lambda **_: (token, "p"))
    shop = _open("vertex", tmp_path, key="")
    assert shop.teacher().buy([Query.text("a cat")]).bought == 1
    monkeypatch.setattr(google, "default", _raise(google.exceptions.DefaultCredentialsError("none")))
    with pytest.raises(KeyRefused, match="no Google credentials"):
        _open("vertex", tmp_path, key="")


def _raise(error: Exception) -> Callable[..., Any]:
    def raises(**_: Any) -> Any:
        raise error

    return raises
