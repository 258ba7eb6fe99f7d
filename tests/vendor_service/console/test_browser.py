"""The console in a real browser: what people do there, and whether everybody can use it."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Error, Page, Request, expect
from pypdf import PdfReader

from tests.support.pictures import LOOKS, Shown, looked_at
from tests.vendor_service.batches.held_model import HeldModel
from tests.vendor_service.console.customers.people import key_id
from tests.vendor_service.console.furnished import CAT, Customer, admin_of, open_customer
from tests.vendor_service.console.jobs import begun, ended
from tests.vendor_service.console.pictures import walk
from tests.vendor_service.http.local_admin import LocalAdmin
from tests.vendor_service.local_vendor import LocalVendor, image_file, image_input
from vendor_service.accounts.accounts import Terms
from vendor_service.accounts.keys import KeyTerms
from vendor_service.accounts.projects import ProjectTerms
from vendor_service.acts import keys, projects
from vendor_service.acts.act import Act, OperatorScope

SECRET = re.compile(r"^tk_[0-9a-f]{16}_[0-9a-f]{48}$")

HEBREW = "\u05e9\u05dc\u05d5\u05dd"
METADATA = {"for": "the archive", HEBREW: "12", "evil": "\u202edesrever", "last": "one"}


@dataclass(frozen=True)
class Sites:
    """A vendor, its operators' site, a customer who bought something, and where their pages are."""

    vendor: LocalVendor
    admin: LocalAdmin
    customer: Customer

    @property
    def console(self) -> str:
        return f"http://127.0.0.1:{self.vendor.port}/console"

    @property
    def operator(self) -> str:
        return f"{str(self.admin.http.base_url).rstrip('/')}/operator"


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    folder = tmp_path_factory.mktemp("vendor")
    with LocalVendor(folder, batch_store=str(folder / "store")) as vendor:
        customer = open_customer(vendor, "acme", Terms(quota=20, credit_micros=100_000))
        with vendor.books.write() as session:
            act = Act(session, "os:operator", vendor.clock)
            projects.create(act, "acme", "search", ProjectTerms(quota=10))
            indexer = keys.issue(act, "acme", KeyTerms("indexer", concurrency=2, project="search")).api_key
        vendor.embed(indexer, CAT)
        ended(vendor, customer.key, begun(vendor, customer.key, "a", "b", metadata=METADATA))
        for inputs in ([CAT], [CAT, image_input()], [CAT] * 30):
            vendor.embed(customer.key, *inputs)
        with admin_of(vendor) as admin:
            yield Sites(vendor, admin, customer)


@pytest.fixture(scope="module")
def context(browser: Browser, sites: Sites) -> Iterator[BrowserContext]:
    """Somebody in Tokyo who is signed in to both sites."""
    context = browser.new_context(locale="en-GB", timezone_id="Asia/Tokyo", accept_downloads=True)
    page = context.new_page()
    for root, secret in (
        (sites.console, sites.customer.admin),
        (sites.operator, sites.admin.tokens[OperatorScope.ALL]),
    ):
        page.goto(f"{root}/{'ledger' if root == sites.console else 'accounts'}")
        page.locator("input[type=password]").fill(secret)
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text(re.compile("Ledger|Accounts"))
        expect(page).not_to_have_url(re.compile("begun"))
    page.close()
    yield context
    context.close()


@pytest.fixture(scope="module")
def tab(context: BrowserContext) -> Page:
    """The tab that all tests use: one of its own costs half a second."""
    return context.new_page()


@pytest.fixture
def page(tab: Page, sites: Sites) -> Iterator[Page]:
    """A page that complains of nothing, and asks for nothing from elsewhere."""
    asked: list[str] = []
    problems: list[str] = []

    def note_request(request: Request) -> None:
        asked.append(request.url)

    def note_message(message: ConsoleMessage) -> None:
        if message.type == "error":
            problems.append(message.text)

    def note_error(error: Error) -> None:
        problems.append(str(error))

    tab.on("request", note_request)
    tab.on("console", note_message)
    tab.on("pageerror", note_error)
    yield tab
    tab.goto("about:blank")
    tab.unroute_all()
    tab.remove_listener("request", note_request)
    tab.remove_listener("console", note_message)
    tab.remove_listener("pageerror", note_error)
    own = (f"http://127.0.0.1:{sites.vendor.port}/", str(sites.admin.http.base_url))
    assert not [each for each in problems if "400 (Bad Request)" not in each]
    assert not [url for url in asked if not url.startswith((*own, "blob:", "about:"))]


def confirm(page: Page, button: str) -> None:
    """Say yes to what is asked."""
    expect(page.locator("main")).to_contain_text("This is what will happen")
    page.get_by_role("button", name=button).click()


def test_no_text_of_others_reorders_what_stands_beside_it(sites: Sites, page: Page) -> None:
    """Of a job's metadata: a value stands behind its name, and what follows is read from left to right."""
    page.goto(f"{sites.console}/batches")
    metadata = page.locator("th .small", has_text="the archive").last
    expect(metadata).to_have_text(f"for: the archive, {HEBREW}: 12, evil: \\u202edesrever, last: one")
    name, value, first, end = metadata.evaluate(
        """(area, words) => words.map((word) => {
          const texts = document.createTreeWalker(area, NodeFilter.SHOW_TEXT);
          while (texts.nextNode()) {
            const at = texts.currentNode.data.indexOf(word);
            if (at < 0) continue;
            const range = document.createRange();
            range.setStart(texts.currentNode, at);
            range.setEnd(texts.currentNode, at + word.length);
            return range.getBoundingClientRect().left;
          }
        })""",
        [HEBREW, "12", "desrever", "one"],
    )
    assert name < value
    assert first < end


def test_from_a_key_to_a_charge_to_a_refund(sites: Sites, page: Page) -> None:
    """A customer makes a key and buys with it; an operator gives the charge back; the customer sees both."""
    page.goto(f"{sites.console}/keys")
    page.get_by_label("What it is for").fill("from the browser")
    page.get_by_label("Quota, in queries").fill("5")
    page.get_by_role("button", name="Make a key").click()
    secret = page.locator("#secret").inner_text()
    assert SECRET.match(secret)
    bought = sites.vendor.embed(secret, CAT, image_input())
    assert bought.status_code == 200
    page.get_by_role("link", name="I have copied it").click()
    row = page.locator("tr", has_text=key_id(secret))
    expect(row).to_contain_text("2 of 5")

    page.goto(f"{sites.console}/ledger?key={key_id(secret)}")
    charge = page.locator("tbody tr")
    expect(charge).to_have_count(1)
    expect(charge).to_contain_text("\u22120.00012")
    entry = charge.get_attribute("id")
    assert entry is not None
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as CSV").click()
    sheet = download.value.path().read_text()
    assert bought.headers["x-request-id"] in sheet

    page.goto(f"{sites.operator}/accounts?q={key_id(secret)}")
    page.get_by_role("link", name="acme").click()
    number = entry.removeprefix("entry-")
    page.locator("summary", has_text=f"Refund the charge {number}").click()
    page.get_by_role("button", name=f"Refund the charge {number}", exact=True).click()
    expect(page.locator("main")).to_contain_text("1 image and 1 text to icon-clip for 0.00012")
    confirm(page, "Refund the charge")
    expect(page.get_by_role("status")).to_contain_text("was recorded")

    page.goto(f"{sites.console}/ledger?kind=refund")
    expect(page.locator("tbody tr")).to_contain_text("0.00012")
    page.goto(f"{sites.operator}/audit?subject=acme")
    expect(page.locator("tbody tr").first).to_contain_text("money.refund")
    page.goto(f"{sites.console}/keys")
    page.get_by_role("button", name="Revoke the key from the browser").click()
    confirm(page, "Revoke the key")
    expect(page.get_by_role("status")).to_contain_text("was revoked")
    assert sites.vendor.embed(secret, CAT).status_code == 403


def test_the_answers_of_a_job_are_downloaded(sites: Sites, page: Page) -> None:
    page.goto(f"{sites.console}/batches")
    row = page.locator("tbody tr", has_text="the archive")
    expect(row).to_contain_text("completed")
    expect(row).to_contain_text("2 of 2")
    with page.expect_download() as download:
        row.get_by_role("link", name="Answers").click()
    answers = [json.loads(line) for line in download.value.path().read_text().splitlines()]
    assert [each["custom_id"] for each in answers] == ["0", "1"]


def test_how_far_a_job_is_renews_itself(sites: Sites, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    held, path = HeldModel(monkeypatch), "/batches"
    held.stop_at("wait")
    job = begun(sites.vendor, sites.customer.key, "wait", "b")
    assert held.stopped.wait(20)
    page.clock.install()
    page.goto(f"{sites.console}{path}")
    row = page.locator("tbody tr", has_text=job["id"])
    expect(row).to_contain_text("in progress")
    page.evaluate("window.stays = true")
    held.go()
    ended(sites.vendor, sites.customer.key, job)
    page.clock.fast_forward(6_000)
    expect(row).to_contain_text("2 of 2")
    expect(row).to_contain_text("completed")
    expect(row.locator("time").first).to_have_attribute("title", re.compile("UTC"))
    assert page.evaluate("window.stays")


def test_a_receiver_is_added_and_disabled(sites: Sites, page: Page) -> None:
    page.goto(f"{sites.console}/events")
    page.get_by_label("Address").fill("https://example.com/hooks")
    page.get_by_label("invoice.finalized").check()
    page.get_by_role("button", name="Add a receiver").click()
    expect(page.locator("#secret")).to_have_text(re.compile("^whsec_"))
    page.get_by_role("link", name="I have copied it").click()
    row = page.locator("tr", has_text="https://example.com/hooks")
    expect(row).to_contain_text("invoice.finalized")
    row.get_by_role("button", name="Disable the receiver").click()
    confirm(page, "Disable the receiver")
    expect(row).to_contain_text("disabled")


def test_the_chain_is_verified_by_the_browser_with_receipts(sites: Sites, page: Page) -> None:
    receipt = sites.vendor.embed(sites.customer.key, CAT).headers["x-tuition-receipt"]
    page.goto(f"{sites.console}/ledger")
    page.locator("#verify summary").click()
    verify, verdict = page.locator("#verify-chain"), page.locator("#verdict")
    verify.click()
    expect(verdict.locator(".told")).to_contain_text("entries are in order")
    files = page.locator("#receipts")
    files.set_input_files({"name": "a.txt", "mimeType": "text/plain", "buffer": f"<{receipt}>\n".encode()})
    verify.click()
    expect(verdict).to_contain_text("1 signed receipts agree")
    head, claims, signature = receipt.split(".")
    other = claims[:-4] + ("AAAA" if claims[-4:] != "AAAA" else "BBBB")
    forged = {"name": "b.json", "mimeType": "text/plain"}
    forged_content = json.dumps([f"{head}.{claims}.{'A' * len(signature)}", f"{head}.{other}.{signature}"])
    files.set_input_files({**forged, "buffer": forged_content.encode()})  # type: ignore[arg-type]
    verify.click()
    expect(verdict.locator(".problem")).to_contain_text("not signed by a key of this vendor")
    # A vendor that tells another amount is found out.
    page.route("**/ledger/entries*", lambda route: _with_another_amount(route))
    verify.click()
    expect(verdict.locator(".problem")).to_contain_text("entry 2 was changed")


def _with_another_amount(route: object) -> None:
    answer = route.fetch()  # type: ignore[attr-defined]
    told = answer.json()
    for entry in told["data"][1:2]:
        entry["amount_micros"] += 1
    route.fulfill(response=answer, json=told)  # type: ignore[attr-defined]


def test_a_model_is_tried_on_the_page(sites: Sites, page: Page) -> None:
    page.goto(f"{sites.console}/models")
    for field, colour in zip(page.locator("input[type=file]").all(), ("red", "red"), strict=True):
        field.set_input_files(
            {"name": f"{colour}.png", "mimeType": "image/png", "buffer": image_file(colour)}
        )
    expect(page.locator(".drop img")).to_have_count(2)
    page.get_by_label("A text").fill("a red square")
    once = page.locator("[data-try] [name=once]")
    before = once.input_value()
    page.get_by_role("button", name="Compare").click()
    expect(page.locator("#result tbody tr")).to_have_count(3)
    expect(page.locator("#result tbody tr").first).to_contain_text("1.000")
    expect(page.locator("#result")).to_contain_text("It cost 0.00022 units")
    expect(page.locator(".drop img")).to_have_count(2)
    expect(once).not_to_have_value(before)  # pressed again, it is charged like any request
    before = once.input_value()
    page.locator("input[type=file]").first.set_input_files(
        {"name": "no.png", "mimeType": "image/png", "buffer": b"no picture"}
    )
    with page.expect_response("**/models/try*") as answer:
        page.get_by_role("button", name="Compare").click()
    assert answer.value.status == 400
    expect(page.locator("#result .problem")).to_be_visible()
    expect(once).to_have_value(before)


def test_what_happens_now_is_live(sites: Sites, page: Page) -> None:
    page.goto(sites.operator)
    expect(page.locator("[data-state]")).to_have_text("live")
    page.wait_for_timeout(1600)
    for _ in range(5):
        sites.vendor.embed(sites.customer.key, CAT)
    expect(page.locator("[data-live=requests]")).not_to_have_text(re.compile("^(\u2013|0.0)$"))
    expect(page.locator("[data-live=p99]")).to_have_text(re.compile("ms|s$"))
    assert page.locator("[data-spark=queries] polyline").get_attribute("points")


def test_times_are_in_the_readers_zone_with_utc_when_pointed_at(sites: Sites, page: Page) -> None:
    page.goto(f"{sites.console}/ledger")
    moment = page.locator("tbody time").first
    expect(moment).to_have_text("15 Nov 2026, 21:00")
    assert moment.get_attribute("title") == "2026-11-15 12:00 UTC"


def test_everybody_can_use_every_page(
    sites: Sites, context: BrowserContext, browser: Browser, tmp_path: Path
) -> None:
    """Nothing is cut on a desk or on a telephone, and axe finds nothing, in either theme."""
    console = [
        Shown(each or "overview", f"{sites.console}{each}") for each in ("", "/batches", "/keys", "/ledger")
    ]
    operator = [Shown(each or "now", f"{sites.operator}{each}") for each in ("", "/accounts/acme")]
    shown = [replace(each, name=each.name.replace("/", "-")) for each in (*console, *operator)]
    assert looked_at(browser, shown, tmp_path, signed_in=context.storage_state()) == []


@pytest.mark.slow
def test_every_page_is_whole_in_every_state(browser: Browser, tmp_path: Path) -> None:
    assert walk(browser, tmp_path, LOOKS) == []


def test_usage_is_printed_without_menus_and_with_one_total(sites: Sites, page: Page) -> None:
    page.goto(f"{sites.console}/usage")
    sheets = [
        each.extract_text() for each in PdfReader(BytesIO(page.pdf(width="148mm", height="80mm"))).pages
    ]
    words = "\n".join(sheets)
    assert len(sheets) > 1
    assert all("Charged" in each for each in sheets if re.search(r"2026-1\d-\d\d \d", each))
    assert words.count("Total") == 1
    assert "Sign out" not in words


def test_the_keyboard_suffices(sites: Sites, page: Page) -> None:
    page.goto(f"{sites.console}/keys")
    page.keyboard.press("Tab")
    expect(page.locator(".skip").first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null")


def test_pages_can_be_read_and_forms_sent_without_scripts(sites: Sites, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(sites.console)
    page.locator("input[type=password]").fill(sites.customer.key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("h1")).to_have_text("Overview")
    expect(page.locator(".chart svg")).to_be_visible()
    page.goto(f"{sites.console}/ledger")
    page.locator("#verify summary").click()
    expect(page.locator(".no-script")).to_be_visible()
    expect(page.locator("tbody time").first).to_have_text("2026-11-15 12:00 UTC")
    expect(page.get_by_text("read only")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("status")).to_have_text("You are signed out.")
    context.close()
