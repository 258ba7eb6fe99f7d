"""The pages of results in every state, as pictures."""

from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import Browser

from client.results.report import render_report
from tests.client.results.furnished import RUNS
from tests.support.pictures import BRIEFLY, Look, Shown, looked_at


def walk(browser: Browser, folder: Path, looks: Sequence[Look] = BRIEFLY) -> list[str]:
    """Pictures of them in a folder, and what is wrong on them."""
    for name, run in RUNS.items():
        (folder / f"{name}.html").write_text(render_report(run()), encoding="utf-8")
    return looked_at(
        browser, [Shown(name, (folder / f"{name}.html").as_uri()) for name in RUNS], folder, looks
    )
