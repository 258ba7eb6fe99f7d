"""From a fresh vendor to the first paid query, in the browser and from a terminal."""

import json
import subprocess
import time

from playwright.sync_api import Browser, expect

from tests.vendor_service.console.visits import Visit
from tests.vendor_service.local_vendor import LocalVendor
from vendor_service.accounts.accounts import Terms
from vendor_service.acts import accounts, invitations
from vendor_service.acts.act import Act


def test_an_invited_person_buys_in_less_than_a_minute(vendor: LocalVendor, browser: Browser) -> None:
    with vendor.books.write() as session:
        act = Act(session, "os:test", vendor.clock)
        accounts.open_account(act, "begins-today", Terms(credit_micros=1_000_000))
        link = invitations.invite(act, "begins-today").link
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    began = time.monotonic()
    page.goto(f"http://127.0.0.1:{vendor.port}{link}")
    page.get_by_role("button", name="Sign in").click()
    first = page.locator("nav a").first
    expect(first).to_have_text("Quick start")
    first.click()
    page.get_by_role("button", name="Make a key").click()
    page.get_by_role("button", name="Copy", exact=True).first.click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    secret = page.locator("#secret").inner_text()
    assert page.evaluate("navigator.clipboard.readText()") == secret
    snippet = page.locator("#snippet-first").inner_text()
    page.get_by_role("link", name="I have copied it").click()
    page.get_by_role("button", name="Use sample pictures").click()
    expect(page.locator(".drop img")).to_have_count(2)
    page.get_by_role("button", name="Compare").click()
    expect(page.locator("#result")).to_contain_text("It cost 0.00022")
    assert time.monotonic() - began < 60
    assert vendor.account(secret).spent_micros == 220
    page.reload()
    expect(first).to_have_text("Overview")
    context.close()
    # What stands beside the secret runs as it is.
    answer = subprocess.run(["bash", "-c", snippet], capture_output=True, check=True, text=True)
    assert len(json.loads(answer.stdout)["data"]) == 1
    assert vendor.account(secret).spent_micros == 240


def test_who_may_only_read_is_told_what_the_first_steps_take(vendor: LocalVendor) -> None:
    visit = Visit(vendor.http)
    visit.sign_in(key=vendor.key())
    page = visit.page("/quick-start")
    assert "To make keys, sign in with one that has the scope" in page
    assert "Make a key</button>" not in page
