"""The page of a student, served and in the browser, as pictures."""

import re
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

import client
from tests.client.serving.conftest import untrained_run
from tests.client.serving.test_page import choose
from tests.client.serving.test_serve import picture
from tests.support.pictures import BRIEFLY, Look, Shown, looked_at
from tests.support.static_server import static_server
from tests.support.student_process import StudentProcess

_LONG = "a-picture-whose-name-has-as-many-letters-as-one-may-have-and-then-some.png"


def walk(browser: Browser, folder: Path, looks: Sequence[Look] = BRIEFLY) -> list[str]:
    """Pictures of them in a folder, and what is wrong on them."""
    run = untrained_run(folder / "shapes")
    client.export(run / "student.onnx", folder / "web", kind="web")
    with StudentProcess(run, folder) as served, static_server(folder / "web") as web:
        pages = [
            Shown("served", served.url),
            Shown("served-answered", served.url, _ask),
            Shown("browser-answered", web, _ask),
        ]
        return looked_at(browser, pages, folder, looks)


def _ask(page: Page) -> None:
    """Ask about some pictures, and one that is none; and show the rest of the page."""
    expect(page.locator("#status")).to_have_text(re.compile(r"Ready.|^\s*$"))
    choose(page, *[(_LONG, picture(number)) for number in range(4)], ("broken.png", b"no picture"))
    expect(page.locator("#answers > li")).to_have_count(5)
    for each in page.locator("summary").all():
        each.click()
