"""The report in a real browser: nothing is cut, axe-core finds nothing, and the slider moves what it says."""

from pathlib import Path

from playwright.sync_api import Browser, expect

from tests.client.results.pictures import walk


def test_every_page_is_whole_on_a_desk_and_on_a_phone(browser: Browser, tmp_path: Path) -> None:
    assert walk(browser, tmp_path) == []
    assert "/home/" not in (tmp_path / "full.html").read_text(encoding="utf-8")
    page = browser.new_page()
    page.goto((tmp_path / "full.html").as_uri())
    slider = page.get_by_label("The student asks about")
    slider.fill("0")
    expect(page.locator(".asking .card b").last).to_have_text("nothing")
    slider.fill("100")
    expect(page.locator(".asking .card b").last).to_have_text("0.1000 EUR")
    page.close()
