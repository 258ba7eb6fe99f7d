"""What a customer can do and see beside embedding: ledger, invoices, estimates, its own keys, scopes."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.billing import EntryPage, Invoice, Quote
from shared.keys import KeyList, NewSecret
from tests.support.vendor_process import wait_until
from tests.vendor_service.books import lose_answers
from tests.vendor_service.local_vendor import LocalVendor, ScriptedTexts, Vendor, error_code
from vendor_service.accounts.keys import Scope, revoke_key
from vendor_service.accounts.projects import ProjectTerms, archive, create_project
from vendor_service.clock import SECOND, to_datetime
from vendor_service.database.tables import Account, ApiKey, Project
from vendor_service.errors import APIError
from vendor_service.http import history_rate
from vendor_service.http.authentication import Authentication
from vendor_service.http.history_rate import BURST, QUESTIONS_A_SECOND, HistoryRate
from vendor_service.money.billing_log import open_billing_log

CAT = {"text": "a photo of a cat"}


def post(vendor: Vendor, path: str, key: str, **rest: Any) -> httpx.Response:
    return vendor.http.post(path, headers={"authorization": f"Bearer {key}"}, **rest)


def test_the_ledger_is_read_page_by_page(vendor: Vendor) -> None:
    key = vendor.key(credit_micros=1000)
    requests = [vendor.embed(key, CAT).headers["x-request-id"] for _ in range(4)]
    pages, after = [], 0
    while (page := EntryPage.model_validate(vendor.get("/v1/ledger", key, after=str(after), limit="2"))).data:
        pages.append([entry.request_id for entry in page.data])
        after = page.next_after
    assert pages == [[None, requests[0]], requests[1:3], requests[3:]]
    entry = EntryPage.model_validate(vendor.get("/v1/ledger", key, after="4")).data[0]
    assert (entry.seq, entry.kind, entry.amount_micros, entry.texts) == (5, "charge", -20, 1)
    assert entry.key_id == key.split("_")[1]
    assert EntryPage.model_validate(vendor.get("/v1/ledger", vendor.key())).data == []


@pytest.mark.parametrize(
    "path",
    [
        "/v1/ledger?limit=0",
        "/v1/ledger?limit=1001",
        "/v1/ledger?after=-1",
        f"/v1/ledger?after={10**30}",
        "/v1/invoices/2026-13",
        "/v1/invoices/0001-01",
        "/v1/invoices/november",
        "/v1/invoices/2%D9%A0%D9%A2%D9%A6-11",  # Arabic digits
    ],
)
def test_a_question_that_makes_no_sense_is_refused(vendor: Vendor, path: str) -> None:
    headers = {"authorization": f"Bearer {vendor.key()}"}
    assert error_code(vendor.http.get(path, headers=headers)) == "invalid_request"


def test_an_invoice_is_a_draft_until_its_month_is_over(vendor: Vendor) -> None:
    key = vendor.key()
    vendor.embed(key, CAT, CAT)
    draft = Invoice.model_validate(vendor.get("/v1/invoices/2026-11", key))
    assert (draft.final, draft.total_micros, draft.lines[0].queries) == (False, 40, 2)
    headers = {"authorization": f"Bearer {key}"}
    assert error_code(vendor.http.get("/v1/invoices/2026-10", headers=headers)) == "not_found"


def test_history_has_a_rate_of_its_own_a_key(vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_rate, "QUESTIONS_A_SECOND", 0.01)  # however slow this machine is
    key, other = vendor.key(), vendor.key()
    headers = {"authorization": f"Bearer {key}"}
    paths = ("/v1/usage", "/v1/ledger", "/v1/invoices/2026-11")
    answers = [vendor.http.get(paths[number % 3], headers=headers) for number in range(60)]
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(answers) - len(refused) == BURST
    for answer in refused:
        assert error_code(answer) == "rate_limited"
        assert int(answer.headers["retry-after"]) >= 1
    for each in (other, vendor.another_key(key, Scope.READ_USAGE)):
        for path in paths:
            vendor.get(path, each)
    vendor.get("/v1/account", key)
    assert vendor.embed(key, CAT).status_code == 200


def test_a_containment_reads_history_at_that_rate(
    vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_rate, "QUESTIONS_A_SECOND", 0.01)
    monkeypatch.setattr(history_rate, "BURST", 3.0)
    key = vendor.key()
    thief, owner = (vendor.another_key(key, Scope.ADMIN) for _ in range(2))

    def contained(by: str) -> int:
        path = f"/v1/keys/{key.split('_')[1]}/contain?revoke=true"
        return vendor.http.post(path, headers={"authorization": f"Bearer {by}"}).status_code

    assert [contained(each) for each in (thief, thief, thief, thief, owner)] == [200, 200, 200, 429, 200]


def test_the_rate_of_history_is_a_bucket() -> None:
    now = 0.0
    rate = HistoryRate(lambda: now)
    for _ in range(int(BURST)):
        rate.take("a")
    with pytest.raises(APIError) as refused:
        rate.take("a")
    assert refused.value.retry_after == 1
    now += 1
    for _ in range(int(QUESTIONS_A_SECOND)):
        rate.take("a")
    with pytest.raises(APIError):
        rate.take("a")
    now += 3600
    for _ in range(int(BURST)):
        rate.take("a")
    with pytest.raises(APIError):
        rate.take("a")


def test_who_waits_as_long_as_told_may_ask_what_counts_as_several() -> None:
    now = 0.0
    rate = HistoryRate(lambda: now)
    for _ in range(3):
        rate.take("a", 10)
    for _ in range(5):
        rate.take("a")
    with pytest.raises(APIError) as refused:
        rate.take("a", 10)
    assert refused.value.retry_after == 1
    for _ in range(5):  # nothing was taken by what was refused
        rate.take("a")
    with pytest.raises(APIError) as refused:
        rate.take("a", 10)
    assert refused.value.retry_after == 2
    now += 2
    rate.take("a", 10)
    with pytest.raises(APIError):
        rate.take("a")


def test_an_estimate_is_free_and_says_what_fits(vendor: Vendor) -> None:
    key = vendor.key(quota=10, queries_per_second=1)
    answer = post(vendor, "/v1/estimate", key, json={"images": 8, "texts": 3})
    quote = Quote.model_validate_json(answer.content)
    assert (quote.cost_micros, quote.quota_left, quote.fits_quota, quote.fits_money) == (860, 10, False, True)
    assert quote.seconds_at_rate_limit == 1
    assert vendor.account(key).ledger_seq == 0
    for body in ({"images": -1}, {"images": 10**12}, {"images": 1.5}, {"images": True}, {"pictures": 1}):
        assert error_code(post(vendor, "/v1/estimate", key, json=body)) == "invalid_request"


def test_a_key_does_what_its_scopes_allow(vendor: Vendor) -> None:
    owner = vendor.key()
    embed, read, admin = (vendor.another_key(owner, scope) for scope in Scope)

    def allowed(key: str) -> list[bool]:
        headers = {"authorization": f"Bearer {key}"}
        answers = [vendor.embed(key, CAT)]
        answers += [vendor.http.get(f"/v1/{path}", headers=headers) for path in ("usage", "keys", "account")]
        refused = {error_code(answer) for answer in answers if answer.status_code != 200}
        assert refused <= {"insufficient_scope"}
        return [answer.status_code == 200 for answer in answers]

    assert allowed(embed) == [True, False, False, True]
    assert allowed(read) == [False, True, False, True]
    assert allowed(admin) == [True, True, True, True]
    assert allowed(owner) == [True, True, False, True]


def test_a_customer_rotates_and_revokes_its_own_keys_and_no_others(vendor: LocalVendor) -> None:
    owner = vendor.key(quota=3)
    admin = vendor.another_key(owner, Scope.ADMIN)
    vendor.embed(owner, CAT)
    path = f"/v1/keys/{owner.split('_')[1]}"
    renewed = post(vendor, f"{path}/rotate?grace_seconds=60", admin).json()["api_key"]
    assert vendor.embed(owner, CAT).status_code == vendor.embed(renewed, CAT).status_code == 200
    assert error_code(vendor.embed(renewed, CAT)) == "quota_exhausted"
    vendor.clock.advance(60)
    assert error_code(vendor.embed(owner, CAT)) == "invalid_api_key"
    stranger = vendor.another_key(vendor.key(), Scope.ADMIN)
    for action in ("rotate", "revoke"):
        assert error_code(post(vendor, f"{path}/{action}", stranger)) == "not_found"
        assert error_code(post(vendor, f"{path}/{action}", renewed)) == "insufficient_scope"
    assert post(vendor, f"{path}/revoke", admin).json()["revoked_at"]
    assert error_code(vendor.embed(renewed, CAT)) == "key_revoked"
    listed = KeyList.model_validate(vendor.get("/v1/keys", admin)).data
    assert {key.key_id: key.queries_used for key in listed} == {
        owner.split("_")[1]: 3,
        admin.split("_")[1]: 0,
    }
    assert renewed.split("_")[2] not in json.dumps(vendor.get("/v1/keys", admin))
    vendor.clock.advance(-60)


def test_a_customer_issues_keys_of_its_projects_within_what_the_asking_key_may(vendor: LocalVendor) -> None:
    owner = vendor.another_key(vendor.key(quota=9), Scope.ADMIN)
    with vendor.books.write() as session:
        account = session.get_one(Account, vendor.account(owner).id)
        create_project(session, account, "search", ProjectTerms(quota=3), vendor.clock)

    def issue(key: str, **terms: Any) -> httpx.Response:
        return post(vendor, "/v1/keys", key, json=terms)

    at = to_datetime(vendor.clock() + 60 * SECOND).isoformat()
    made = NewSecret.model_validate_json(
        issue(owner, project="search", scopes=["admin"], label="ci").content
    ).api_key
    short = issue(owner, expires_at=at, concurrency=1, queries_per_second=50).json()["api_key"]
    assert vendor.embed(made, CAT, CAT).headers["x-quota-remaining-queries"] == "1"
    assert error_code(vendor.embed(made, CAT, CAT)) == "quota_exhausted"
    assert vendor.embed(short, CAT).headers["x-ratelimit-limit-queries"] == "500"
    vendor.clock.advance(60)
    for asked in (vendor.embed(short, CAT), vendor.http.get("/v1/account", headers=_bearer(short))):
        assert (asked.status_code, error_code(asked)) == (401, "key_expired")
    # A key of a project has that one's keys alone, and one with limits or an end of its own issues none.
    listed = KeyList.model_validate(vendor.get("/v1/keys", made)).data
    assert [(each.label, each.project) for each in listed] == [("ci", "search")]
    assert [each["project"] for each in vendor.get("/v1/projects", made)["data"]] == ["search"]
    other = owner.split("_")[1]
    assert error_code(post(vendor, f"/v1/keys/{other}/rotate", made)) == "not_found"
    assert error_code(issue(made, project="default")) == "insufficient_scope"
    assert issue(made).status_code == 201
    limited = issue(owner, scopes=["admin"], quota=5).json()["api_key"]
    assert error_code(issue(limited)) == "insufficient_scope"
    # Nor does it get the secret of one that has none.
    assert error_code(post(vendor, f"/v1/keys/{other}/rotate", limited)) == "insufficient_scope"
    assert post(vendor, f"/v1/keys/{limited.split('_')[1]}/rotate", limited).status_code == 200
    for wrong in (
        {"quota": -1},
        {"project": "none"},
        {"expires_at": at},
        {"expires_at": "20270630000000"},
        {"scopes": ["root"]},
        {"x": 1},
    ):
        assert error_code(issue(owner, **wrong)) == "invalid_request"
    assert error_code(issue(vendor.another_key(owner, Scope.EMBED))) == "insufficient_scope"


def test_keys_are_listed_page_by_page(vendor: LocalVendor) -> None:
    admin = vendor.another_key(vendor.key(), Scope.ADMIN)
    with vendor.books.write() as session:
        account = session.get_one(Account, vendor.account(admin).id)
        create_project(session, account, "search", ProjectTerms(), vendor.clock)
    first, *_ = [post(vendor, "/v1/keys", admin, json={}).json() for _ in range(3)]
    vendor.clock.advance(1)
    of_search = {"project": "search", "scopes": ["admin"]}
    made = [post(vendor, "/v1/keys", admin, json=of_search).json() for _ in range(2)]
    assert post(vendor, f"/v1/keys/{first['key_id']}/revoke", admin).is_success
    pages: list[list[str]] = []
    after: dict[str, str] = {}
    while True:
        page = KeyList.model_validate(vendor.get("/v1/keys", admin, limit="2", **after))
        pages.append([key.key_id for key in page.data])
        after = {"after": pages[-1][-1]}
        if not page.has_more:
            break
    whole = KeyList.model_validate(vendor.get("/v1/keys", admin))
    assert [len(each) for each in pages] == [2, 2, 2, 1]
    assert [key_id for each in pages for key_id in each] == [key.key_id for key in whole.data]
    assert {key.key_id for key in whole.data[-2:]} == {each["key_id"] for each in made}
    assert not whole.has_more
    # A key of a project sees a page of that one's keys, behind one of them.
    of_project = made[0]["api_key"]
    page = KeyList.model_validate(vendor.get("/v1/keys", of_project, limit="1"))
    assert page.has_more
    last = KeyList.model_validate(vendor.get("/v1/keys", of_project, after=page.data[0].key_id))
    assert {page.data[0].key_id, last.data[0].key_id} == {each["key_id"] for each in made}
    headers = _bearer(of_project)
    for other in (admin.split("_")[1], "none"):
        assert error_code(vendor.http.get(f"/v1/keys?after={other}", headers=headers)) == "not_found"
    for limit in (0, 101):
        assert error_code(vendor.http.get(f"/v1/keys?limit={limit}", headers=headers)) == "invalid_request"
    vendor.clock.advance(-1)


def test_a_key_that_expired_or_whose_project_was_archived_gets_no_other_secret_and_may_be_revoked(
    vendor: LocalVendor,
) -> None:
    admin = vendor.another_key(vendor.key(), Scope.ADMIN)
    with vendor.books.write() as session:
        account = session.get_one(Account, vendor.account(admin).id)
        project = create_project(session, account, "search", ProjectTerms(), vendor.clock)
        project_id = project.id
    at = to_datetime(vendor.clock() + 60 * SECOND).isoformat()
    asked = {"key_expired": {"expires_at": at}, "project_archived": {"project": "search"}}
    ended = {code: post(vendor, "/v1/keys", admin, json=terms).json() for code, terms in asked.items()}
    vendor.clock.advance(60)
    with vendor.books.write() as session:
        archive(session.get_one(Project, project_id), vendor.clock())
    for code, key in ended.items():
        refused = post(vendor, f"/v1/keys/{key['key_id']}/rotate", admin)
        assert (error_code(refused), refused.json()["error"]["param"]) == (code, "key_id")
        assert error_code(vendor.embed(key["api_key"], CAT)) == code
        assert post(vendor, f"/v1/keys/{key['key_id']}/revoke", admin).json()["revoked_at"]
    vendor.clock.advance(-60)


def test_keys_of_which_nobody_heard_are_not_to_be_asked_for_again_unseen(
    vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = vendor.another_key(vendor.key(), Scope.ADMIN)
    paths = ("/v1/keys", f"/v1/keys/{admin.split('_')[1]}/rotate")
    with monkeypatch.context() as cut:
        lose_answers(cut)
        doubtful = [post(vendor, path, admin, json={}) for path in paths]
    for each in doubtful:
        assert error_code(each) == "overloaded"
        assert "it may have been: look before you send it again" in each.json()["error"]["message"]
        assert "Idempotency-Key" not in each.text
        assert each.headers["x-should-retry"] == "false"
        assert "retry-after" not in each.headers


def _bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_a_label_has_no_nul_and_an_end_has_a_date_in_utc(vendor: LocalVendor) -> None:
    admin = vendor.another_key(vendor.key(), Scope.ADMIN)
    headers = _bearer(admin) | {"content-type": "application/json"}
    for label, status in ((r"\u0000", 422), (r"\\\u0000", 422), (r"\\u0000", 201)):  # the last is no escape
        answer = vendor.http.post("/v1/keys", content=f'{{"label": "{label}"}}', headers=headers)
        assert answer.status_code == status
    assert post(vendor, "/v1/keys", admin, json={"expires_at": "9999-12-31T23:59:59-14:00"}).is_success
    ends = [each.expires_at for each in KeyList.model_validate(vendor.get("/v1/keys", admin)).data]
    assert max(each for each in ends if each) == datetime.max.replace(tzinfo=UTC)


def test_when_a_key_was_used_is_written_down_now_and_then(vendor: LocalVendor) -> None:
    key = vendor.key()
    key_id = key.split("_")[1]
    authentication = Authentication(vendor.books, vendor.clock)
    authentication.identify(key, None)

    def last_used() -> int | None:
        with vendor.books.read() as session:
            return session.get_one(ApiKey, key_id).last_used_at

    assert last_used() is None
    authentication.record_use()
    assert last_used() == vendor.clock()


def test_a_buyer_is_known_again_without_a_look_at_the_books_but_for_moments_only(
    vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = vendor.key()
    authentication = Authentication(vendor.books, vendor.clock)
    assert authentication.recall(key) is None
    reader = authentication.identify(key, Scope.READ_USAGE)
    assert authentication.recall(key) is None  # what it may read is not admitted once more
    buyer = authentication.identify(key, Scope.EMBED)
    assert authentication.recall(key) is buyer
    assert buyer == reader
    assert authentication.recall(key[:-1] + ("0" if key[-1] != "0" else "1")) is None
    for terms in ({"quota": 9}, {"queries_per_second": 9}, {"credit_micros": 9}, {"spend_limit_micros": 9}):
        limited = vendor.key(**terms)
        assert authentication.identify(limited, Scope.EMBED) is authentication.recall(limited)
    passed = 0.0
    clock = time.monotonic
    monkeypatch.setattr("vendor_service.http.authentication.time.monotonic", lambda: clock() + passed)
    passed = 0.6
    assert [authentication.recall(key) for _ in range(3)] == [None, buyer, buyer]  # one looks for them all
    renewed = authentication.identify(key, Scope.EMBED)
    passed = 1.05
    assert authentication.recall(key) is renewed
    passed = 2.1
    assert [authentication.recall(key) for _ in range(2)] == [None, None]


def test_a_secret_that_is_replaced_buys_nothing_from_that_moment_on(vendor: LocalVendor) -> None:
    owner, bad = vendor.key(), {"image": "AAAA"}
    admin = vendor.another_key(owner, Scope.ADMIN)
    assert vendor.embed(owner, CAT).status_code == 200
    path = f"/v1/keys/{owner.split('_')[1]}"
    renewed = post(vendor, f"{path}/rotate?grace_seconds=0", admin).json()["api_key"]
    assert error_code(vendor.embed(owner, CAT)) == "invalid_api_key"
    assert vendor.embed(renewed, CAT).status_code == 200
    assert vendor.embed(renewed, bad, on_error="skip").status_code == 200
    assert post(vendor, f"{path}/revoke", admin).json()["revoked_at"]
    # Where nothing is left to admit, too.
    assert error_code(vendor.embed(renewed, bad, on_error="skip")) == "key_revoked"
    assert vendor.account(owner).queries_used == 2


def test_a_key_that_is_revoked_in_flight_is_answered_and_charged_once(
    scripted: ScriptedTexts, tmp_path: Path
) -> None:
    with LocalVendor(tmp_path) as vendor, ThreadPoolExecutor() as pool:
        key = vendor.key()
        slow = pool.submit(vendor.embed, key, {"text": "wait"})
        wait_until(lambda: vendor.account(key).queries_held == 1)
        with vendor.books.write() as session:
            revoke_key(session, key.split("_")[1], vendor.clock)
        assert error_code(vendor.embed(key, CAT)) == "key_revoked"
        scripted.go.set()
        assert slow.result().status_code == 200
        account = vendor.account(key)
        assert (account.queries_used, account.queries_held, account.ledger_seq) == (1, 0, 1)


def test_every_decision_is_a_line_of_the_billing_log(vendor: LocalVendor, tmp_path: Path) -> None:
    log = tmp_path / "billing.jsonl"
    key = vendor.key(quota=2)
    with open_billing_log(log):
        once = {"idempotency-key": "private"}
        first = vendor.embed(key, {"text": "secret payload"}, headers=once)
        vendor.embed(key, {"text": "secret payload"}, headers=once)
        vendor.embed(key, CAT, CAT)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["outcome"] for line in lines] == ["held", "settled", "replayed", "refused"]
    for line in lines:
        assert line["key_id"] == key.split("_")[1]
        assert line["account_id"].startswith("acct_")
        assert line["milliseconds"] >= 0
    held, settled, _, refused = lines
    assert held["request_id"] == settled["request_id"] == first.headers["x-request-id"]
    assert (settled["images"], settled["texts"], settled["cost_micros"]) == (0, 1, 20)
    assert (refused["code"], refused["texts"], refused["cost_micros"]) == ("quota_exhausted", 2, 0)
    for secret in (key.split("_")[2], "private", "secret payload"):
        assert secret not in log.read_text()
