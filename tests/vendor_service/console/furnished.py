"""A vendor with some customers and a month of their history, to be looked at."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

from tests.vendor_service.books import Books
from tests.vendor_service.console.jobs import begun, ended
from tests.vendor_service.http.local_admin import LocalAdmin
from tests.vendor_service.local_vendor import LocalVendor, image_input
from vendor_service.accounts.accounts import Terms
from vendor_service.accounts.keys import KeyTerms, Scope
from vendor_service.accounts.projects import ProjectTerms
from vendor_service.acts import accounts, keys, money, prices, projects, receivers
from vendor_service.acts.act import Act
from vendor_service.clock import SECOND

# As long as names may be.
LONG_ACCOUNT = "a-customer-with-as-many-letters-in-its-name-as-an-account-takes"
LONG_PROJECT = "a-project-whose-name-has-as-many-letters-as-one-may-have"
LONG_LABEL = (
    "the key of a program whose label says at length where it runs, who looks after it and until when"
)
CAT = {"text": "a photo of a cat"}
DAY = 86_400.0


@dataclass(frozen=True)
class Customer:
    """An account and keys of it: one that buys, one that may do everything."""

    name: str
    key: str
    admin: str


def admin_of(vendor: LocalVendor) -> LocalAdmin:
    """Operators' application over the books of a vendor, which it watches."""
    books = cast(Books, SimpleNamespace(database=vendor.books, clock=vendor.clock, url=vendor.database_url))
    return LocalAdmin(books, vendor_url=f"http://127.0.0.1:{vendor.port}")


def open_customer(vendor: LocalVendor, name: str, terms: Terms, label: str = "production") -> Customer:
    """Open an account with two keys."""
    with vendor.books.write() as session:
        act = Act(session, "os:operator", vendor.clock)
        accounts.open_account(act, name, terms)
        bought = keys.issue(act, name, KeyTerms(label))
        admin = keys.issue(act, name, KeyTerms("administration", frozenset({Scope.ADMIN})))
    return Customer(name, bought.api_key, admin.api_key)


def furnish(vendor: LocalVendor) -> Customer:
    """Some accounts that bought and were refused something for weeks; the one that is looked at."""
    vendor.clock.advance(-31 * DAY)
    with vendor.books.write() as session:
        act = Act(session, "os:operator", vendor.clock)
        prices.name_currency(act, "EUR")
        prices.set_price(act, "icon-clip", "image", 50, "research", new=True)
    acme = open_customer(
        vendor,
        "acme",
        Terms(quota=700, spend_limit_micros=60_000, credit_micros=100_000, queries_per_second=50),
    )
    others = [
        open_customer(vendor, "lumen-labs", Terms(spend_limit_micros=2_000_000, plan="research")),
        open_customer(vendor, "northwind", Terms(quota=10_000)),
    ]
    with vendor.books.write() as session:
        act = Act(session, "os:operator", vendor.clock)
        receivers.create(act, "https://acme.example/hooks/tuition", account="acme")
        laptop = keys.issue(act, "acme", KeyTerms("laptop", quota=100, spend_limit_micros=5_000)).api_key
        projects.create(act, "acme", "search", ProjectTerms(quota=300, queries_per_second=20))
        terms = KeyTerms(
            "indexer",
            queries_per_second=10,
            concurrency=4,
            expires_at=vendor.clock() + round(90 * DAY) * SECOND,
            project="search",
        )
        indexer = keys.issue(act, "acme", terms).api_key
    for day in range(31):
        vendor.clock.advance(DAY)
        for number in range(1 + (7 * day + 3) % 5):
            vendor.embed(acme.key, *([image_input()] * (3 + number)), *([CAT] * (1 + day % 4)))
        if day % 3 == 0:
            vendor.embed(laptop, CAT, CAT)
            vendor.embed(indexer, *([CAT] * 5))
            vendor.embed(others[day % 2].key, *([image_input()] * (4 + day)))
    for _ in range(3):
        vendor.embed(laptop, *([CAT] * 90))
    vendor.embed(acme.key, {"image": "AAAA"})
    with vendor.books.write() as session:
        act = Act(session, "os:operator", vendor.clock)
        money.refund(act, "acme", 7)
        money.refund(act, "acme", 53, 40, "ticket 812")
        money.adjust(act, "acme", 2_500, "thanks for finding a mistake", "ticket 7")
        accounts.suspend(act, "northwind")
    ended(vendor, indexer, begun(vendor, indexer, *(f"a photo of {n}" for n in range(12)), "x" * 100_000))
    ended(vendor, acme.key, begun(vendor, acme.key, "a cat", "a dog", metadata={"for": "the archive"}))
    vendor.app.state.refusals.write()
    return acme


def crowd(vendor: LocalVendor, customer: Customer) -> None:
    """Many of everything, with the longest names: accounts, and a customer's keys, projects and receivers."""
    with vendor.books.write() as session:
        act = Act(session, "os:operator", vendor.clock)
        for number in range(50):
            vendor.clock.advance(1)
            accounts.open_account(act, f"{LONG_ACCOUNT[:-3]}-{number:02}", Terms(quota=10**12))
            terms = KeyTerms(
                f"{LONG_LABEL} {number}", quota=10**12, expires_at=vendor.clock() + 90 * 86_400 * SECOND
            )
            key = keys.issue(act, customer.name, terms)
            if number % 10 == 0:
                keys.revoke(act, keys.issue(act, customer.name, terms).key_id)
                projects.create(act, customer.name, f"{LONG_PROJECT}-{number:02}", ProjectTerms(quota=10**9))
                receivers.create(act, f"https://hooks.example/{'long/' * 20}{number}", account=customer.name)
    for _ in range(30):
        vendor.embed(key.api_key, CAT)
