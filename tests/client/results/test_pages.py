"""Pages of results in a real browser: whole for everybody, and their sliders move what they say."""

from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from tests.client.results.pictures import walk


def test_every_page_is_whole_on_a_desk_and_on_a_phone(browser: Browser, tmp_path: Path) -> None:
    assert walk(browser, tmp_path) == []
    assert "/home/" not in (tmp_path / "report-full.html").read_text(encoding="utf-8")
    page = browser.new_page()
    page.goto((tmp_path / "report-full.html").as_uri())
    _slide(page, "0", "nothing")
    _slide(page, "100", "0.1000 EUR")
    page.goto((tmp_path / "comparison-full.html").as_uri())
    _slide(page, "50", "0.0500 EUR")
    _slide(page, "100", "0.1000 EUR")
    row = page.locator(".asking tbody tr").first
    expect(row).to_contain_text("90.0%")  # the teacher's
    expect(row).to_contain_text("class 1, line: 50.0%")
    page.close()


def _slide(page: Page, share: str, price: str) -> None:
    page.get_by_label("The student asks about").fill(share)
    expect(page.locator(".asking .price [data-at]")).to_have_text(price)
