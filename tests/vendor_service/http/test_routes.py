"""The customer's other answers: account, usage, models; and the health of the process."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from sqlalchemy import text

from shared.billing import AccountStatus, UsageReport
from shared.embeddings import ModelCard, ModelList
from shared.keys import KeyList
from tests.support.vendor_process import wait_until
from tests.vendor_service.local_vendor import LocalVendor, ScriptedTexts, Vendor, error_code, image_input
from vendor_service.accounts.keys import Scope
from vendor_service.clock import DAY, SECOND
from vendor_service.database.tables import Account
from vendor_service.encoder.engine import Engine
from vendor_service.encoder.queries import PreparedText
from vendor_service.money import prices

CAT = {"text": "a photo of a cat"}


def test_an_account_sees_its_limits_and_what_is_used(vendor: Vendor) -> None:
    key = vendor.key(quota=10, spend_limit_micros=1000, credit_micros=500, queries_per_second=5)
    vendor.embed(key, CAT, image_input())
    status = AccountStatus.model_validate(vendor.get("/v1/account", key))
    assert (status.queries_used, status.queries_held, status.quota_left) == (2, 0, 8)
    assert (status.spent_micros, status.credit_micros) == (120, 380)
    assert status.rate_limit is not None
    assert (status.rate_limit.queries_per_second, status.rate_limit.burst) == (5, 50)
    assert status.resets_at is not None
    assert status.resets_at.isoformat() == "2026-12-01T00:00:00+00:00"


def test_a_vendor_that_was_given_no_store_runs_no_jobs(vendor: Vendor) -> None:
    assert [error_code(vendor.http.get(f"/v1/{path}")) for path in ("files", "batches")] == ["not_found"] * 2


def test_usage_is_grouped_by_day_key_and_kind(vendor: LocalVendor) -> None:
    key = vendor.key()
    vendor.embed(key, CAT, image_input(), image_input())
    vendor.clock.advance(DAY / SECOND)
    vendor.embed(key, CAT)
    vendor.embed(vendor.key(), CAT)

    by_day = UsageReport.model_validate(vendor.get("/v1/usage", key))
    assert [(row.group, row.billed_queries, row.cost_micros) for row in by_day.rows] == [
        ("2026-11-15", 3, 220),
        ("2026-11-16", 1, 20),
    ]
    by_kind = UsageReport.model_validate(vendor.get("/v1/usage", key, group_by="kind"))
    assert [(row.group, row.requests, row.billed_queries, row.cost_micros) for row in by_kind.rows] == [
        ("image", 1, 2, 200),
        ("text", 2, 2, 40),
    ]
    by_key = UsageReport.model_validate(vendor.get("/v1/usage", key, group_by="key"))
    assert [(row.group, row.requests) for row in by_key.rows] == [(key.split("_")[1], 2)]
    for report in (by_day, by_kind, by_key):
        assert (report.total.requests, report.total.billed_queries, report.total.cost_micros) == (2, 4, 240)
    one_day = vendor.get("/v1/usage", key, **{"from": "2026-11-15", "to": "2026-11-16"})
    assert one_day["total"]["billed_queries"] == 3
    assert vendor.get("/v1/usage", vendor.key())["rows"] == []
    vendor.clock.advance(-DAY / SECOND)


def test_a_new_month_shows_before_anything_is_asked_in_it(vendor: LocalVendor) -> None:
    key = vendor.key(quota=1)
    admin = vendor.another_key(key, Scope.ADMIN)
    vendor.embed(key, CAT)
    vendor.clock.advance(20 * DAY / SECOND)
    assert AccountStatus.model_validate(vendor.get("/v1/account", key)).quota_left == 1
    listed = KeyList.model_validate(vendor.get("/v1/keys", admin)).data
    assert {(each.queries_used, each.spent_micros) for each in listed} == {(0, 0)}
    assert vendor.account(key).queries_used == 1
    vendor.clock.advance(-20 * DAY / SECOND)


@pytest.mark.parametrize(
    "query",
    ["from=soon", "from=20261101", "to=1798761600", "group_by=colour", "from=2026-11-16&to=2026-11-15"],
)
def test_a_usage_question_that_makes_no_sense_is_refused(vendor: Vendor, query: str) -> None:
    headers = {"authorization": f"Bearer {vendor.key()}"}
    assert error_code(vendor.http.get(f"/v1/usage?{query}", headers=headers)) == "invalid_request"


def test_the_model_card_tells_what_is_sold_to_anyone(vendor: Vendor) -> None:
    (card,) = ModelList.model_validate(vendor.http.get("/v1/models").json()).data
    assert (card.id, card.dimensions, card.image_size, card.dtype) == ("icon-clip", 256, 64, "float32")
    assert (card.prices.image_micros, card.prices.text_micros) == (100, 20)
    assert (card.limits.max_inputs, card.limits.max_request_bytes) == (8, 200_000)
    assert (card.limits.replay_window_seconds, card.limits.max_replays) == (72 * 3600, 32)
    assert ModelCard.model_validate(vendor.http.get("/v1/models/icon-clip").json()) == card
    assert error_code(vendor.http.get("/v1/models/ViT-B-32/openai")) == "model_not_found"
    answer = vendor.embed(vendor.key(), CAT, headers={"x-expect-fingerprint": card.fingerprint})
    assert answer.json()["model_fingerprint"] == card.fingerprint


def test_the_models_are_shown_at_the_callers_own_prices(vendor: Vendor) -> None:
    key, dear = vendor.key(), vendor.key()
    with vendor.books.write() as session:
        prices.set_price(session, "partner", "icon-clip", "image", 7, vendor.clock())
        session.get_one(Account, vendor.account(key).id).plan = "partner"
    for path in ("/v1/models", "/v1/models/icon-clip"):
        shown = [vendor.get(path, each) for each in (key, dear)]
        cards = [each["data"][0] if "data" in each else each for each in shown]
        assert [card["prices"]["image_micros"] for card in cards] == [7, 100]
        assert vendor.http.get(path).status_code == 200
        wrong = vendor.http.get(path, headers={"authorization": "Bearer tk_wrong"})
        assert error_code(wrong) == "invalid_api_key"


def test_a_healthy_process_is_alive_and_ready(vendor: Vendor) -> None:
    for path in ("/livez", "/readyz"):
        answer = vendor.http.get(path)
        assert answer.status_code == 200
        assert answer.headers["x-request-id"].startswith("req_")


def test_a_vendor_whose_tables_are_gone_is_not_ready(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with LocalVendor(tmp_path) as vendor, caplog.at_level(logging.INFO, "vendor_service.http.health"):
        assert vendor.http.get("/readyz").status_code == 200
        for change in (
            "ALTER TABLE ledger_entries RENAME TO gone",
            "ALTER TABLE gone RENAME TO ledger_entries",
        ):
            with vendor.books.engine.begin() as connection:
                connection.exec_driver_sql(change)
            answers = [vendor.http.get("/readyz") for _ in range(3)]
            if "TO gone" in change:
                assert [error_code(each) for each in answers] == ["not_ready"] * 3
            else:
                assert [each.status_code for each in answers] == [200] * 3
    told = [message for message in caplog.messages if "ready" in message]
    assert ["ledger_entries" in told[0], *told[1:]] == [True, "ready again"]


def test_a_suspended_account_reads_what_it_was_charged_and_buys_nothing(vendor: Vendor) -> None:
    key = vendor.key()
    admin = vendor.another_key(key, Scope.ADMIN)
    vendor.embed(key, CAT)
    with vendor.books.write() as session:
        session.get_one(Account, vendor.account(key).id).status = "suspended"
    assert vendor.get("/v1/account", key)["status"] == "suspended"
    assert vendor.get("/v1/usage", key)["total"]["billed_queries"] == 1
    assert len(vendor.get("/v1/ledger", key)["data"]) == 1
    assert vendor.get("/v1/invoices/2026-11", key)["lines"]
    assert error_code(vendor.embed(key, CAT)) == "account_suspended"
    headers = {"authorization": f"Bearer {admin}"}
    rotated = vendor.http.post(f"/v1/keys/{key.split('_')[1]}/rotate", headers=headers)
    assert error_code(rotated) == "account_suspended"


def test_a_rate_limit_is_told_with_its_refusal(vendor: Vendor) -> None:
    key = vendor.key(queries_per_second=1)
    for _ in range(2):
        vendor.embed(key, *[CAT] * 5)
    refused = vendor.embed(key, CAT)
    assert error_code(refused) == "rate_limited"
    told = {name: refused.headers[f"x-ratelimit-{name}-queries"] for name in ("limit", "remaining", "reset")}
    assert (told["limit"], int(told["remaining"]) <= 1) == ("10", True)
    assert 0 < int(told["reset"]) <= 10


def test_a_dead_worker_is_not_ready_until_it_is_back_and_costs_nobody_anything(
    tmp_path: Path, scripted: ScriptedTexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vendor_service.encoder.engine._PAUSE_SECONDS", 3.0)
    with LocalVendor(tmp_path) as vendor, ThreadPoolExecutor() as pool:
        key, other = vendor.key(), vendor.key()
        assert vendor.http.get("/readyz").is_success
        ahead = pool.submit(vendor.embed, key, {"text": "wait"})
        assert scripted.waiting.wait(10)
        doomed = [pool.submit(vendor.embed, *each) for each in ((key, {"text": "die"}), (other, CAT))]
        wait_until(lambda: vendor.account(other).queries_held == 1 and vendor.account(key).queries_held == 2)
        scripted.go.set()
        assert ahead.result().is_success
        for each in doomed:
            assert error_code(each.result()) == "not_ready"
            assert each.result().headers["retry-after"] == "1"
        assert error_code(vendor.http.get("/readyz")) == "not_ready"
        wait_until(lambda: vendor.http.get("/readyz").is_success)
        assert vendor.embed(other, CAT).is_success
        account = vendor.account(other)
        assert (account.queries_used, account.queries_held, account.ledger_seq) == (1, 0, 1)


def test_a_model_that_fails_is_alive_but_not_ready(
    tmp_path: Path, scripted: ScriptedTexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(engine: Engine) -> None:
        await engine.encode("", [PreparedText("explode", torch.zeros(16, dtype=torch.int64))])

    monkeypatch.setattr(Engine, "check", check)
    with LocalVendor(tmp_path) as vendor:
        answer = vendor.http.get("/readyz")
        assert error_code(answer) == "not_ready"
        assert answer.headers["retry-after"] == "5"
        assert vendor.http.get("/livez").status_code == 200


def test_a_database_that_takes_no_change_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalVendor(tmp_path) as vendor:
        key = vendor.key()
        assert vendor.http.get("/readyz").is_success
        monkeypatch.setattr("vendor_service.http.health._BELIEVED_SECONDS", 0)
        monkeypatch.setattr("vendor_service.http.health._PATIENCE_SECONDS", 0.5)
        with vendor.books.write() as session, ThreadPoolExecutor(20) as pool:
            session.execute(text("SELECT 1"))  # locked from now on, for whoever writes
            asked = list(pool.map(lambda _: vendor.http.get("/readyz"), range(20)))
            assert {error_code(each) for each in asked} == {"not_ready"}
            assert vendor.get("/v1/account", key)["queries_used"] == 0
        wait_until(lambda: vendor.http.get("/readyz").is_success)
