"""Nothing is done for nothing: refused before it is decoded, or counted where it was decoded in vain."""

import re
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from shared.errors import APIError, ErrorCode
from shared.processes import worker
from tests.support.vendor_process import wait_until
from tests.vendor_service.clocks import FakeClock
from tests.vendor_service.local_vendor import LocalVendor, ScriptedTexts, error_code, image_input
from vendor_service.database.view import View
from vendor_service.encoder.batcher import Batcher
from vendor_service.encoder.queries import Encoded
from vendor_service.money import checkout, rate
from vendor_service.money.charging import Charging
from vendor_service.money.replays import ReplayTerms
from vendor_service.run import vendor as running

CAT = {"text": "a photo of a cat"}
BROKEN = image_input(b"no image")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalVendor]:
    """A vendor for all tests that open an account of their own and need no other settings."""
    with LocalVendor(tmp_path_factory.mktemp("vendor")) as vendor:
        yield vendor


def decoded(vendor: LocalVendor) -> float:
    """How many inputs the vendor has looked into so far."""
    return sum(
        map(float, re.findall(r"tuition_decode_seconds_count{.*} (\S+)", vendor.http.get("/metrics").text))
    )


@pytest.mark.parametrize(
    ("terms", "headers", "code"),
    [
        ({"quota": 1}, {}, "quota_exhausted"),
        ({"spend_limit_micros": 199}, {}, "spend_limit_reached"),
        ({"credit_micros": 199}, {}, "insufficient_credit"),
        ({}, {"x-max-cost-micros": "199"}, "max_cost_exceeded"),
        ({"quota": 1}, {"idempotency-key": "never seen"}, "quota_exhausted"),
        ({"coverage_limit": 1}, {}, "coverage_limit_reached"),
    ],
)
def test_what_no_limit_allows_is_refused_before_it_is_decoded(
    local: LocalVendor,
    monkeypatch: pytest.MonkeyPatch,
    terms: dict[str, Any],
    headers: dict[str, str],
    code: str,
) -> None:
    key, before = local.key(**terms), decoded(local)
    for seconds in (0, 60):  # at once, and by prices that are known
        monkeypatch.setattr(checkout, "_PRICES_LAST_SECONDS", seconds)
        answer = local.embed(key, image_input(), image_input(), headers=headers)
        assert error_code(answer) == code
    assert decoded(local) == before
    assert local.embed(key, image_input(), BROKEN, on_error="skip", headers=headers).status_code == 200
    assert decoded(local) == before + 2


def test_coverage_that_is_used_up_is_known_at_once(local: LocalVendor) -> None:
    key = local.key(coverage_limit=1)
    assert local.embed(key, image_input()).status_code == 200
    before = decoded(local)
    assert error_code(local.embed(key, image_input())) == "coverage_limit_reached"
    assert decoded(local) == before


@pytest.mark.parametrize("terms", [{"quota": 0}, {"spend_limit_micros": 19}, {"credit_micros": 0}])
def test_what_passes_over_bad_inputs_is_refused_where_not_one_would_fit(
    local: LocalVendor, terms: dict[str, Any]
) -> None:
    key, before = local.key(**terms), decoded(local)
    assert local.embed(key, image_input(), CAT, on_error="skip").status_code == 402
    assert decoded(local) == before


def test_what_passes_over_bad_inputs_may_come_out_as_its_cheapest(local: LocalVendor) -> None:
    key = local.key(spend_limit_micros=20)
    assert local.embed(key, BROKEN, CAT, on_error="skip").json()["usage"]["cost_micros"] == 20
    assert error_code(local.embed(key, BROKEN, CAT, on_error="skip")) == "spend_limit_reached"


def test_what_is_over_the_rate_is_refused_before_it_is_decoded(local: LocalVendor) -> None:
    key = local.key(queries_per_second=1)
    assert local.embed(key, *[CAT] * 8).status_code == 200
    before = decoded(local)
    refused = local.embed(key, *[CAT] * 8)
    assert (error_code(refused), refused.headers["retry-after"]) == ("rate_limited", "6")
    assert decoded(local) == before


def test_what_was_paid_for_is_answered_again_whatever_limits_say(
    scripted: ScriptedTexts, tmp_path: Path
) -> None:
    with LocalVendor(tmp_path) as vendor, ThreadPoolExecutor() as pool:
        key = vendor.key(quota=1, credit_micros=20)
        headers = {"idempotency-key": "once", "x-max-cost-micros": "20"}
        first = pool.submit(vendor.embed, key, {"text": "wait"}, headers=headers)
        assert scripted.waiting.wait(10)
        for_nothing = headers | {"x-max-cost-micros": "0"}
        assert error_code(vendor.embed(key, {"text": "wait"}, headers=for_nothing)) == "idempotency_in_flight"
        scripted.go.set()
        assert first.result().status_code == 200
        again = vendor.embed(key, {"text": "wait"}, headers=for_nothing)
        assert again.json()["replayed"] is True
        assert error_code(vendor.embed(key, {"text": "wait"})) == "quota_exhausted"


@pytest.mark.parametrize("fault", [APIError(ErrorCode.NOT_READY, "it starts again"), RuntimeError("broken")])
def test_what_was_paid_for_and_the_vendor_cannot_answer_again_is_no_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    monkeypatch.setattr(running, "REPLAYS", ReplayTerms(most=2))
    with LocalVendor(tmp_path, request_timeout_seconds=1) as vendor:
        key, once = vendor.key(), {"idempotency-key": "once"}
        assert vendor.embed(key, image_input(), headers=once).status_code == 200

        def submit_in_vain(*_: object, **__: object) -> "Future[Encoded]":
            raise fault

        with monkeypatch.context() as patched:
            patched.setattr(Batcher, "submit", submit_in_vain)
            for _ in range(3):
                assert vendor.embed(key, image_input(), headers=once).status_code in {500, 503}
        assert vendor.embed(key, image_input(), headers=once).json()["replayed"] is True
        with monkeypatch.context() as patched:
            patched.setattr(Batcher, "submit", lambda *_, **__: Future())
            assert error_code(vendor.embed(key, image_input(), headers=once)) == "deadline_exceeded"
        assert error_code(vendor.embed(key, image_input(), headers=once)) == "replays_exhausted"
        assert vendor.account(key).ledger_seq == 1


@pytest.mark.parametrize(
    ("inputs", "rest", "taken"),
    [
        ([BROKEN] * 8, {}, 8),
        ([CAT] * 7 + [BROKEN], {}, 8),
        ([CAT] * 3 + [BROKEN] * 5, {"on_error": "skip"}, 8),
        ([BROKEN] * 4, {"on_error": "skip"}, 4),
    ],
)
def test_what_was_decoded_in_vain_counts_against_the_rate(
    local: LocalVendor, inputs: list[dict[str, str]], rest: dict[str, str], taken: int
) -> None:
    key = local.key(queries_per_second=1)
    local.embed(key, *inputs, **rest)
    left = (10 - taken) * 10**6
    if rest:  # what is answered does not wait for it; an account that was never counted has 0 in the books
        wait_until(lambda: local.account(key).rate_tokens == left)
    assert local.account(key).rate_tokens == left
    refused = local.embed(key, *[CAT] * 10)
    assert (error_code(refused), refused.headers["retry-after"]) == ("rate_limited", str(taken))


@pytest.mark.parametrize("refused", [False, True])
def test_an_answer_that_was_charged_neither_waits_for_the_rest_to_be_counted_nor_fails_with_it(
    local: LocalVendor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, refused: bool
) -> None:
    told, waited = threading.Event(), list[bool]()

    def take_tokens(*_: object) -> None:
        waited.append(refused or told.wait(10))
        raise OperationalError("UPDATE", {}, sqlite3.OperationalError("disk I/O error"))

    monkeypatch.setattr(Charging, "take_tokens", take_tokens)
    key = local.key(queries_per_second=1)
    answer = local.embed(key, CAT, BROKEN, on_error="fail" if refused else "skip")
    told.set()
    if refused:
        assert error_code(answer) == "unsupported_image_format"
    else:
        assert answer.json()["usage"]["billed_queries"] == 1
    assert local.account(key).queries_used == (0 if refused else 1)
    wait_until(lambda: "could not be counted" in caplog.text, 10)
    assert waited == [True]


def test_a_project_without_a_rate_limit_has_an_allowance_for_what_is_not_paid(
    local: LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate, "UNPAID_BURST", 32)
    key, other = local.key(), local.key()
    beside = local.project_key(key)
    assert local.embed(key, CAT).status_code == 200
    for _ in range(4):
        assert error_code(local.embed(key, *[BROKEN] * 8)) == "unsupported_image_format"
    before = decoded(local)
    refused = local.embed(key, CAT)
    assert (error_code(refused), refused.headers["retry-after"]) == ("rate_limited", "1")
    assert decoded(local) == before
    assert local.embed(other, CAT).status_code == 200
    assert local.embed(beside, CAT).status_code == 200
    local.clock.advance(1)
    assert local.embed(key, CAT).status_code == 200
    assert local.account(key).ledger_seq == 3
    for _ in range(20):
        local.embed(key, *[BROKEN] * 8)
    local.clock.advance(4)  # however much it was, the debt is bounded
    assert local.embed(key, CAT).status_code == 200


def test_a_debt_of_what_is_not_paid_is_over_in_about_a_minute_however_large_it_was() -> None:
    clock = FakeClock()
    left = rate.Allowance(clock)
    left.take(View("acct_1", ""), 10**6)
    with pytest.raises(APIError) as refused:
        left.check(View("acct_1", ""))
    assert refused.value.retry_after == 65
    clock.advance(65)
    left.check(View("acct_1", ""))


def test_what_is_not_paid_takes_of_the_allowance_by_its_processor_time(
    local: LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate, "UNPAID_BURST", 40)
    monkeypatch.setattr(worker, "believed", lambda _: 1.5)  # so long took each
    key = local.key()
    assert local.embed(key, *[image_input()] * 3).status_code == 200
    assert local.embed(key, CAT, BROKEN, on_error="skip").status_code == 200  # 24
    assert error_code(local.embed(key, image_input(), BROKEN)) == "unsupported_image_format"  # and 48
    refused = local.embed(key, CAT)
    assert (error_code(refused), refused.headers["retry-after"]) == ("rate_limited", "3")
    local.clock.advance(3)
    assert local.embed(key, CAT).status_code == 200


def test_a_late_answer_counts_and_the_vendors_own_faults_do_not(
    scripted: ScriptedTexts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate, "UNPAID_BURST", 2)
    with LocalVendor(tmp_path, request_timeout_seconds=3) as vendor, ThreadPoolExecutor() as pool:
        key = vendor.key(queries_per_second=1)
        for number in range(3):  # under keys, so that each is held before it fails
            once = {"idempotency-key": str(number)}
            assert error_code(vendor.embed(key, {"text": "explode"}, headers=once)) == "internal_error"
        for late in [pool.submit(vendor.embed, key, {"text": "wait"}) for _ in range(2)]:
            assert error_code(late.result()) == "deadline_exceeded"
        scripted.go.set()
        assert error_code(vendor.embed(key, CAT)) == "rate_limited"
        account = vendor.account(key)
        assert (account.ledger_seq, account.queries_held) == (0, 0)
        assert account.rate_tokens == 5 * 10**6  # of ten: each of the five was admitted, and counted once
