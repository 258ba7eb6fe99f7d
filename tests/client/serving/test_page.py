"""`GET /` in a real browser: images are dropped, answers appear, and nobody else is asked for anything."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.client.results.test_records import SUMMARY
from tests.client.serving.test_serve import ask, picture
from tests.client.toy import CLASSES
from tests.support.student_process import StudentProcess

WIDTHS = (pytest.param(1280, marks=pytest.mark.slow), 400)
# What a browser does when files are dropped, which no driver does for it.
_DROP = """async (urls) => {
  const transfer = new DataTransfer();
  for (const [name, url] of urls) {
    const bytes = Uint8Array.from(atob(url), (c) => c.charCodeAt(0));
    transfer.items.add(new File([bytes], name, { type: "image/png" }));
  }
  document.getElementById("drop").dispatchEvent(
    new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""


@contextmanager
def watched(browser: Browser, url: str, *, touched: bool = False) -> Iterator[Page]:
    """A page that complains of nothing, and asks for nothing that does not begin with its own address."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, has_touch=touched)
    page = context.new_page()
    asked: list[str] = []
    problems: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(url)
    yield page
    assert not problems
    assert not [each for each in asked if not each.startswith((url, "blob:"))]
    context.close()


@pytest.fixture
def page(browser: Browser, served: StudentProcess) -> Iterator[Page]:
    with watched(browser, served.url) as page:
        yield page


def choose(page: Page, *files: tuple[str, bytes]) -> None:
    """Choose files, by their names and contents."""
    payloads = [{"name": name, "mimeType": "image/png", "buffer": content} for name, content in files]
    page.locator("#files").set_input_files(payloads)  # type: ignore[arg-type]


def drop(page: Page, content: bytes, name: str) -> None:
    """Drop a file onto the page."""
    page.evaluate(_DROP, [[name, base64.b64encode(content).decode()]])


@pytest.mark.parametrize("width", WIDTHS)
def test_chosen_images_are_answered_as_programs_are(
    page: Page, http: httpx.Client, width: int, tmp_path: Path
) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    files = [(f"{name}.png", picture(number)) for number, name in enumerate(CLASSES)]
    choose(page, *files, ("broken.png", b"no picture"))
    expect(page.locator("#answers > li")).to_have_count(4)
    expect(page.locator("#status")).to_have_text(re.compile(r"^4 images in \d+ ms\.$"))
    for card, (name, content) in zip(page.locator("#answers > li").all(), files, strict=False):
        (result,) = ask(http, content).json()["results"]
        expect(card.locator(".class")).to_have_text(f"{result['class']}, {100 * result['confidence']:.1f}%")
        expect(card.locator(".who")).to_contain_text("answered by the student in")
        expect(card.locator(".name")).to_have_text(name)
        expect(card.locator(".top li")).to_have_count(2)
        assert card.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 40
    expect(page.locator("li.refused .class")).to_have_text("not a readable picture")
    expect(page.locator("li.refused img")).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(path=tmp_path / f"{width}.png", full_page=True)


def test_dropped_images_are_answered_before_those_of_before(page: Page) -> None:
    for seed in (1, 2):
        drop(page, picture(seed), f"{seed}.png")
        expect(page.locator("#answers > li")).to_have_count(seed)
    expect(page.locator("#answers .name").first).to_have_text("2.png")


def test_many_images_are_sent_in_portions(page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.method))
    choose(page, *[(f"{number}.png", picture(number)) for number in range(40)])
    expect(page.locator("#answers > li")).to_have_count(40)
    assert asked.count("POST") == 3


def test_the_page_tells_of_the_student(page: Page) -> None:
    expect(page.locator("h1")).to_have_text("shapes")
    expect(page.locator(".facts")).to_contain_text("which it has not seen")
    page.get_by_text("Its classes").click()
    expect(page.locator(".classes span")).to_have_text(list(CLASSES))


_UNKNOWN: dict[str, Any] = {
    "in_domain": None,
    "out_of_domain": None,
    "by_domain": {},
    "images_by_domain": {},
    "worst_domain": None,
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"adapted": True}, ["30.0%", "right on red, to which it was adapted"]),
        ({"weights_known": False}, ["30.0%", "right on red, which was held out"]),
        (
            {"target_domain": None, "accuracy": {**SUMMARY["accuracy"], "out_of_domain": None}},
            ["62.5%", "to expect of a new domain", "100.0%"],
        ),
        ({"target_domain": None, "accuracy": _UNKNOWN, "leave_one_out": {}}, ["no image had a label"]),
    ],
)
def test_the_page_tells_what_was_measured_and_no_more(
    run: Path, tmp_path: Path, changes: dict[str, Any], words: list[str]
) -> None:
    copy = tmp_path / "run"
    copy.mkdir()
    (copy / "student.onnx").write_bytes((run / "student.onnx").read_bytes())
    (copy / "summary.json").write_text(json.dumps({**SUMMARY, **changes}))
    with StudentProcess(copy, tmp_path) as served:
        html = httpx.get(served.url).text
    for each in words:
        assert each in html
    assert ("which it has not seen" in html) == ("which it has not seen" in words)


def test_what_may_be_loaded_is_strict_and_everything_is_there(http: httpx.Client) -> None:
    answer = http.get("/")
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert not re.search(r"<script>|<style|style=|onclick=", answer.text)
    for path in re.findall(r'(?:src|href)="(assets/[^"]*)"', answer.text):
        assert http.get(f"/{path}").status_code == 200
    assert http.get("/assets/page.html").status_code == 404
    assert http.get("/assets/../app.py").status_code == 404


def test_a_page_that_needs_a_key_asks_for_it(browser: Browser, run: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"shop {hashlib.sha256(b'open sesame').hexdigest()}\n")
    with StudentProcess(run, tmp_path, "--api-keys", str(keys)) as served:
        page = browser.new_page()
        page.goto(served.url)
        choose(page, ("a.png", picture()))
        expect(page.locator("#status.problem")).to_contain_text("send one of this student's keys")
        page.locator("#key").fill("open sesame")
        choose(page, ("a.png", picture()))
        expect(page.locator("#answers > li")).to_have_count(1)
        served.stop()
        choose(page, ("a.png", picture()))
        expect(page.locator("#status.problem")).to_contain_text("The server does not answer")
        page.close()


def test_names_are_shown_as_they_are_and_their_control_characters_as_codes(page: Page) -> None:
    choose(page, ("<img src=x onerror=alert(1)>\u202e\x1b.png", picture()))
    expect(page.locator(".name bdi")).to_have_text(r"<img src=x onerror=alert(1)>\u202e\u001b.png")
    assert page.locator("#answers img").count() == 1


def test_the_page_is_whole_on_a_desk_and_on_a_phone(browser: Browser, tmp_path: Path) -> None:
    from tests.client.serving.pictures import walk

    assert walk(browser, tmp_path) == []


def test_unsure_answers_are_marked_and_the_page_can_be_asked_by_a_program(page: Page) -> None:
    choose(page, *[(f"{number}.png", picture(number)) for number in range(8)])
    expect(page.locator("#answers > li")).to_have_count(8)
    for card in page.locator("#answers > li").all():
        confidence = float(card.locator(".class").inner_text().rpartition(", ")[2].rstrip("%"))
        expect(card.locator(".unsure")).to_be_visible(visible=confidence < 50)
        expect(card.locator(".unsure")).to_contain_text("of such answers 40.0% were right")
    expect(page.locator("#snippet")).to_have_text(f"curl -F image=@picture.png {page.url}classify")
