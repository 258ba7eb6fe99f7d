"""`client` at a vendor that sells several models: it compares, chooses, and stays with its choice."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from client.cache.notes import Payer, make_batch
from client.cache.origins import origin_of
from client.options.vendor import VendorOptions
from client.progress import Display
from client.runs.connection import Connection
from client.runs.embedding import run_id_of
from client.runs.folder import RunFolder
from client.vendors.query import Query
from tests.client.toy import make_folder
from tests.end_to_end.command import Command
from tests.support.model_shop import ICONS, TINY, Shop
from tests.support.tiny_clip import TINY_DIMENSIONS, write_tiny_clip
from vendor_service.database.session import Database
from vendor_service.database.tables import ApiKey, LedgerEntry

TOY = ("--data", "toy", "--target-domain", "red")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    write_tiny_clip(folder / "tiny", seed=1)
    process = Shop(folder)
    process.offer(ICONS, TINY)
    with process:
        yield process


@pytest.fixture
def client(shop: Shop, tmp_path: Path) -> Command:
    make_folder(tmp_path / "toy", images=5)
    return Command(tmp_path, shop.url, shop.create_key())


def charged(shop: Shop, client: Command) -> dict[str, int]:
    """The queries that were charged, by model."""
    mine = select(ApiKey.account_id).where(ApiKey.id == client.api_key.split("_")[1]).scalar_subquery()
    with closing(Database(shop.database_url)) as database, database.read() as session:
        queries: dict[str, int] = {}
        for each in session.scalars(select(LedgerEntry).where(LedgerEntry.account_id == mine)):
            queries[str(each.model)] = queries.get(str(each.model), 0) + sum(each.counts.values())
        return queries


def test_the_models_are_compared(client: Command) -> None:
    told = client("models").stdout
    for each in ("icon-clip (default)", "tiny/1", "2026-10-01", "2027-01-31", "fp_", "256", "24", "100", "7"):
        assert each in told
    cards = json.loads(client("models", "--json").stdout)
    assert [(card["id"], card["default"], bool(card["deprecated_at"])) for card in cards] == [
        ("icon-clip", True, False),
        ("tiny/1", False, True),
    ]


def test_each_model_is_bought_from_and_kept_apart(client: Command, shop: Shop) -> None:
    for model, dimensions in (("icon-clip", 256), ("tiny/1", TINY_DIMENSIONS)):
        for _ in range(2):
            done = client("embed", "--text", "a cat", "--out", "cat.npy", "--teacher", f"tuition:{model}")
            assert np.load(client.folder / "cat.npy").shape == (1, dimensions)
        assert ("is deprecated as of 2026-10-01" in done.stderr) == (model == "tiny/1")
    assert charged(shop, client) == {"icon-clip": 1, "tiny/1": 1}
    assert (
        "name one of them with --teacher tuition:MODEL"
        in client("embed", "--text", "a cat", "--out", "cat.npy", "--teacher", "tuition:gpt", code=1).stderr
    )


def test_each_model_is_probed_by_itself(client: Command, shop: Shop) -> None:
    for model in ("icon-clip", "tiny/1"):
        planned = client(
            "plan", *TOY, "--image-size", "32", "--probe", "23", "--teacher", f"tuition:{model}", "--json"
        )
        assert json.loads(planned.stdout)["teacher_check"] is not None
    assert charged(shop, client) == {"icon-clip": 23, "tiny/1": 23}


def test_what_was_paid_of_one_model_is_not_lost_to_who_asks_another_next(client: Command, shop: Shop) -> None:
    """A command for one model is killed before it stores the answer; the next one is for the other model."""
    query = Query.text("a cat")
    key_file = client.folder / "key"
    key_file.write_text(client.api_key)
    connection = Connection(
        VendorOptions(vendor=shop.url, api_key_file=key_file, cache=client.folder / "cache.db"),
        Display.of_nobody(),
    )
    with connection.vendor() as vendor, connection.cache() as cache:
        model = vendor.model("icon-clip")
        batch = make_batch(run_id_of([query]), model.fingerprint, (query,))
        cache.begin(batch, payer=Payer(origin_of(vendor.url), vendor.key_id), prices=model.prices)
        asked = [(query, query.content())]
        vendor.embed(asked, model=model, idempotency_key=batch.idempotency_key)
    for name in ("tiny/1", "icon-clip"):
        client(
            "embed", "--text", "a cat", "--out", "cat.npy", "--teacher", f"tuition:{name}", "--budget", "2"
        )
    assert charged(shop, client) == {"icon-clip": 1, "tiny/1": 1}
    with connection.cache() as cache:
        assert cache.spending(batch.run_id).queries == 2
        assert not cache.notes.of_run(batch.run_id)


def test_a_plan_is_at_the_prices_of_the_model(client: Command) -> None:
    def planned(*options: str) -> tuple[int, int]:
        told = json.loads(client("plan", *TOY, *options, "--json").stdout)
        cost: int = told["purchase"]["cost_micros"]
        assert told["outlook"]["quote"]["cost_micros"] == cost
        return told["purchase"]["to_buy"], cost

    cheap, dear = planned("--teacher", "tuition:tiny/1"), planned()
    assert cheap[0] == dear[0]
    assert cheap[1] < dear[1] / 5


def test_a_run_goes_on_with_the_model_that_it_began_with(client: Command, shop: Shop) -> None:
    connection = Connection(
        VendorOptions(vendor=shop.url, cache=client.folder / "cache.db"), Display.of_nobody()
    )
    begun = RunFolder(client.folder)
    begun.write(begun.plan, {"model": shop.models()["icon-clip"]})

    def chosen(run: RunFolder | None, fingerprint: str | None = None) -> str:
        with connection.teacher(run_id="run", budget=None, run=run, fingerprint=fingerprint) as teacher:
            return teacher.model.id

    try:
        shop.offer(
            ICONS.replace("default = true", ""), TINY.replace("[[model]]", "[[model]]\ndefault = true")
        )
        assert chosen(RunFolder(client.folder / "new")) == chosen(None) == "tiny/1"
        assert chosen(begun) == "icon-clip"
        assert chosen(None, shop.models()["icon-clip"]["fingerprint"]) == "icon-clip"
    finally:
        shop.offer(ICONS, TINY)


def test_a_dry_run_is_at_the_prices_of_the_model_that_was_begun_with(client: Command, shop: Shop) -> None:
    compare = ("compare", *TOY, "--seeds", "1", "--methods", "image-only", "--out", "table")
    distill = ("distill", *TOY, "--out", "run", "--budget")
    client(*distill, "2", code=3)
    client(*compare, "--max-spend", "20", code=3)
    try:
        shop.offer(
            ICONS.replace("default = true", ""), TINY.replace("[[model]]", "[[model]]\ndefault = true")
        )
        planned = json.loads(client(*distill, "500", "--dry-run", "--json").stdout)
        assert planned["model"]["id"] == "icon-clip"
        quote = json.loads(client(*compare, "--dry-run", "--json").stdout)
        assert quote["cost_micros"] > 50 * quote["to_buy"]
    finally:
        shop.offer(ICONS, TINY)
