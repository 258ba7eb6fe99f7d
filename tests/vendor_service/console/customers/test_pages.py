"""What the pages of `/console` tell a customer."""

import re
from html import unescape
from io import BytesIO
from pathlib import Path

import pytest
from pypdf import PdfReader

from tests.vendor_service.console.customers.people import (
    CAT,
    HOUR,
    NOTE_PAGES,
    PAGES,
    admin_of,
    issued,
    key_id,
    path_of,
    signed_in,
    with_project,
)
from tests.vendor_service.console.visits import Visit, problem_of
from tests.vendor_service.local_vendor import LocalVendor, image_input
from vendor_service.accounts.keys import Scope
from vendor_service.acts import money, prices
from vendor_service.acts.act import Act
from vendor_service.clock import DAY, next_month_start


@pytest.mark.parametrize("pattern", PAGES)
def test_every_page_can_be_read_with_a_strict_policy_and_needs_a_session(
    vendor: LocalVendor, reader: Visit, pattern: str
) -> None:
    answer = reader.get(path_of(pattern, "tk_0_0"))
    assert answer.status_code == (422 if pattern.endswith(".xml") else 200)  # a draft has no XML
    assert answer.headers["cache-control"] == "no-store"
    if answer.headers["content-type"].startswith("text/html"):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"<script>|<style|\sstyle=|\son\w+=", answer.text)
    stranger = vendor.http.get(f"/console{path_of(pattern, 'tk_0_0')}")
    assert stranger.status_code == 303


def test_what_pages_load_is_in_the_package_and_small(vendor: LocalVendor, reader: Visit) -> None:
    page = reader.page()
    files = set(re.findall(r'(?:src|href)="(/console/assets/[^"]*)"', page))
    assert len(files) == 3
    sizes = [len(vendor.http.get(each).content) for each in files]
    assert sum(sizes) + len(page) < 100_000
    assert not re.findall(r'(?:src|href|action)="(?:https?:)?//', page)
    assert vendor.http.get("/console/assets/base.html").status_code == 404


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"quota": "many", "scope": "embed"}, "write a whole number"),
        ({"spend_limit": "1.2345678", "scope": "embed"}, "to the millionth at most"),
        ({"spend_limit": "NaN", "scope": "embed"}, "is not an amount"),
        ({"quota": "-1", "scope": "embed"}, "must be between 0"),
        ({"quota": "9" * 20, "scope": "embed"}, "write a whole number"),
        ({"spend_limit": "Infinity", "scope": "embed"}, "is not an amount"),
        ({"spend_limit": "9e999999", "scope": "embed"}, "is not an amount"),
        ({"label": "\0", "scope": "embed"}, "cannot be read"),
        ({}, "tick at least one"),
    ],
)
def test_a_field_that_makes_no_sense_is_told_with_what_to_do(
    vendor: LocalVendor, admin: Visit, form: dict[str, str], words: str
) -> None:
    answer = admin.ask("/keys/create", **form)
    assert answer.status_code in (400, 422)
    assert words in problem_of(answer)
    assert "Nothing was changed" in answer.text


@pytest.mark.parametrize(
    "path",
    [
        f"/ledger?before={'9' * 20}",
        f"/ledger?before=-{'9' * 20}",
        "/ledger?to=9999-12-31",
        f"/ledger/entries?after={'9' * 20}",
        "/usage?to=9999-12-31",
        "/usage.csv?to=9999-12-31",
    ],
)
def test_a_number_or_a_day_that_cannot_be_is_told(vendor: LocalVendor, path: str) -> None:
    answer = signed_in(vendor, vendor.key()).get(path)
    assert answer.status_code == 422
    assert "write a" in problem_of(answer)


def test_pages_tell_what_the_api_tells(vendor: LocalVendor) -> None:
    key = vendor.key(quota=100, credit_micros=5000)
    vendor.embed(key, CAT, image_input(), image_input())
    vendor.embed(key, CAT)
    visit = signed_in(vendor, key)
    usage = vendor.get("/v1/usage", key)["total"]
    rows = visit.get("/usage.csv").text.split()
    assert (
        rows[-1] == f"total,{usage['requests']},{usage['images']},{usage['texts']},4,{usage['cost_micros']}"
    )
    assert "0.00024" in visit.page("/usage")
    for entry in vendor.get("/v1/ledger", key)["data"]:
        assert entry["entry_hash"] in visit.page("/ledger")
    assert "0.00024" in visit.page("/invoices/2026-11")
    assert "so far, not final" in visit.page("/invoices/2026-11")
    assert visit.get("/invoices/2026-10").status_code == 404  # before the account was opened
    overview = visit.page()
    assert "of 100 queries a month used" in overview
    assert "Dec" in overview or "2026-12-01" in overview
    assert "At this pace" not in overview
    opened, end = vendor.account(key).created_at, next_month_start(vendor.clock())
    vendor.clock.advance(24 * HOUR)
    # As much in each day that the account will have had as in its first one.
    expected = round(4 * (end - opened) / DAY)
    assert f"At this pace {expected} by then" in signed_in(vendor, key).page()
    vendor.clock.advance(-24 * HOUR)


def test_what_each_project_used_is_told_where_there_is_one(vendor: LocalVendor) -> None:
    key = vendor.key()
    vendor.embed(key, CAT)
    visit = admin_of(vendor, key)
    assert "By project" not in visit.page()
    vendor.embed(issued(vendor, key, project=with_project(vendor, key)), CAT, CAT)
    overview = visit.page()
    assert re.search("By project.*search</th><td [^>]*>2</td><td [^>]*>0.00004</td>", overview, re.DOTALL)
    usage = visit.page("/usage?group=project")
    for group, requests in (("default", 1), ("search", 1)):
        assert re.search(rf'<th scope="row">{group}</th><td class="n"[^>]*>{requests}</td>', usage)


def test_the_ledger_is_filtered_and_read_page_by_page(vendor: LocalVendor) -> None:
    key = vendor.key(credit_micros=10**6)
    other = vendor.another_key(key, Scope.EMBED)
    for _ in range(3):
        vendor.embed(key, CAT)
    vendor.clock.advance(2 * HOUR)
    vendor.embed(other, CAT)
    vendor.clock.advance(30 * HOUR)
    vendor.embed(key, image_input())
    visit = signed_in(vendor, key)

    def numbers(query: str) -> list[int]:
        return [int(each) for each in re.findall(r'<tr id="entry-(\d+)">', visit.page(f"/ledger{query}"))]

    assert numbers("") == [6, 5, 4, 3, 2, 1]
    assert numbers("?kind=charge") == [6, 5, 4, 3, 2]
    assert numbers("?kind=top_up") == [1]
    assert numbers(f"?key={key_id(other)}") == [5]
    assert numbers(f"?key={key_id(key)}&before=6") == [4, 3, 2]
    assert numbers("?from=2026-11-16") == [6]
    assert numbers("?to=2026-11-15&kind=charge") == [5, 4, 3, 2]
    assert numbers("?model=another") == []
    vendor.clock.advance(-32 * HOUR)


def test_what_was_refused_is_told_with_the_reason(vendor: LocalVendor) -> None:
    key = vendor.key(quota=1)
    vendor.embed(key, CAT, CAT)
    bad = vendor.embed(key, {"image": "AAAA"}).json()["error"]["code"]
    visit = signed_in(vendor, key)
    visit.get("/nothing")  # a page that is not there is no refusal of the API
    vendor.app.state.refusals.write()
    overview = visit.page()
    for code in ("quota_exhausted", bad):
        assert re.search(rf"<code>{code}</code></th><td class=\"n\"[^>]*>1</td>", overview)
    assert "not_found" not in overview
    vendor.embed(key, CAT, CAT)
    vendor.app.state.refusals.write()
    assert re.search(r"<code>quota_exhausted</code></th><td class=\"n\"[^>]*>2</td>", visit.page())


def test_invoices_have_numbers_and_credit_notes_and_money_is_in_the_currency_that_is_named(
    tmp_path: Path,
) -> None:
    with LocalVendor(tmp_path) as vendor:
        key = vendor.key(spend_limit_micros=10**6)
        with vendor.books.write() as session:
            act = Act(session, "os:test", vendor.clock)
            prices.name_currency(act, "EUR")
        vendor.embed(key, CAT, CAT)
        vendor.clock.advance(31 * 24 * HOUR)
        visit = signed_in(vendor, key)
        november = visit.page("/invoices/2026-11")
        assert "<dt>Number</dt><dd>1</dd>" in november
        assert "Total, in EUR" in november
        assert "Credit notes" not in november
        saved = visit.get("/invoices/2026-11.pdf")
        assert saved.headers["content-type"] == "application/pdf"
        assert re.search(r'filename="invoice-[a-z0-9-]+-2026-11\.pdf"', saved.headers["content-disposition"])
        shown = PdfReader(BytesIO(saved.content)).pages[0].extract_text()
        assert "Invoice 1 of" in shown
        assert "0.000040" in shown
        assert visit.get("/invoices/2026-10.pdf").status_code == 404  # before the account was opened
        assert ">1</td>" in visit.page("/invoices")
        assert "0.00004 EUR" in visit.page("/invoices")
        with vendor.books.write() as session:
            act = Act(session, "os:test", vendor.clock)
            money.refund(act, vendor.account(key).name, 1, 30, "ticket 812")
        december = visit.page("/invoices/2026-12")
        assert "credit notes</a>: 0.00003." in december
        assert re.search(">CN-1</th>.*>Invoice 1</a></td><td [^>]*>0.00003 EUR", visit.page("/invoices"))
        stranger = signed_in(vendor, vendor.key())
        for pattern in NOTE_PAGES:
            path = pattern.replace("{number}", "CN-1")
            own = visit.get(path)
            assert own.status_code == (422 if path.endswith(".xml") else 200)  # nobody named the parties
            assert stranger.get(path).status_code == 404
            assert vendor.http.get(f"/console{path}").status_code == 303
        assert (
            "Credit note CN-1 of"
            in PdfReader(BytesIO(visit.get("/credit-notes/CN-1.pdf").content)).pages[0].extract_text()
        )
        assert "Refund of charge 1, icon-clip" in visit.page("/credit-notes/CN-1")
        with vendor.books.write() as session:
            act = Act(session, "os:test", vendor.clock)
            money.refund(act, vendor.account(key).name, 1, 5, "ticket 813")
        pages = [vendor.get("/v1/credit-notes", key, limit="1", after=after) for after in ("", "1")]
        assert [[each["name"] for each in page["data"]] for page in pages] == [["CN-1"], ["CN-2"]]
        assert [page["has_more"] for page in pages] == [True, False]
        overview = visit.page()
        assert "Charges by day, in EUR" in overview
        assert "Amounts in EUR" in overview
        assert "units" not in overview
        admin = admin_of(vendor, key)
        assert "Spend limit, in EUR" in admin.page("/keys")


def test_a_draft_has_no_date_and_a_final_invoice_has_that_of_its_issue(tmp_path: Path) -> None:
    with LocalVendor(tmp_path) as vendor:
        key = vendor.key()
        vendor.embed(key, CAT)
        draft = signed_in(vendor, key).page("/invoices/2026-11")
        assert "so far, not final" in draft
        assert "Issued" not in draft
        vendor.clock.advance(20 * 24 * HOUR)
        final = signed_in(vendor, key).page("/invoices/2026-11")
        assert re.search("<dt>Issued</dt><dd>.*2026-12-05", final)


def test_the_console_can_be_left_out(tmp_path: Path) -> None:
    with LocalVendor(tmp_path, console=False) as vendor:
        assert vendor.http.get("/console").status_code == 404
        assert vendor.http.get("/v1/models").status_code == 200


def test_a_new_account_finds_what_to_do(vendor: LocalVendor) -> None:
    visit = signed_in(vendor, vendor.key())
    assert "send the first request" in visit.page()
    assert "There are no entries yet" in visit.page("/ledger")
    begin = unescape(visit.page("/quick-start"))
    assert f"http://127.0.0.1:{vendor.port}/embed" in begin
    assert "# in Tuition's folder\npip install ." in begin  # nobody publishes a package tuition
    assert visit.get("/nowhere").status_code == 404


def test_pages_may_not_be_asked_for_all_the_time(
    vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vendor_service.http.history_rate.QUESTIONS_A_SECOND", 0.01)
    visit = signed_in(vendor, vendor.key())
    answers = [visit.get("/ledger/entries") for _ in range(45)]
    assert [each.status_code for each in answers].count(200) == 40
    other = signed_in(vendor, vendor.key())
    assert [other.get("/ledger.csv").status_code for _ in range(6)] == [200] * 4 + [429] * 2
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert "Wait a moment" in answers[-1].text


def test_forms_count_as_pages_do(vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vendor_service.http.history_rate.QUESTIONS_A_SECOND", 0.01)
    key = vendor.key()
    visit = admin_of(vendor, key)
    assert visit.csrf  # from a page, which is the first of 40
    answers = [visit.ask("/keys/create").status_code for _ in range(20)]
    answers += [visit.ask(f"/keys/{key_id(key)}/revoke").status_code for _ in range(20)]
    assert answers == [422] * 20 + [200] * 19 + [429]
    assert visit.send("/models/try", {}).status_code == 429


def test_an_export_that_is_refused_takes_nothing_and_says_how_long_to_wait(
    vendor: LocalVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vendor_service.http.history_rate.QUESTIONS_A_SECOND", 0.01)
    visit = signed_in(vendor, vendor.key())
    for path in ["/ledger.csv"] * 3 + ["/quick-start"] * 5:
        assert visit.get(path).status_code == 200
    refused = visit.get("/ledger.csv")
    assert refused.status_code == 429
    assert 300 < int(refused.headers["retry-after"]) <= 500  # for five pages more
    assert [visit.get("/quick-start").status_code for _ in range(6)] == [200] * 5 + [429]
