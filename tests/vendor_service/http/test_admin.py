"""`/admin`: operators' tokens and what each may do, money that no retry moves twice, and the record of it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.vendor_service.batches.bulk_books import BulkProcess
from tests.vendor_service.books import Books, lose_answers, opened_books
from tests.vendor_service.http.local_admin import LocalAdmin
from tests.vendor_service.http.test_openapi import asked_by_schemathesis
from tests.vendor_service.local_vendor import error_code
from vendor_service.acts.act import OperatorScope
from vendor_service.database.tables import STANDARD_PLAN
from vendor_service.money import prices

READ, ACCOUNTS, MONEY, ALL = OperatorScope


@pytest.fixture
def admin(books: Books, tmp_path: Path) -> Iterator[LocalAdmin]:
    with LocalAdmin(books, keys_in=tmp_path) as local:
        yield local


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[LocalAdmin]:
    """For what is the same on both databases."""
    with (
        opened_books(f"sqlite:///{tmp_path / 'books.db'}") as books,
        LocalAdmin(books, keys_in=tmp_path) as local,
    ):
        yield local


def test_tokens_are_rotated_and_revoked_and_kept_as_hashes(admin: LocalAdmin) -> None:
    made = admin.done("POST", "operators", {"name": "deploy", "scopes": ["accounts", "money"]})
    assert admin.ask("GET", "accounts", token=made["token"]).status_code == 200
    other = admin.done("POST", f"operators/{made['token_id']}/rotate?grace_seconds=60")
    assert all(admin.ask("GET", "prices", token=each["token"]).status_code == 200 for each in (made, other))
    admin.books.clock.advance(61)
    assert error_code(admin.ask("GET", "prices", token=made["token"])) == "invalid_api_key"
    assert error_code(admin.ask("POST", f"operators/{other['token']}/revoke")) == "not_found"
    assert admin.done("POST", f"operators/{made['token_id']}/revoke")["revoked_at"]
    assert error_code(admin.ask("GET", "prices", token=other["token"])) == "key_revoked"
    (listed,) = [
        each for each in admin.done("GET", "operators")["data"] if each["token_id"] == made["token_id"]
    ]
    assert (listed["name"], listed["scopes"]) == ("deploy", ["accounts", "money"])
    assert listed["last_used_at"]
    with admin.books.database.engine.connect() as connection:
        for table in ("operator_tokens", "audit_entries"):
            stored = str(connection.exec_driver_sql(f"SELECT * FROM {table}").all())
            assert not any(each["token"].split("_")[2] in stored for each in (made, other))


def test_wrong_tokens_are_tried_a_few_times_and_lock_nobody_out(sqlite: LocalAdmin) -> None:
    good = sqlite.tokens[READ]
    unknown = f"op_{'0' * 16}_{'0' * 48}"
    for wrong in (unknown, good[:-48] + "0" * 48):  # an id that is none, and the secret of a real one
        answers = [sqlite.ask("GET", "prices", token=wrong) for _ in range(11)]
        assert [each.status_code for each in answers] == [401] * 10 + [429]
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 7
    assert sqlite.ask("GET", "prices", scope=READ).status_code == 429  # its id is known to who tried
    assert sqlite.ask("GET", "prices", scope=ALL).status_code == 200


@pytest.mark.parametrize("kind", ["adjustments", "top-ups"])
def test_a_retry_moves_money_once(admin: LocalAdmin, kind: str) -> None:
    admin.done("POST", "accounts", {"account": "acme", "credit_micros": 100})
    body: dict[str, Any] = {"amount_micros": 7, "reference": "r"} | (
        {"reason": "r"} if kind == "adjustments" else {}
    )
    with ThreadPoolExecutor(6) as threads:
        answers = list(
            threads.map(
                lambda _: admin.ask("POST", f"accounts/acme/{kind}", body, key="once"),
                range(6),
            )
        )
    assert [each.status_code for each in answers] == [200] * 6
    assert len({each.text for each in answers}) == 1
    assert sorted("idempotent-replayed" in each.headers for each in answers) == [False] + [True] * 5
    assert admin.done("GET", "accounts/acme")["credit_micros"] == 107
    again = admin.ask("POST", f"accounts/acme/{kind}", body | {"amount_micros": 8}, key="once")
    assert error_code(again) == "idempotency_key_reused"
    missing = admin.ask("POST", f"accounts/acme/{kind}", body)
    assert (error_code(missing), missing.json()["error"]["param"]) == ("invalid_request", "idempotency-key")
    # The key is the token's own; that of another token names another request, whose reference was used.
    other = admin.ask("POST", f"accounts/acme/{kind}", body, key="once", scope=MONEY)
    assert other.json()["seq"] == 2
    assert admin.done("GET", "ledger/verification")["data"][0]["problem"] is None


def test_a_request_that_failed_may_be_sent_again_under_its_key(admin: LocalAdmin) -> None:
    admin.done("POST", "accounts", {"account": "acme", "credit_micros": 100})
    body = {"amount_micros": -500, "reason": "too much", "reference": "r"}
    assert error_code(admin.ask("POST", "accounts/acme/adjustments", body, key="k")) == "invalid_request"
    admin.done("POST", "accounts/acme/top-ups", {"amount_micros": 900, "reference": "s"}, key="other")
    assert admin.done("POST", "accounts/acme/adjustments", body, key="k")["amount_micros"] == -500


def test_an_act_without_a_key_that_may_have_been_done_is_not_to_be_repeated_unseen(
    sqlite: LocalAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite.done("POST", "accounts", {"account": "acme", "credit_micros": 100})
    body = {"amount_micros": 7, "reason": "r", "reference": "r"}
    with monkeypatch.context() as cut:
        lose_answers(cut)
        keyless = sqlite.ask("POST", "accounts/acme/keys", {})
        keyed = sqlite.ask("POST", "accounts/acme/adjustments", body, key="k")
    assert (error_code(keyless), error_code(keyed)) == ("overloaded", "overloaded")
    assert "it may have been: look at /admin/audit" in keyless.json()["error"]["message"]
    assert "retry-after" not in keyless.headers
    assert keyless.headers["x-should-retry"] == "false"
    assert keyed.headers["retry-after"] == "1"
    assert "same Idempotency-Key" in keyed.json()["error"]["message"]
    sqlite.done("POST", "accounts/acme/adjustments", body, key="k")
    assert sqlite.done("GET", "accounts/acme")["credit_micros"] == 107


def test_an_invoice_that_a_busy_database_puts_off_is_no_fault_of_the_account(
    admin: LocalAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = admin.books.open()
    path = f"accounts/{admin.books.account(order).name}/invoices/2026-11"
    admin.books.clock.advance(40 * 86_400)
    with monkeypatch.context() as cut:
        lose_answers(cut)
        put_off = admin.ask("GET", path)
    assert (error_code(put_off), "repair" in put_off.text) == ("overloaded", False)
    assert admin.done("GET", path)["final"]


def test_digits_alone_are_no_moment(sqlite: LocalAdmin) -> None:
    order = sqlite.books.open()
    account = f"accounts/{sqlite.books.account(order).name}"
    price = {"model": "icon-clip", "kind": "image", "micros": 5, "since": "29990101"}
    for refused in (
        sqlite.ask("GET", f"{account}/usage?from=20261101"),
        sqlite.ask("GET", f"{account}/usage?to=1798761600"),
        sqlite.ask("POST", f"{account}/keys", {"expires_at": "20270630000000"}),
        sqlite.ask("PATCH", f"keys/{order.key_id}", {"expires_at": "20270630000000"}),
        sqlite.ask("POST", "prices", price),
    ):
        assert (error_code(refused), "not a number" in refused.text) == ("invalid_request", True)


def test_a_refund_of_a_charge_of_nothing_takes_no_money(admin: LocalAdmin) -> None:
    order = admin.books.open(credit_micros=500)
    name = admin.books.account(order).name
    with admin.books.database.write() as session:
        prices.set_price(session, STANDARD_PLAN, order.model, "image", 0, admin.books.clock())
    admin.books.buy(order, images=2)
    refused = admin.ask(
        "POST", f"accounts/{name}/refunds", {"corrects_seq": 2, "amount_micros": -400}, key="a"
    )
    assert (error_code(refused), admin.books.account(order).credit_micros) == ("invalid_request", 500)
    assert admin.done("POST", f"accounts/{name}/refunds", {"corrects_seq": 2}, key="b")["amount_micros"] == 0


def test_money_of_a_customer_is_seen_and_corrected(admin: LocalAdmin) -> None:
    order = admin.books.open(quota=10)
    name = admin.books.account(order).name
    admin.books.buy(order, images=2)
    held = admin.books.admit(order, texts=3)
    (hold,) = admin.done("GET", f"holds?account={name}")["data"]
    assert (hold["request_id"], hold["cost_micros"]) == (held.request_id, 160)
    assert (
        admin.done("POST", f"accounts/{name}/refunds", {"corrects_seq": 1}, key="a")["amount_micros"] == 200
    )
    twice = admin.ask("POST", f"accounts/{name}/refunds", {"corrects_seq": 1}, key="b")
    assert (error_code(twice), "refunded already" in twice.text) == ("conflict", True)
    beyond = admin.ask("POST", f"accounts/{name}/refunds", {"corrects_seq": 10**20}, key="c")
    assert error_code(beyond) == "invalid_request"
    page = admin.done("GET", f"accounts/{name}/ledger?limit=1")
    assert ([each["kind"] for each in page["data"]], page["next_after"]) == (["charge"], 1)
    assert admin.done("GET", f"accounts/{name}/usage?group_by=kind")["total"]["images"] == 2
    month = f"{page['data'][0]['created_at'][:7]}"
    assert not admin.done("GET", f"accounts/{name}/invoices/{month}")["final"]
    admin.books.admission.void(order.account_id, held.request_id).result()
    admin.books.clock.advance(40 * 86_400)
    invoice = admin.done("GET", f"accounts/{name}/invoices/{month}")
    assert (invoice["final"], invoice["total_micros"]) == (True, 0)
    admin.done("GET", f"accounts/{name}/invoices/{month}")
    recorded = admin.done("GET", f"audit?subject={name}")["data"]
    assert [each["action"] for each in recorded] == ["money.refund", "invoice.finalize"]
    assert recorded[0]["actor"] == f"operator:{admin.tokens[ALL].split('_')[1]} (test)"
    assert admin.done("GET", "audit/verification")["problem"] is None


def test_models_are_reloaded_where_there_is_a_file_of_them(sqlite: LocalAdmin) -> None:
    assert error_code(sqlite.ask("POST", "models/reload")) == "conflict"
    assert "models.reload" not in {each["action"] for each in sqlite.done("GET", "audit")["data"]}


@pytest.mark.slow
def test_every_answer_is_one_that_the_document_tells_of(sqlite: LocalAdmin, tmp_path: Path) -> None:
    """Schemathesis asks all that the document of `/admin` allows, as it does of the customers' API."""
    # Ten wrong tokens from one address, and there are no more tries for a while; nor is its own token ended.
    left_out = ("--exclude-checks", "ignored_auth", "--exclude-path-regex", "operators/.*/")
    asked = asked_by_schemathesis(
        f"{sqlite.http.base_url}/openapi.json",
        sqlite.tokens[ALL],
        tmp_path,
        ("--max-examples", "40", *left_out),
    )
    assert asked.returncode == 0, asked.stdout[-20_000:] + asked.stderr
    assert sqlite.done("GET", "audit/verification")["problem"] is None


def test_what_cannot_be_is_refused_in_the_contracts_form(sqlite: LocalAdmin) -> None:
    sqlite.done("POST", "accounts", {"account": "acme"})
    for method, path, body, code in (
        ("GET", "accounts/nobody", None, "not_found"),
        ("GET", "nothing", None, "not_found"),
        ("POST", "accounts", {"account": "acme"}, "conflict"),
        ("POST", "accounts", {"account": "A"}, "invalid_request"),
        ("POST", "accounts", {"account": "b", "quota": -1}, "invalid_request"),
        ("POST", "accounts", {"account": "b", "quota": "5"}, "invalid_request"),
        ("POST", "accounts", {"account": "b", "kuota": 5}, "invalid_request"),
        ("POST", "accounts", {"account": "b" * 5000}, "request_too_large"),
        ("PATCH", "accounts/acme", {}, "invalid_request"),
        ("PATCH", "accounts/acme", {"quota": 5, "plan": "none"}, "not_found"),
        ("POST", "prices", {"model": "icon-clip", "kind": "image", "micros": -1}, "invalid_request"),
        ("GET", "accounts/acme/invoices/2026-1", None, "invalid_request"),
        ("GET", "accounts?limit=0", None, "invalid_request"),
        ("GET", "accounts/acme/keys?limit=1001", None, "invalid_request"),
        ("GET", "accounts/acme/keys?after=none", None, "not_found"),
    ):
        assert error_code(sqlite.ask(method, path, body)) == code, (path, body)
    assert sqlite.done("GET", "accounts/acme")["quota"] is None  # of two changes none was made
    unread = sqlite.http.post("/admin/accounts", content=iter([b"x" * 70_000] * 3))  # of a stranger
    assert unread.status_code == 401
    assert sqlite.ask("DELETE", "accounts/acme/projects").headers["allow"] == "GET, POST"


def test_keys_are_listed_a_page_at_a_time(admin: LocalAdmin) -> None:
    books = admin.books
    order = books.open()
    listed = f"accounts/{books.account(order).name}/keys"
    made = [order.key_id]
    for _ in range(3):
        books.clock.advance(1)
        made.append(admin.done("POST", listed, {})["key_id"])
    page = admin.done("GET", f"{listed}?limit=2")
    assert page["has_more"]
    rest = admin.done("GET", f"{listed}?after={page['data'][-1]['key_id']}")
    assert not rest["has_more"]
    assert [each["key_id"] for each in (*page["data"], *rest["data"])] == made
    strangers = books.open().key_id
    assert error_code(admin.ask("GET", f"{listed}?after={strangers}")) == "not_found"


def test_bulk_jobs_are_listed_a_page_at_a_time_and_cancelled_once(admin: LocalAdmin) -> None:
    books = admin.books
    order = books.open(quota=9)
    bulk = BulkProcess(books.database, books.clock, books.admission)
    name = books.account(order).name
    jobs = []
    for _ in range(3):
        jobs.append(bulk.begin(order, (1, 0), (2, 0)).id)
        books.clock.advance(1)
    claim = bulk.claim()
    assert claim is not None
    bulk.settle(claim)
    assert books.account(order).queries_held == 8

    page = admin.done("GET", f"accounts/{name}/batches?limit=2")
    assert page["has_more"]
    rest = admin.done("GET", f"accounts/{name}/batches?after={page['last_id']}")
    assert [each["id"] for each in (*page["data"], *rest["data"])] == jobs[::-1]
    done = admin.done("POST", f"accounts/{name}/batches/{claim.job.id}/cancel")
    assert (done["status"], done["cost_micros"], done["held_micros"]) == ("cancelled", 50, 0)
    assert books.account(order).queries_held == 6
    again = admin.done("POST", f"accounts/{name}/batches/{claim.job.id}/cancel")
    assert again["cancelled_at"] == done["cancelled_at"]
    books.check(order)
    stranger = books.account(books.open()).name
    path = f"accounts/{stranger}/batches/{jobs[2]}/cancel"
    assert error_code(admin.ask("POST", path)) == "not_found"
    told = [each for each in admin.done("GET", "audit")["data"] if each["action"] == "batch.cancel"]
    assert [each["after"]["batch"] for each in told] == [claim.job.id]


def test_the_page_of_the_api_loads_nothing_from_elsewhere(sqlite: LocalAdmin) -> None:
    assert "default-src 'none'" in sqlite.http.get("/docs").headers["content-security-policy"]
    assert "/admin/accounts/{account}/top-ups" in sqlite.http.get("/openapi.json").json()["paths"]


def test_no_operator_acts_over_http_after_a_step_of_the_clock(admin: LocalAdmin) -> None:
    """It closed a month early, while the vendor beside it answered 503."""
    admin.done("POST", "accounts", {"account": "acme"})
    adjust, invoice = (
        {"amount_micros": 5, "reason": "a mistake", "reference": "r"},
        "accounts/acme/invoices/2026-11",
    )
    admin.books.clock.step(40 * 86_400)
    for refused in (
        admin.ask("POST", "accounts/acme/adjustments", adjust, key="k"),
        admin.ask("GET", invoice),
    ):
        assert (error_code(refused), "was set forward" in refused.text) == ("conflict", True)
    admin.books.clock.step(-40 * 86_400)
    admin.done("POST", "accounts/acme/adjustments", adjust, key="k")
    assert not admin.done("GET", invoice)["final"]
