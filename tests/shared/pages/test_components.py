"""The components of pages: what stands in a table, and whether everybody can use each of them."""

from pathlib import Path

import pytest
from markupsafe import Markup
from playwright.sync_api import Browser, expect

from shared.pages import charts
from shared.pages.tables import columns_of, finished
from tests.shared.pages.gallery import walk


def test_numbers_of_a_column_have_equal_decimals_and_each_cell_its_columns_title() -> None:
    rows = Markup(
        '<tr id="a"><th scope="row">v1.5</th><td>1.5<span title="0.125">of 1,000.25</span></td><td></td></tr>'
        '<tr><td colspan="2">none</td><td><b>Rotate</b></td></tr>'
        "<tr><th>b</th><td>\u22120.0625</td><td></td></tr>"
    )
    assert finished(rows, columns_of(["Name", "Spent#", "", "(change)"])) == (
        '<tr id="a"><th scope="row">v1.5</th><td class="n" data-of="Spent">1.5000'
        '<span title="0.125">of 1,000.2500</span></td><td class="acts"></td></tr>'
        '<tr><td colspan="2">none</td><td class="acts"><div class="row"><b>Rotate</b></div></td></tr>'
        '<tr><th>b</th><td class="n" data-of="Spent">\u22120.0625</td><td class="acts"></td></tr>'
    )


def test_what_a_cell_shows_is_not_taken_for_a_tag() -> None:
    rows = Markup("<tr><th>{}</th><td>{}</td></tr>").format("</th><td>0.5", "<td>0.5</td>")
    assert finished(rows, columns_of(["Name", 'For "x"'])) == (
        "<tr><th>&lt;/th&gt;&lt;td&gt;0.5</th>"
        '<td data-of="For &#34;x&#34;">&lt;td&gt;0.5&lt;/td&gt;</td></tr>'
    )


@pytest.mark.parametrize(
    ("used", "level"),
    [(0, "fine"), (799, "fine"), (800, "high"), (949, "high"), (950, "full"), (2000, "full")],
)
def test_a_meter_warns_at_four_fifths_and_more_at_nineteen_twentieths(used: int, level: str) -> None:
    assert charts.level(used, 1000) == level
    if used:
        assert f'class="used {level}"' in charts.meter("Quota", used, 1000)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 1, [0, 0.25, 0.5, 0.75, 1]), (0, 0.0008, [0, 0.0002, 0.0004, 0.0006, 0.0008]),
     (0, 700, [0, 200, 400, 600, 800]), (88, 93, [88, 90, 92, 94])],
)  # fmt: skip
def test_ticks_are_round_and_hold_all_values(low: float, high: float, ticks: list[float]) -> None:
    assert charts.nice_ticks(low, high) == ticks


def test_everybody_can_use_every_component_in_every_state(browser: Browser, tmp_path: Path) -> None:
    assert walk(browser, tmp_path) == []
    page = browser.new_page()
    page.goto(f"file://{tmp_path}/gallery.html")
    # The keyboard begins at the first field that is wrong.
    expect(page.locator("[aria-invalid]").first).to_be_focused()
    page.set_viewport_size({"width": 1280, "height": 900})
    table = page.locator("table").nth(1)
    expect(table.locator("tbody tr:visible")).to_have_count(25)
    for spent in ("0.125000", "0.000001"):  # the most at first
        table.get_by_role("button", name="Spent").click()
        expect(table.locator("tbody tr:visible").first).to_contain_text(spent)
    page.get_by_role("button", name="Next").click()
    expect(table.locator("tbody tr:visible").first).to_contain_text("0.017576")
    page.close()


def test_an_axis_has_no_exponents() -> None:
    drawn = charts.bars("Charges", [("1 Nov", 0.00002, "0.00002 EUR")], "EUR")
    assert "<span>0.000015</span>" in drawn
    assert "<span>0</span>" in drawn
