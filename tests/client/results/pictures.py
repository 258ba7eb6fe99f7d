"""The pages of results in every state, as pictures."""

from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import Browser

from client.results.comparison_page import as_page
from client.results.report import render_report
from tests.client.results.furnished import RUNS, TABLES
from tests.support.pictures import BRIEFLY, Look, Shown, looked_at


def walk(browser: Browser, folder: Path, looks: Sequence[Look] = BRIEFLY) -> list[str]:
    """Pictures of them in a folder, and what is wrong on them."""
    pages = {f"report-{name}": render_report(run()) for name, run in RUNS.items()}
    pages |= {f"comparison-{name}": as_page(*table()) for name, table in TABLES.items()}
    for name, page in pages.items():
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
    return looked_at(
        browser, [Shown(each, (folder / f"{each}.html").as_uri()) for each in pages], folder, looks
    )
