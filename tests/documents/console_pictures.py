"""Makes pictures of every page of the console, light and dark, wide and narrow: a part of `make screenshots`.

    python -m tests.documents.console_pictures [FOLDER]

A few of them stand in docs/images/; all of them go to the folder, if one is named.
"""

import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, Page

from examples.demo import ROOT
from tests.support.browser import chromium
from tests.vendor_service.console.furnished import Customer, admin_of, furnish
from tests.vendor_service.http.local_admin import LocalAdmin
from tests.vendor_service.local_vendor import LocalVendor, image_file
from vendor_service.acts.act import OperatorScope

IMAGES = ROOT / "docs" / "images"
Theme = Literal["light", "dark"]
THEMES: tuple[Theme, ...] = ("light", "dark")
WIDE, NARROW = (1280, 860), (400, 800)
CUSTOMERS = ("", "/usage", "/models", "/batches", "/ledger", "/invoices", "/invoices/2026-11", "/keys",
             "/events", "/sessions", "/quick-start")  # fmt: skip
OPERATORS = ("/health", "/money", "/accounts", "/accounts/acme", "/models", "/audit")
# Which pictures stand in docs/customer.md and docs/selling.md: site, page and theme.
SHOWN = {
    "console-overview.png": ("console", "overview", "light"),
    "console-ledger.png": ("console", "ledger", "dark"),
    "operator-now.png": ("operator", "now", "dark"),
    "operator-account.png": ("operator", "accounts-acme", "light"),
}


def main(arguments: Sequence[str]) -> None:
    """Make them all."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(arguments[0]) if arguments else Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        made = photograph(folder)
        for name, (site, page, theme) in SHOWN.items():
            with Image.open(folder / f"{site}-{page}-{theme}-wide.png") as whole:
                top = whole.convert("RGB").crop((0, 0, WIDE[0], min(whole.height, 1000)))
            top.quantize(256, dither=Image.Dither.NONE).save(IMAGES / name, optimize=True)
    print(f"{made} pictures")


def photograph(folder: Path) -> int:
    """Pictures of every page in a folder; how many."""
    made = 0
    with furnished_sites(folder) as (vendor, admin, customer, browser):
        console = f"http://127.0.0.1:{vendor.port}/console"
        operators = f"{str(admin.http.base_url).rstrip('/')}/operator"
        for theme, (width, size) in product(THEMES, (("wide", WIDE), ("narrow", NARROW))):
            context = browser.new_context(
                viewport={"width": size[0], "height": size[1]}, color_scheme=theme,
                locale="en-GB", timezone_id="Europe/Berlin",
            )  # fmt: skip
            page = context.new_page()
            page.goto(console)
            _shoot(page, folder / f"console-sign-in-{theme}-{width}.png")
            sign_in(page, customer.admin)
            made += _shoot_site(page, console, CUSTOMERS, folder, f"{theme}-{width}")
            page.goto(operators)
            sign_in(page, admin.tokens[OperatorScope.ALL])
            page.goto(operators)
            _sell(vendor, customer, page)
            _shoot(page, folder / f"operator-now-{theme}-{width}.png")
            made += 1 + _shoot_site(page, operators, OPERATORS, folder, f"{theme}-{width}")
            _shoot_more(page, console, folder, f"{theme}-{width}")
            context.close()
    return made


def _shoot_site(page: Page, root: str, paths: Sequence[str], folder: Path, name: str) -> int:
    """Pages of a site; how many."""
    for path in paths:
        page.goto(f"{root}{path}")
        called = re.sub(r"\W+", "-", path.strip("/")) or "overview"
        _shoot(page, folder / f"{root.rpartition('/')[2]}-{called}-{name}.png")
    return len(paths)


@contextmanager
def furnished_sites(folder: Path) -> Iterator[tuple[LocalVendor, LocalAdmin, Customer, Browser]]:
    """A vendor with history, its operators' site, and a browser."""
    with (
        tempfile.TemporaryDirectory(dir=folder) as books,
        LocalVendor(Path(books), batch_store=f"{books}/store") as vendor,
    ):
        customer = furnish(vendor)
        with admin_of(vendor) as admin, chromium() as browser:
            yield vendor, admin, customer, browser


def sign_in(page: Page, secret: str) -> None:
    """Sign in on the page that is open."""
    page.locator("input[type=password]").fill(secret)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_selector("nav")


def _shoot_more(page: Page, console: str, folder: Path, name: str) -> None:
    """What comes of a form: a question, a secret, a trial, a verified chain, an error."""
    page.goto(f"{console}/ledger")
    page.locator("#verify-chain").click()
    page.wait_for_selector("#verdict .told")
    _shoot(page, folder / f"console-verified-{name}.png")
    page.goto(f"{console}/models")
    for field, colour in zip(page.locator("input[type=file]").all(), ("crimson", "orange"), strict=True):
        field.set_input_files(
            {"name": f"{colour}.png", "mimeType": "image/png", "buffer": image_file(colour)}
        )
    page.locator("input[name=text]").fill("a red square")
    page.get_by_role("button", name="Compare").click()
    page.wait_for_selector("#result table")
    _shoot(page, folder / f"console-tried-{name}.png")
    page.goto(f"{console}/keys")
    page.locator("input[name=label]").fill("notebook")
    page.get_by_role("button", name="Make the key").click()
    _shoot(page, folder / f"console-secret-{name}.png")
    page.goto(f"{console}/keys")
    page.locator("summary").first.click()
    page.get_by_role("button", name="Revoke", exact=False).first.click()
    _shoot(page, folder / f"console-question-{name}.png")
    page.goto(f"{console}/invoices/2020-01")
    _shoot(page, folder / f"console-error-{name}.png")


def _sell(vendor: LocalVendor, customer: Customer, page: Page) -> None:
    """Have something happen while a page shows what happens now."""
    for number in range(24):
        vendor.embed(customer.key, *([{"text": f"a photo of {number}"}] * (1 + number % 3)))
        page.wait_for_timeout(250)


def _shoot(page: Page, to: Path) -> None:
    page.screenshot(path=to, full_page=True)


if __name__ == "__main__":
    main(sys.argv[1:])
