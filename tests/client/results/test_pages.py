"""The report in a real browser: nothing is cut, axe-core finds nothing, and the slider moves what it says."""

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from client.results.report import render_report
from tests.client.results.furnished import RUNS


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize(("width", "theme"), [(390, "dark"), (1280, "light")])
def test_a_report_is_whole_in_any_window(
    browser: Browser, tmp_path: Path, name: str, width: int, theme: str
) -> None:
    file = tmp_path / "report.html"
    file.write_text(render_report(RUNS[name]()), encoding="utf-8")
    assert "/home/" not in file.read_text(encoding="utf-8")
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=theme,  # type: ignore[arg-type]
    )
    page, asked, told = context.new_page(), list[str](), list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: told.append(message.text))
    page.goto(file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert Axe().run(page).response["violations"] == []
    if name == "full":
        slider = page.get_by_label("The student asks about")
        slider.fill("0")
        expect(page.locator(".asking .card b").last).to_have_text("nothing")
        slider.fill("100")
        expect(page.locator(".asking .card b").last).to_have_text("0.1000 EUR")
    assert told == []
    assert [each for each in asked if not each.startswith(("file:", "data:"))] == []
    page.screenshot(path=tmp_path / f"{name}-{theme}-{width}.png", full_page=True)
    context.close()
