"""The pages of customers and operators in every state, as pictures."""

import re
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Page, StorageState

from tests.support.pictures import BRIEFLY, Look, Shown, looked_at
from tests.vendor_service.books import opened_books
from tests.vendor_service.console.customers.people import NOTE_PAGES, PAGES
from tests.vendor_service.console.furnished import CAT, Customer, admin_of, crowd, furnish, open_customer
from tests.vendor_service.console.test_operators import PAGES as OPERATOR_PAGES
from tests.vendor_service.http.local_admin import LocalAdmin
from tests.vendor_service.local_vendor import LocalVendor
from vendor_service.accounts.accounts import Terms
from vendor_service.acts import accounts, invoicing, money
from vendor_service.acts.act import Act, OperatorScope
from vendor_service.clock import to_datetime
from vendor_service.money import invoices

CUSTOMERS = [
    each.replace("{month}", "2026-11") for each in PAGES if "." not in each and "entries" not in each
]
_NOTES = [each.replace("{number}", "CN-1") for each in NOTE_PAGES if "." not in each]
# A browser tells on its console of an answer that is an error, which is what some of these pages are.
_MEANT = "the server responded with a status of 4"


@dataclass(frozen=True)
class Sites:
    """A vendor with history, its operators' site, and its customers: of long standing, and one of today."""

    vendor: LocalVendor
    admin: LocalAdmin
    customer: Customer
    fresh: Customer

    @property
    def console(self) -> str:
        """Where customers' pages are."""
        return f"http://127.0.0.1:{self.vendor.port}/console"

    @property
    def operator(self) -> str:
        """Where operators' pages are."""
        return operators_of(self.admin)


def walk(
    browser: Browser, folder: Path, looks: Sequence[Look] = BRIEFLY, some: Collection[str] = ()
) -> list[str]:
    """Pictures of them in a folder, all or those that are named, and what is wrong on them."""
    found: list[str] = []
    with furnished_sites(folder) as sites:
        for signed_in, pages in _rounds(browser, sites):
            chosen = [each for each in pages if not some or each.name in some]
            found += looked_at(browser, chosen, folder, looks, signed_in=signed_in, meant=_MEANT)
    return found


@contextmanager
def furnished_sites(folder: Path) -> Iterator[Sites]:
    """A vendor with history, and its operators' site."""
    with (
        tempfile.TemporaryDirectory(dir=folder) as books,
        LocalVendor(Path(books), batch_store=f"{books}/store") as vendor,
    ):
        customer = furnish(vendor)
        crowd(vendor, customer)
        _credit(vendor, customer)
        fresh = open_customer(vendor, "begins-today", Terms())
        with admin_of(vendor) as admin:
            yield Sites(vendor, admin, customer, fresh)


def _credit(vendor: LocalVendor, customer: Customer) -> None:
    """Name seller and buyer, issue the first month's invoice, and give back some of it."""
    with vendor.books.write() as session:
        act = Act(session, "os:operator", vendor.clock)
        invoicing.set_seller(act, {
            "legal_name": "Vision Embeddings GmbH", "street": "Hauptstr. 1", "postcode": "10115",
            "city": "Berlin", "country": "DE", "tax_id": "DE123456789", "tax_basis_points": 1900,
            "iban": "DE02120300000000202051", "email": "billing@vision.example",
        })  # fmt: skip
        buyer = {"legal_name": "Acme Société par actions simplifiée", "country": "FR", "reference": "PO 17"}
        invoicing.set_buyer(act, customer.name, buyer)
    month = f"{to_datetime(vendor.account(customer.key).created_at):%Y-%m}"
    invoices.issue(vendor.books, vendor.account(customer.key).id, month, vendor.clock())
    with vendor.books.write() as session:
        act = Act(session, "os:operator", vendor.clock)
        money.refund(act, customer.name, 9, 70, "ticket 901")


def operators_of(admin: LocalAdmin) -> str:
    """Where the operators' pages of an application are."""
    return f"{str(admin.http.base_url).rstrip('/')}/operator"


def state_of(browser: Browser, root: str, secret: str) -> StorageState:
    """The cookies of somebody who signed in."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(root)
    page.locator("input[type=password]").fill(secret)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_selector("nav")
    state = context.storage_state()
    context.close()
    return state


def _rounds(browser: Browser, sites: Sites) -> Iterator[tuple[StorageState | None, list[Shown]]]:
    """Who is signed in, and which pages they look at."""
    console, operator = sites.console, sites.operator
    yield (
        None,
        [
            Shown("console-sign-in", f"{console}/sign-in"),
            Shown("console-sign-in-wrong", f"{console}/sign-in", _sent("Sign in", {"API key": "tk_1_2"})),
            Shown("operator-sign-in", f"{operator}/sign-in"),
        ],
    )
    whole = state_of(browser, console, sites.customer.admin)
    yield whole, [*_all("console", console, [*CUSTOMERS, *_NOTES]), *_done_by_customers(console)]
    operators = state_of(browser, operator, sites.admin.tokens[OperatorScope.ALL])
    paths = [each.replace("{account}", sites.customer.name) for each in OPERATOR_PAGES]
    shown = [each for each in _all("operator", operator, paths) if each.name != "operator-home"]
    now = Shown("operator-home", operator, lambda page: _sell(sites, page))
    yield operators, [now, *shown, *_done_by_operators(operator, sites.customer.name)]
    fresh = state_of(browser, console, sites.fresh.admin)
    yield fresh, _all("console-empty", console, CUSTOMERS)
    sites.vendor.embed(sites.fresh.key, CAT)
    yield fresh, _all("console-one", console, ["", "/usage", "/ledger", "/invoices/2026-12"])
    reader = state_of(browser, console, sites.fresh.key)
    with sites.vendor.books.write() as session:
        accounts.suspend(Act(session, "os:test", sites.vendor.clock), sites.fresh.name)
    yield reader, _all("console-suspended", console, ["", "/models", "/keys", "/quick-start"])
    with (
        tempfile.TemporaryDirectory() as folder,
        opened_books(f"sqlite:///{folder}/books.db") as books,
        LocalAdmin(books, vendor_url="http://127.0.0.1:9") as alone,
    ):
        root = operators_of(alone)
        of_none = [each for each in OPERATOR_PAGES if "{" not in each]
        state = state_of(browser, root, alone.tokens[OperatorScope.ALL])
        yield state, _all("operator-empty", root, of_none)


def _all(site: str, root: str, paths: Sequence[str]) -> list[Shown]:
    names = [re.sub(r"\W+", "-", each.strip("/")) or "home" for each in paths]
    return [Shown(f"{site}-{name}", f"{root}{path}") for name, path in zip(names, paths, strict=True)]


def _done_by_customers(console: str) -> list[Shown]:
    """What comes of a form: a question, a secret, a trial, a verified chain, errors."""
    return [
        Shown(
            "console-key-wrong", f"{console}/keys", _sent("Make a key", {"Quota": "many", "Spend": "12,50"})
        ),
        Shown("console-secret", f"{console}/keys", _sent("Make a key", {"What it is for": "notebook"})),
        Shown("console-question", f"{console}/keys", _asked),
        Shown("console-tried", f"{console}/models", _tried),
        Shown("console-verified", f"{console}/ledger", _verified),
        Shown("console-nowhere", f"{console}/invoices/2020-01"),
    ]


def _done_by_operators(operator: str, name: str) -> list[Shown]:
    account = f"{operator}/accounts/{name}"
    wrong = {"Name": "two words", "Quota": "many"}
    return [
        Shown("operator-account-wrong", f"{operator}/accounts", _sent("Open", wrong)),
        Shown("operator-question", account, _sent("Suspend")),
        Shown("operator-verified", f"{operator}/money", _sent("Verify")),
        Shown("operator-nowhere", f"{operator}/accounts/nobody"),
    ]


def _sent(button: str, values: dict[str, str] | None = None) -> Callable[[Page], None]:
    """Fill in the form with that button, and send it."""

    def send(page: Page) -> None:
        form = page.locator("main form").filter(has=page.get_by_role("button", name=button)).first
        form = form if form.count() else page.locator("main form").filter(has_text=button).first
        for label, value in (values or {}).items():
            form.get_by_label(label).first.fill(value)
        form.locator("button").first.click()
        page.wait_for_load_state()

    return send


def _asked(page: Page) -> None:
    page.get_by_role("button", name="Revoke", exact=False).first.click()
    page.wait_for_selector("[name=confirmed]", state="attached")


def _tried(page: Page) -> None:
    page.get_by_role("button", name="Use sample pictures").click()
    page.get_by_role("button", name="Compare").click()
    page.wait_for_selector("#result table")


def _sell(sites: Sites, page: Page) -> None:
    """Have something happen while a page shows what happens now."""
    for number in range(12):
        sites.vendor.embed(sites.customer.key, *([{"text": f"a photo of {number}"}] * (1 + number % 3)))
        page.wait_for_timeout(250)


def _verified(page: Page) -> None:
    page.locator("#verify summary").click()
    page.locator("#verify-chain").click()
    page.wait_for_selector("#verdict .told")
