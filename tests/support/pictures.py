"""Pages as people see them, on a desk and on a phone, light and dark: pictures, and what is wrong on them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, StorageState

Theme = Literal["light", "dark"]
Look = tuple[int, Theme]  # the width in pixels
LOOKS: tuple[Look, ...] = ((1280, "light"), (1280, "dark"), (390, "light"), (390, "dark"))
# Each width and each theme once: what is cut goes by the width, and contrast by the theme.
BRIEFLY: tuple[Look, ...] = ((1280, "light"), (390, "dark"))
# What is wider than its place: the page, a table's frame, what hides the rest of itself, and words of a
# drawing that stand outside it. What is there for screen readers alone is a pixel wide.
_CUT = """() => {
  const named = (one) => one.tagName.toLowerCase() + [...one.classList].map((each) => `.${each}`).join("");
  const wide = (one) => one.scrollWidth > one.clientWidth + 1;
  const found = wide(document.documentElement) ? ["the page"] : [];
  for (const one of document.body.querySelectorAll("*")) {
    if (one.clientWidth <= 1 || !one.checkVisibility()) continue;
    const hides = ["hidden", "clip"].includes(getComputedStyle(one).overflowX);
    if (one instanceof HTMLElement && wide(one) && (hides || one.classList.contains("scroll"))) {
      found.push(named(one));
    }
  }
  for (const one of document.querySelectorAll("svg text")) {
    const [words, drawing] = [one.getBoundingClientRect(), one.ownerSVGElement.getBoundingClientRect()];
    const within = words.left >= drawing.left - 1 && words.right <= drawing.right + 1;
    if (!within) found.push(`words ${one.textContent}`);
  }
  return found;
}"""


@dataclass(frozen=True)
class Shown:
    """A page in a state.

    Attributes:
        name: of its pictures.
        url: where it is.
        prepare: what is done on it before it is looked at.
    """

    name: str
    url: str
    prepare: Callable[[Page], object] | None = None


def looked_at(
    browser: Browser,
    pages: Iterable[Shown],
    folder: Path,
    looks: Sequence[Look] = BRIEFLY,
    *,
    signed_in: StorageState | None = None,
    meant: str = "",
) -> list[str]:
    """Pictures of every page, and what is wrong on them in words, which is also printed as it is found.

    Wrong is what is cut, what axe-core finds, what a page says on its console as an error, and what it asks
    of another place than its own.

    Args:
        browser: opens the pages.
        pages: which.
        folder: gets `NAME-WIDTH-THEME.png`.
        looks: how each is seen.
        signed_in: cookies to begin with.
        meant: words of what is not wrong, if it is said.
    """
    wrong: list[str] = []
    for each, (width, theme) in product(pages, looks):
        found: list[str] = []
        with _opened(browser, each, width, theme, signed_in, found) as page:
            look = f"{each.name}-{width}-{theme}"
            found += [f"{look}: {what}" for what in wrong_on(page)]
            page.screenshot(path=folder / f"{look}.png", full_page=True)
        found = [what for what in found if not meant or meant not in what]
        if found:
            print("\n".join(found), flush=True)
        wrong += found
    return wrong


def wrong_on(page: Page) -> list[str]:
    """What is cut on a page as it is, and what axe-core finds."""
    found = [f"{each} is cut" for each in page.evaluate(_CUT)]
    for rule in Axe().run(page).response["violations"]:
        found += [f"{rule['id']} {node['target']}" for node in rule["nodes"]]
    return found


@contextmanager
def _opened(
    browser: Browser, shown: Shown, width: int, theme: Theme, signed_in: StorageState | None, found: list[str]
) -> Iterator[Page]:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=theme, storage_state=signed_in,
        locale="en-GB", timezone_id="Europe/Berlin",
    )  # fmt: skip
    page = context.new_page()
    home = shown.url.rpartition("/")[0] if shown.url.startswith("file:") else _origin(shown.url)
    page.on("request", lambda it: _note(found, shown, it.url) if not _its_own(it.url, home) else None)
    page.on("console", lambda it: _note(found, shown, it.text) if it.type == "error" else None)
    page.on("pageerror", lambda error: _note(found, shown, str(error)))
    page.goto(shown.url)
    if shown.prepare is not None:
        shown.prepare(page)
    yield page
    context.close()


def _origin(url: str) -> str:
    return "/".join(url.split("/")[:3])


def _its_own(url: str, home: str) -> bool:
    return url.startswith((home, "data:", "blob:"))


def _note(found: list[str], shown: Shown, what: str) -> None:
    found.append(f"{shown.name}: {what}")
