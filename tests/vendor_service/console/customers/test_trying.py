"""A model that is tried at the console, and what that costs."""

import re
from concurrent.futures import Future
from typing import Any

import pytest

from shared.errors import APIError, ErrorCode
from tests.vendor_service.console.customers.people import admin_of, issued, key_id, once_on, signed_in, try_it
from tests.vendor_service.console.visits import problem_of
from tests.vendor_service.local_vendor import LocalVendor
from vendor_service.accounts.keys import Scope
from vendor_service.console.customers.pages import CustomerPages
from vendor_service.errors import CommitInDoubt
from vendor_service.money.admission import Admission
from vendor_service.money.orders import Charged


def test_a_model_is_tried_and_charged_once_to_the_chosen_key(vendor: LocalVendor) -> None:
    key = vendor.key()
    visit, admin = signed_in(vendor, key), admin_of(vendor, key)
    page = try_it(vendor, visit, key)
    assert page.status_code == 200
    assert re.findall(r"<b>(-?\d\.\d{3})</b>", page.text)[0] == "1.000"  # an image and itself
    assert "cost 0.00022 units" in page.text
    assert "<b>red</b>" not in page.text
    assert vendor.account(key).spent_micros == 220
    assert try_it(vendor, admin, key).status_code == 200
    assert vendor.account(key).spent_micros == 440
    assert try_it(vendor, visit, key, most="219").status_code == 402
    assert try_it(vendor, visit, key, csrf="").status_code == 403
    reader = signed_in(vendor, vendor.another_key(key, Scope.READ_USAGE))
    assert try_it(vendor, reader, key).status_code == 403
    assert "To try a model, you need a key that may buy" in reader.page("/models")
    assert vendor.account(key).spent_micros == 440


@pytest.mark.parametrize("limit", [{"quota": 5}, {"expires_at": 2 * 10**15}], ids=["quota", "end"])
def test_a_key_with_limits_of_its_own_tries_on_no_other_key(
    vendor: LocalVendor, limit: dict[str, int]
) -> None:
    key = vendor.key()
    limited = issued(vendor, key, scopes=frozenset({Scope.ADMIN}), **limit)
    visit = signed_in(vendor, limited)
    assert re.findall(r'<option value="([^"]+)"', visit.page("/models")) == [key_id(limited)]
    refused = try_it(vendor, visit, key)
    assert (refused.status_code, vendor.account(key).spent_micros) == (403, 0)
    assert try_it(vendor, visit, limited).status_code == 200
    assert try_it(vendor, visit, limited).status_code == (402 if "quota" in limit else 200)


def test_a_trial_of_which_nobody_heard_is_charged_once_from_the_same_page(
    vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = vendor.key()
    visit = signed_in(vendor, key)
    once = once_on(visit)
    settle = Admission.settle

    def unanswered(*given: Any) -> Future[Charged]:
        settle(*given).result(20)
        lost: Future[Charged] = Future()
        lost.set_exception(CommitInDoubt.unkeyed())
        return lost

    with monkeypatch.context() as cut:
        cut.setattr(Admission, "settle", unanswered)
        doubtful = try_it(vendor, visit, key, once=once)
    assert "it may have been" in problem_of(doubtful)
    assert "Nothing was changed" not in doubtful.text
    assert vendor.account(key).spent_micros == 220
    assert "cost 0.00022 units" in try_it(vendor, visit, key, once=once).text
    assert vendor.account(key).spent_micros == 220
    assert "once is empty" in problem_of(try_it(vendor, visit, key, once=""))


def test_a_trial_whose_page_cannot_be_made_is_said_to_be_charged(
    vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = vendor.key()
    visit = signed_in(vendor, key)
    once = once_on(visit)

    def away(*_: Any) -> None:
        raise APIError(ErrorCode.OVERLOADED, "the vendor's database is busy; try again", retry_after=1)

    with monkeypatch.context() as cut:
        cut.setattr(CustomerPages, "models_page", away)
        failed = try_it(vendor, visit, key, once=once)
    assert failed.status_code == 503
    (entry,) = vendor.get("/v1/ledger", key)["data"]
    charged = f"This was charged (0.00022 units, request {entry['request_id']})"
    assert problem_of(failed).startswith(charged)
    assert "look at the ledger" in problem_of(failed)
    for wrong in ("Nothing was changed", "try again"):
        assert wrong not in failed.text
    assert "cost 0.00022 units" in try_it(vendor, visit, key, once=once).text
    assert vendor.account(key).spent_micros == 220
