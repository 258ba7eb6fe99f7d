"""`/operator` without a browser: which token may do what, what is asked before, and that it is done once."""

import http.cookies
import json
import re
import socket
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest

from shared.errors import ErrorCode
from tests.vendor_service.books import Books, lose_answers, opened_books
from tests.vendor_service.console.visits import Visit, problem_of, told_by
from tests.vendor_service.http.local_admin import LocalAdmin
from tests.vendor_service.money.test_clocks import DECEMBER
from vendor_service.accounts.keys import KeyTerms, issue_key
from vendor_service.acts import accounts, operators, prices, receivers
from vendor_service.acts.act import Act, OperatorScope
from vendor_service.clock import DAY
from vendor_service.console.acts import Acts
from vendor_service.console.operators import router
from vendor_service.console.operators.acts import OperatorFace
from vendor_service.console.operators.pages import OperatorPages
from vendor_service.database.session import Database
from vendor_service.database.tables import ApiKey
from vendor_service.errors import APIError
from vendor_service.money import payments

READ, ACCOUNTS, MONEY, ALL = OperatorScope
EVIL = "<script>alert('x')</script>"
NOTHING: Any = None
FORMS = Acts(OperatorFace(NOTHING))
PAGES = [page.path for page in OperatorPages(NOTHING, NOTHING, FORMS).all()]
ACTIONS = [action.path for action in FORMS.actions()]


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    """With a receiver of events, so that the lists of pages have rows."""
    with opened_books(f"sqlite:///{tmp_path_factory.mktemp('books') / 'books.db'}") as opened:
        with opened.database.write() as session:
            receivers.create(Act(session, "os:test", opened.clock), "https://example.com/hooks")
        yield opened


@pytest.fixture(scope="module")
def local(books: Books) -> Iterator[LocalAdmin]:
    with LocalAdmin(books) as running:
        yield running


def signed_in(local: LocalAdmin, scope: OperatorScope = ALL) -> Visit:
    visit = Visit(local.http, "/operator")
    assert visit.sign_in(token=local.tokens[scope]).status_code == 303
    return visit


@pytest.fixture(scope="module")
def visits(local: LocalAdmin) -> dict[OperatorScope, Visit]:
    return {scope: signed_in(local, scope) for scope in OperatorScope}


def names(books: Books) -> dict[str, str]:
    """A new account with a charge and a project."""
    order = books.open()
    books.buy(order)
    books.open_project(order, name="search")
    return {"{account}": books.account(order).name}


def path_of(pattern: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        pattern = pattern.replace(name, value)
    return pattern


def test_a_token_signs_in_and_a_wrong_one_does_not(local: LocalAdmin) -> None:
    good = Visit(local.http, "/operator").sign_in(token=local.tokens[READ])
    for attribute in ("__Host-tuition-operator=", "HttpOnly", "Secure", "SameSite=strict"):
        assert attribute in good.headers["set-cookie"]
    for token in ("", "op_1_2", local.tokens[READ][:-1] + "z"):
        refused = Visit(local.http, "/operator").sign_in(token=token)
        assert (refused.status_code, bool(problem_of(refused))) == (401, True)
    elsewhere = local.http.post("/operator/sign-in", data={"token": ""}, headers={"origin": "http://["})
    assert elsewhere.status_code == 403
    customer = Visit(local.http, "/operator", visit_of_customer(local))
    assert customer.get().status_code == 303


def visit_of_customer(local: LocalAdmin) -> str:
    """What a customer's cookie has, under the operators' name."""
    from vendor_service.console import sessions
    from vendor_service.console.seal import read_or_make_seal

    database = local.books.database
    with database.write() as session:
        cookie = sessions.begin(
            session, read_or_make_seal(database, None), sessions.CUSTOMERS, local.books.clock(),
            secret_hash="", account_id="acct_1", key_id="k",
        )  # fmt: skip
    return f"__Host-tuition-operator={cookie}"


def test_no_cookie_is_undone_on_any_path(local: LocalAdmin, monkeypatch: pytest.MonkeyPatch) -> None:
    def undo(_: str) -> str:
        raise AssertionError("Python takes quadratic time for this")

    monkeypatch.setattr(http.cookies, "_unquote", undo)
    head = {"cookie": f'x="{60_000 * chr(92)}"'}
    for path, answered in (("/operator", 303), ("/operator/sign-in", 200), ("/livez", 200), ("/none", 404)):
        assert local.http.get(path, headers=head).status_code == answered


@pytest.mark.parametrize("pattern", PAGES)
def test_every_page_can_be_read_by_every_token_and_by_nobody_else(
    books: Books, local: LocalAdmin, visits: dict[OperatorScope, Visit], pattern: str
) -> None:
    path = path_of(pattern, names(books))
    answer = visits[READ].get(path)
    assert answer.status_code == 200
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert not re.search(r"<script>|<style|\sstyle=|\son\w+=", answer.text)
    assert local.http.get(f"/operator{path}").status_code == 303


@pytest.mark.parametrize("path", ACTIONS)
def test_no_form_is_read_of_who_is_not_signed_in(local: LocalAdmin, path: str) -> None:
    with socket.create_connection((local.http.base_url.host, local.http.base_url.port or 80), 30) as asking:
        asking.sendall(f"POST /operator{path} HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n".encode())
        assert asking.recv(1000).startswith(b"HTTP/1.1 303 ")


def test_what_may_have_been_done_is_not_said_to_have_changed_nothing(
    books: Books, visits: dict[OperatorScope, Visit], monkeypatch: pytest.MonkeyPatch
) -> None:
    order = books.open(credit_micros=100)
    path, form = "/do/money.adjustment", {"amount": "0.00005", "reason": "thanks", "reference": "ticket"}
    asked = visits[MONEY].ask(path, account=books.account(order).name, **form)
    with monkeypatch.context() as cut:
        lose_answers(cut)
        doubtful = visits[MONEY].confirm(path, asked)
    assert doubtful.status_code == 503
    assert "it may have been" in problem_of(doubtful)
    assert "look whether it was done" in doubtful.text
    assert "Nothing was changed" not in doubtful.text
    assert "Idempotency-Key" not in doubtful.text
    assert visits[MONEY].confirm(path, asked).status_code == 303
    assert books.account(order).credit_micros == 150


def test_the_question_says_what_a_refund_does_and_the_customers_ledger_has_it(
    books: Books, visits: dict[OperatorScope, Visit]
) -> None:
    order = books.open(credit_micros=1000)
    books.buy(order)
    path, name = "/do/money.refund", books.account(order).name
    asked = visits[MONEY].ask(path, account=name, entry="2")
    assert "1 image to icon-clip for 0.0001" in asked.text
    assert "All of it is given back: 0.0001." in asked.text
    assert "from 0.0009 to 0.001" in asked.text
    visits[MONEY].confirm(path, asked)
    assert [each.kind for each in books.entries(order)] == ["top_up", "charge", "refund"]
    assert "was given back already" in problem_of(visits[MONEY].ask(path, account=name, entry="2"))
    assert "has no charge 9" in problem_of(visits[MONEY].ask(path, account=name, entry="9"))


def test_a_part_of_a_charge_is_given_back_once_for_its_reference_and_never_more_than_is_left(
    books: Books, visits: dict[OperatorScope, Visit]
) -> None:
    order, visit = books.open(credit_micros=1000), visits[MONEY]
    books.buy(order)
    name = books.account(order).name
    page, path, whole = f"/accounts/{name}", "/do/money.refund", {"account": name, "entry": "2"}
    part = whole | {"amount": "0.00003"}
    assert "needs a reference" in problem_of(visit.ask(path, **part))
    assert "0.0001 are left" in problem_of(visit.ask(path, **whole, amount="0.000101", reference="t"))
    asked = visit.ask(path, **part, reference="ticket 812")
    assert "0.00003 are given back, and 0.00007 stay charged" in asked.text
    for _ in range(2):
        visit.confirm(path, asked)
    visit.do(path, **part, reference="ticket 812")  # asked about again
    assert [each.amount_micros for each in books.entries(order)][2:] == [30]
    assert "0.00003 given back" in visit.page(page)
    assert (
        "All that is left is given back: 0.00007. 0.00003 were given back before."
        in visit.ask(path, **whole).text
    )
    visit.do(path, **whole)
    assert [each.amount_micros for each in books.entries(order)][2:] == [30, 70]
    assert (books.entries(order)[2].reference, books.account(order).credit_micros) == ("ticket 812", 1000)
    assert "was given back already" in problem_of(visit.ask(path, **whole))
    assert "Refund charge 2" not in visit.page(page)


@pytest.mark.parametrize(
    ("kind", "done"),
    [
        ("top_up", "0.00005 were added to the credit of {}."),
        ("payment", "A payment of 0.00005 by {} was recorded."),
        ("refund", "A refund of charge 1 of {} was recorded."),
    ],
)
def test_what_was_recorded_before_is_said_to_change_nothing(
    books: Books, visits: dict[OperatorScope, Visit], kind: str, done: str
) -> None:
    order, visit = books.open(credit_micros=1000 if kind == "top_up" else None), visits[MONEY]
    books.buy(order)
    name = books.account(order).name
    page, path = f"/accounts/{name}", f"/do/money.{kind}"
    of_kind = {"entry": "1"} if kind == "refund" else {"amount": "0.00005"}
    form = {"account": name, "back": page, "reference": "bank 17"} | of_kind
    asked = visit.ask(path, **form)
    assert "recorded before" not in asked.text
    for _ in range(2):  # the same page, sent again, says the same again
        assert told(visit, page, visit.confirm(path, asked)) == done.format(name)
    (entry,) = [each for each in books.entries(order) if each.reference == "bank 17"]
    asked = visit.ask(path, **form)
    assert f"were recorded before as entry {entry.seq}; nothing will be changed" in asked.text
    answer = visit.confirm(path, asked)
    said = f"This was recorded before as entry {entry.seq}; nothing was changed."
    assert told(visit, page, answer) == said
    assert books.entries(order)[-1].seq == entry.seq
    if kind != "refund":
        other = visit.ask(path, **form | {"amount": "0.00006"})
        assert f"is that of entry {entry.seq}" in problem_of(other)


def told(visit: Visit, page: str, answer: httpx.Response) -> str:
    """What the page says to which an act leads."""
    assert answer.status_code == 303, answer.text
    cookie = answer.headers["set-cookie"].partition(";")[0]
    found = re.search(
        r'class="told"[^>]*>(.*?)</p>', visit.get(page, cookie=f"{visit.cookie}; {cookie}").text
    )
    return "" if found is None else unescape(found[1])


def test_only_what_would_change_of_the_terms_is_asked_about(
    books: Books, visits: dict[OperatorScope, Visit]
) -> None:
    order = books.open(quota=10, spend_limit_micros=5_000_000)
    path, name = "/do/account.set", books.account(order).name
    form = {"name": name, "quota": "20", "spend_limit": "5.00", "plan": "standard"}
    asked = visits[ACCOUNTS].ask(path, **form)
    assert "Quota, in queries: 10 → 20." in asked.text
    assert "Spend limit" not in asked.text
    visits[ACCOUNTS].confirm(path, asked)
    assert (books.account(order).quota, books.account(order).spend_limit_micros) == (20, 5_000_000)
    assert "nothing would change" in problem_of(visits[ACCOUNTS].ask(path, **form))


def test_what_somebody_else_changed_meanwhile_of_the_terms_is_not_taken_back(
    books: Books, visits: dict[OperatorScope, Visit]
) -> None:
    order, visit = books.open(quota=10, spend_limit_micros=5_000_000), visits[ACCOUNTS]
    name = books.account(order).name
    path, form = "/do/account.set", {"name": name, "quota": "20", "spend_limit": "5.00", "plan": "standard"}
    asked = visit.ask(path, **form)
    with books.database.write() as session:
        accounts.change(Act(session, "os:test", books.clock), name, {"spend_limit_micros": 1_000_000})
    answer = visit.confirm(path, asked)
    assert answer.status_code == 422
    assert "has changed since the page was loaded" in problem_of(answer)
    assert (books.account(order).quota, books.account(order).spend_limit_micros) == (10, 1_000_000)
    assert "Spend limit: 1.00 → 5.00." in visit.ask(path, **form).text


def test_credit_of_a_new_account_takes_the_scope_of_money(
    books: Books, visits: dict[OperatorScope, Visit]
) -> None:
    form = {"name": "prepaid", "credit": "3"}
    assert visits[ACCOUNTS].do("/do/account.create", **form).status_code == 403
    assert visits[ALL].do("/do/account.create", **form).status_code == 303
    assert visits[ALL].do("/do/account.create", **form).status_code == 422


def test_a_key_is_made_with_an_end_and_limits_in_a_project_and_ends_with_it(
    books: Books, visits: dict[OperatorScope, Visit]
) -> None:
    name, visit = books.account(books.open()).name, visits[ACCOUNTS]
    path, project = f"/accounts/{name}", {"account": name, "name": "search"}
    visit.do("/do/project.create", **project, quota="1000", spend_limit="2.50")
    form = {"account": name, "project": "search", "rate": "7", "concurrency": "3", "scope": "embed"}
    form["expires"] = "2026-12-01T00:00"
    asked = visit.ask("/do/key.create", label="indexer", **form)
    assert "a key of the project search" in asked.text
    for fact in ("Queries a second: 7.", "3.", "2026-12-01 00:00 UTC."):
        assert fact in asked.text
    assert "tk_" in visit.confirm("/do/key.create", asked).text
    page = visits[READ].page(path)
    for shown in ("project search", "7 a second, 3 at once", 'ends <time datetime="2026-12-01T00:00:00'):
        assert shown in page
    asked = visit.ask("/do/project.set", **project, quota="2000", spend_limit="2.5")
    assert "Quota, in queries: 1,000 → 2,000." in asked.text
    assert "Spend limit" not in asked.text[asked.text.index("<main") :]
    visit.confirm("/do/project.set", asked)
    assert "of 2,000" in visits[READ].page(path)
    visit.do("/do/project.archive", **project)
    assert '<span class="tag">project archived</span>' in visits[READ].page(path)
    assert "was archived" in problem_of(visit.do("/do/key.create", **form))


def test_an_account_shows_some_of_many_keys_those_in_use_first(
    books: Books, visits: dict[OperatorScope, Visit]
) -> None:
    order, visit = books.open(), visits[READ]
    path = f"/accounts/{books.account(order).name}"
    for revoked in [True] * 30 + [False] * 30:
        with books.locked(order) as (session, account):
            made = issue_key(session, account, KeyTerms(), books.clock).key_id
            session.flush()
            session.get_one(ApiKey, made).revoked_at = books.clock() if revoked else None
    first = visit.page(path)
    assert [first.count(f'<span class="tag{each}') for each in (' good">in use', '">revoked')] == [25, 25]
    assert first.index("in use</span>") < first.index("revoked</span>")
    older = re.findall(r'href="(\?(?:keys|ended)=[0-9a-f]+)#keys"', first)
    for query, in_use, revoked_ones in zip(older, (6, 25), (25, 5), strict=True):
        page = visit.page(f"{path}{query}")
        assert (page.count('good">in use'), page.count('">revoked')) == (in_use, revoked_ones)


def test_accounts_are_found_by_name_id_and_key(books: Books, visits: dict[OperatorScope, Visit]) -> None:
    order = books.open()
    name = books.account(order).name
    for wanted in (name, order.account_id, order.key_id, f"tk_{order.key_id}_{'0' * 48}"):
        assert f'<a href="/operator/accounts/{name}">' in visits[READ].page(f"/accounts?q={wanted}")
    assert "No account has that name or id" in visits[READ].page("/accounts?q=nobody%25")


def test_the_ledger_and_the_log_are_verified_and_faults_are_told(tmp_path: Path) -> None:
    with opened_books(f"sqlite:///{tmp_path / 'books.db'}") as books, LocalAdmin(books) as local:
        visit, order = signed_in(local, READ), books.open(credit_micros=10)
        assert "1 accounts are in order" in visit.ask("/money/verify").text
        assert visit.ask("/audit/verify").status_code == 303
        books.tamper("UPDATE ledger_entries SET amount_micros = 11")
        books.tamper("UPDATE audit_entries SET action = 'nothing' WHERE seq = 1")
        found = visit.ask("/money/verify", account=books.account(order).name)
        assert "entry 1 was changed" in found.text
        assert "entry 1 was changed" in problem_of(visit.ask("/audit/verify"))


def test_a_price_begins_at_the_moment_of_the_zone_that_is_written(visits: dict[OperatorScope, Visit]) -> None:
    price = {"model": "icon-clip", "kind": "image", "price": "0.5", "plan": "zoned", "new": "yes"}
    for since, begin in (
        ("2100-01-01T00:00", "2100-01-01 00:00"),
        ("2100-01-01T00:00+02:00", "2099-12-31 22:00"),
    ):
        asked = visits[MONEY].ask("/do/price.set", **price, **{"from": since})
        assert f"from {begin} UTC on" in asked.text


def test_what_bulk_jobs_pay_is_a_percent_and_can_be_taken_back(
    books: Books, visits: dict[OperatorScope, Visit]
) -> None:
    visit = visits[MONEY]
    with books.database.write() as session:
        act = Act(session, "os:test", books.clock)
        prices.set_price(act, "icon-clip", "batch-percent", 40, "bulk", new=True)
    books.clock.advance(1)
    assert re.search(">batch-percent</td><td[^>]*>bulk</td><td[^>]*>40%</td>", visit.page("/models"))
    assert "percent: none → 40%" in visit.page("/audit?subject=bulk%20icon-clip%20batch-percent")
    asked = visit.ask("/do/price.unset", model="icon-clip", kind="batch-percent", plan="bulk")
    assert "The standard one holds for it then: 50%." in asked.text
    assert visit.confirm("/do/price.unset", asked).status_code == 303
    assert "percent: 40% → none" in visit.page("/audit?subject=bulk%20icon-clip%20batch-percent")
    assert "Kind: there is no 'video'" in problem_of(
        visit.ask("/do/price.unset", model="icon-clip", kind="video", plan="bulk")
    )


def test_all_open_holds_are_counted_and_the_oldest_are_listed(tmp_path: Path) -> None:
    with opened_books(f"sqlite:///{tmp_path / 'books.db'}") as books, LocalAdmin(books) as local:
        order = books.open()
        for _ in range(52):
            books.admit(order)
        page = signed_in(local, READ).page("/money")
    assert re.search(r"Open holds</div><div class=\"figure\">52<", page)
    assert "The oldest 50 of them." in page
    assert page.count('<th scope="row"><code>req_') == 50


def test_all_that_was_done_to_an_account_can_be_reached(
    books: Books, visits: dict[OperatorScope, Visit]
) -> None:
    name = books.account(books.open()).name
    with books.database.write() as session:
        act = Act(session, "os:test", books.clock)
        for quota in range(1, 211):
            accounts.change(act, name, {"quota": quota})
    found, query = [], f"?subject={name}"
    while query:
        page = visits[READ].page(f"/audit{query}")
        found += re.findall(r"quota: (?:[^<]* → )?(\d+)</td>", page)
        older = re.search(r'href="([^"]*)">Older entries', page)
        query = "" if older is None else unescape(older[1])
    assert found == [str(quota) for quota in range(210, 0, -1)]


def test_the_invoices_of_a_month_are_shown_with_the_accounts_that_have_none(tmp_path: Path) -> None:
    with opened_books(f"sqlite:///{tmp_path / 'books.db'}") as books, LocalAdmin(books) as local:
        none, final = books.open(), books.open()
        for order in (none, final):
            books.buy(order)
        books.clock.now = DECEMBER + DAY
        books.invoice(final)
        visit = signed_in(local, READ)
        page = visit.page("/money?month=2026-11")
        for order, state in ((none, '<span class="tag">not issued'), (final, 'good">final')):
            assert re.search(rf">{books.account(order).name}</a></th>.*{state}", page)
        assert "write it as 2026-11" in problem_of(visit.get("/money?month=2026-1"))
        assert "/do/month.close" not in page
        visit = signed_in(local, MONEY)
        assert "/do/month.close" in visit.page("/money?month=2026-11")
        assert "/do/month.close" not in visit.page("/money?month=2026-12")
        asked = visit.ask("/do/month.close", month="2026-11", back="/money?month=2026-11")
        assert "of 2026-11 and the months before it: 1." in asked.text
        assert "all invoices of 2026-11 are issued" in told_by(visit, visit.confirm("/do/month.close", asked))
        assert "not issued" not in visit.page("/money?month=2026-11")


def test_the_invoices_of_a_month_are_those_of_idle_accounts_too_and_say_how_many_are_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened_books(f"sqlite:///{tmp_path / 'books.db'}") as books, LocalAdmin(books) as local:
        idle, charged = books.open(), books.open()
        books.buy(charged)
        with books.locked(idle) as (session, account):
            payments.adjust(session, account, 5, "goodwill", books.clock())
        books.clock.now = DECEMBER + DAY
        for order in (idle, charged):
            books.invoice(order)
        visit = signed_in(local, READ)
        page = visit.page("/money?month=2026-11")
        for order, number in ((idle, 1), (charged, 2)):
            row = rf'>{books.account(order).name}</a></th>.*>{number} <span class="tag good">final'
            assert re.search(row, page)
        assert "charged most" not in page
        monkeypatch.setattr("vendor_service.console.operators.pages._MOST_ACCOUNTS", 1)
        page = visit.page("/money?month=2026-11")
        assert "The 1 that were charged most, of 2 accounts." in page
        assert not re.search(rf">{books.account(idle).name}</a></th>.*final", page)


def test_what_people_wrote_is_shown_and_never_run(books: Books, visits: dict[OperatorScope, Visit]) -> None:
    order = books.open()
    named = {"{name}": books.account(order).name}
    account = named["{name}"]
    visits[MONEY].do("/do/money.adjustment", account=account, amount="1", reason=EVIL, reference=EVIL)
    visits[ACCOUNTS].do("/do/key.create", account=account, label=EVIL, scope="embed")
    shown = 0
    for pattern in PAGES:
        text = visits[READ].get(f"{path_of(pattern, named)}?q={EVIL}&subject={EVIL}").text
        assert "<script>alert" not in text
        shown += text.count("&lt;script&gt;")
    assert "&lt;script&gt;" in visits[READ].page("/audit")
    assert shown >= 4


def test_a_session_ends_with_its_token_and_everywhere(books: Books, local: LocalAdmin) -> None:
    token = local.token(READ)
    first, second = Visit(local.http, "/operator"), Visit(local.http, "/operator")
    Visit(local.http, "/operator").sign_in(token=token)
    books.clock.advance(3600 + 1)  # after which who does nothing is signed out, and is not counted
    for each in (first, second):
        each.sign_in(token=token)
    left = first.ask("/sign-out", everywhere="yes")
    assert "2 sessions were ended" in told_by(first, left)
    assert [each.get().status_code for each in (first, second)] == [303, 303]
    first.sign_in(token=token)
    with books.database.write() as session:
        operators.revoke(Act(session, "os:test", books.clock), token.split("_")[1])
    assert first.get().status_code == 303
    books.clock.advance(-3600 - 1)


def test_the_live_page_goes_on_after_the_database_was_away(
    local: LocalAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: Database) -> NoReturn:
        raise APIError(ErrorCode.OVERLOADED, "the database is away")

    monkeypatch.setattr(router, "_TICK_SECONDS", 0.05)
    visit, token = Visit(local.http, "/operator"), local.token(READ)
    visit.sign_in(token=token)
    address, headers = "/operator/stream", {"cookie": visit.cookie}
    with local.http.stream("GET", address, headers=headers) as stream:
        told = events_of(stream)
        assert "was not told where the vendor is" in next(told)[1]
        with monkeypatch.context() as patch:
            patch.setattr(Database, "read", away)
            assert ("away", "the database is away") in (next(told) for _ in range(100))
            refused = local.http.get(address, headers=headers)
            assert (refused.status_code, problem_of(refused)) == (503, "The database is away.")
        assert any(
            "was not told where the vendor is" in words for _, words in (next(told) for _ in range(100))
        )
        with local.books.database.write() as session:
            operators.revoke(Act(session, "os:test", local.books.clock), token.split("_")[1])
        assert "ended" in [name for name, _ in told]
    assert local.http.get(address, headers=headers).status_code == 401


def events_of(stream: httpx.Response) -> Iterator[tuple[str, Any]]:
    """The events of a stream, each with its content."""
    name = ""
    for line in stream.iter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


def test_without_a_vendor_in_sight_pages_say_so(visits: dict[OperatorScope, Visit]) -> None:
    assert "not told where the vendor is" in visits[READ].page()
    health = visits[READ].page("/health")
    assert "VendorDown" in health
    assert "act now" in health


def test_a_dispute_a_preview_of_prices_and_the_doctor_have_pages(tmp_path: Path) -> None:
    with opened_books(f"sqlite:///{tmp_path / 'books.db'}") as books, LocalAdmin(books) as local:
        order = books.open()
        done = books.buy(order, images=3)
        visit = signed_in(local, READ)
        assert "charged once, as entry 1 of account-0" in visit.page(f"/disputes?q={done.request_id}")
        assert "know no request of this id" in visit.page("/disputes?q=req_of_nobody")
        assert "no receipt" in problem_of(visit.get("/disputes?q=a.b.c"))
        page = visit.page("/prices?prices=icon-clip+image+0.0002&month=2026-11")
        assert re.search(r"account-0.*0\.0003.*0\.0006.*0\.0003", page)
        assert "Nothing was charged in 2026-10" in visit.page("/prices?prices=icon-clip+image+0.0002")
        assert "line 1" in problem_of(visit.get("/prices?prices=icon-clip"))
        assert "may buy without a limit: account-0" in visit.page("/health")
