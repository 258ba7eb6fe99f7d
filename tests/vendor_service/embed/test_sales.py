"""What is charged at once behind the model, and what is held while it works."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.vendor_service.hostile_bodies import hanging_up
from tests.vendor_service.local_vendor import LocalVendor, ScriptedTexts, error_code, image_input
from vendor_service.accounts.keys import revoke_key
from vendor_service.database.tables import ApiKey
from vendor_service.embed import sales
from vendor_service.embed.request import EmbedResult
from vendor_service.money import checkout, prices
from vendor_service.money.billing_log import open_billing_log
from vendor_service.money.checkout import Precheck

CAT = {"text": "a photo of a cat"}


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, the model answers soon."""
    monkeypatch.setattr(checkout, "_SOON_SECONDS", 20)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalVendor]:
    """A vendor for all tests that open an account of their own."""
    with LocalVendor(tmp_path_factory.mktemp("vendor")) as vendor:
        yield vendor


@pytest.mark.parametrize(
    ("queries", "headers", "concurrency", "terms", "outcomes"),
    [
        (1, {}, None, {}, ["settled"]),
        (8, {}, None, {"quota": 20, "queries_per_second": 5}, ["settled"]),
        (9, {}, None, {}, ["held", "settled"]),
        (1, {"idempotency-key": "mine"}, None, {}, ["held", "settled"]),
        (1, {}, 2, {}, ["held", "settled"]),
        (1, {}, None, {"spend_limit_micros": 100}, ["held", "settled"]),
    ],
    ids=["one", "some", "many", "under a key", "of a key that counts", "of an unknown price"],
)
def test_few_queries_are_charged_at_once_unless_somebody_needs_their_hold(
    local: LocalVendor,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    queries: int,
    headers: dict[str, str],
    concurrency: int | None,
    terms: dict[str, Any],
    outcomes: list[str],
) -> None:
    monkeypatch.setattr(checkout, "_PRICES_LAST_SECONDS", 0)
    api_key = local.key(**terms)
    with local.books.write() as session:
        session.get_one(ApiKey, api_key.split("_")[1]).concurrency = concurrency
    log = tmp_path / "billing.jsonl"
    with open_billing_log(log):
        answer = local.embed(api_key, *[CAT] * queries, headers=headers)
    assert answer.json()["usage"]["cost_micros"] == int(answer.headers["x-cost-micros"]) == 20 * queries
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["outcome"], line["cost_micros"]) for line in lines] == [
        (outcome, 20 * queries) for outcome in outcomes
    ]
    if outcomes == ["settled"]:  # of the decision; the clock of holds stands still here
        assert lines[0]["milliseconds"] > 0
    account = local.account(api_key)
    assert (account.queries_used, account.queries_held, account.ledger_seq) == (queries, 0, 1)


def test_a_new_price_is_told_and_charged(local: LocalVendor) -> None:
    key = local.key()
    for micros in (20, 20, 30, 25):
        with local.books.write() as session:
            prices.set_price(session, "standard", "icon-clip", "text", micros, local.clock())
        answer = local.embed(key, CAT)
        assert answer.json()["usage"]["cost_micros"] == int(answer.headers["x-cost-micros"]) == micros
        local.clock.advance(1)
    assert local.account(key).spent_micros == 95


def test_what_cannot_be_rendered_is_not_charged(local: LocalVendor, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(result: EmbedResult, dtype: str) -> None:
        raise MemoryError(dtype)

    key = local.key()
    monkeypatch.setattr(sales, "what_was_sold", fail)
    assert error_code(local.embed(key, CAT)) == "internal_error"
    assert local.account(key).ledger_seq == 0


def test_what_a_limit_forbids_in_the_end_is_neither_answered_nor_charged(
    local: LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others have used up what was left when it was looked at."""
    monkeypatch.setattr(Precheck, "passes", lambda *_: True)
    key = local.key(quota=1)
    assert error_code(local.embed(key, image_input(), CAT)) == "quota_exhausted"
    account = local.account(key)
    assert (account.queries_used, account.queries_held, account.ledger_seq) == (0, 0, 0)
    assert local.embed(key, CAT).status_code == 200


def test_a_key_that_is_revoked_before_the_charge_buys_nothing(
    scripted: ScriptedTexts, tmp_path: Path
) -> None:
    with LocalVendor(tmp_path) as vendor, ThreadPoolExecutor() as pool:
        key = vendor.key()
        slow = pool.submit(vendor.embed, key, {"text": "wait"})
        assert scripted.waiting.wait(10)
        with vendor.books.write() as session:
            revoke_key(session, key.split("_")[1], vendor.clock)
        scripted.go.set()
        assert error_code(slow.result()) == "key_revoked"
        assert vendor.account(key).ledger_seq == 0


def test_a_caller_that_hangs_up_before_the_charge_is_not_charged(
    scripted: ScriptedTexts, tmp_path: Path
) -> None:
    with LocalVendor(tmp_path) as vendor:
        key = vendor.key()
        with hanging_up(str(vendor.http.base_url), key, {"text": "wait"}):
            assert scripted.waiting.wait(10)
        # The vendor hears of that before it is asked for anything on another connection.
        assert vendor.http.get("/livez").status_code == 200
        scripted.go.set()
        assert vendor.embed(key, CAT).status_code == 200
    assert vendor.account(key).queries_used == 1
