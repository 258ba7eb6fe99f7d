"""How long the console's pages take the server with a ledger of a million entries.

    make bench-console

One account has bought a year long, 20 of its charges on another key. Each page is asked for over loopback;
the table has the median of the answers' times, and of the processor's. Customers' pages are asked of the
vendor with the bundled model, operators' of the application beside it, on SQLite.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from unittest.mock import patch

from tests.support.long_history import write_history
from tests.vendor_service import local_vendor
from tests.vendor_service.books import Books, opened_books
from tests.vendor_service.console.visits import Visit
from tests.vendor_service.http.local_admin import LocalAdmin
from tests.vendor_service.local_vendor import LocalVendor
from vendor_service.accounts.keys import KeyTerms, Scope, issue_key
from vendor_service.acts.act import OperatorScope
from vendor_service.clock import DAY
from vendor_service.database.tables import Account
from vendor_service.http import history_rate
from vendor_service.money.orders import Order

GOAL_MILLISECONDS = 100
RARE = 20
CUSTOMERS = ("", "/usage", "/usage?group=key&from=2025-11-16", "/ledger", "/ledger?key={rare}",
             "/ledger?kind=refund", "/ledger?before=500000", "/invoices", "/invoices/2026-11", "/keys",
             "/models", "/batches", "/events", "/sessions", "/quick-start")  # fmt: skip
OPERATORS = ("", "/health", "/money", "/accounts", "/accounts/{account}", "/models", "/audit")


def main() -> None:
    """Measure, print the table, and fail if a page takes longer than the goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=15, help="how often each page is asked for")
    arguments = parser.parse_args()
    history_rate.BURST = 1e9
    with TemporaryDirectory() as folder, ExitStack() as stack:
        books = stack.enter_context(opened_books(f"sqlite:///{Path(folder) / 'local.db'}"))
        order, rare = _history(books, arguments.entries)
        vendor = stack.enter_context(_vendor(Path(folder), books))
        admin = stack.enter_context(LocalAdmin(books, vendor_url=f"http://127.0.0.1:{vendor.port}"))
        customer, operator = Visit(vendor.http), Visit(admin.http, "/operator")
        customer.sign_in(key=_admin_key(books, order))
        operator.sign_in(token=admin.tokens[OperatorScope.ALL])
        names = {"rare": rare, "name": books.account(order).name}
        print(f"| page, with {arguments.entries:,} entries | ms | ms of the processor | KiB |")
        print("|---|---|---|---|")
        slow = []
        for visit, paths in ((customer, CUSTOMERS), (operator, OPERATORS)):
            for path in paths:
                took, used, size = _asked(partial(visit.page, path.format(**names)), arguments.times)
                print(f"| `{visit.root}{path}` | {took:.0f} | {used:.0f} | {size / 1024:.0f} |", flush=True)
                slow += [visit.root + path] if took > GOAL_MILLISECONDS else []
    if slow:
        sys.exit(f"slower than {GOAL_MILLISECONDS} ms: {', '.join(slow)}")


def _history(books: Books, entries: int) -> tuple[Order, str]:
    """An account with so many entries, and the id of its key that bought little."""
    now = books.clock()
    books.clock.now = now - 365 * DAY
    order = books.open(quota=10**9)
    books.clock.now = now
    write_history(books.database, order.key_id, entries, now)
    with books.locked(order) as (session, account):
        rare = issue_key(session, account, KeyTerms("rare"), books.clock).key_id
    for _ in range(RARE):
        books.buy(replace(order, key_id=rare))
    return order, rare


def _admin_key(books: Books, order: Order) -> str:
    with books.database.write() as session:
        account = session.get_one(Account, order.account_id)
        return issue_key(session, account, KeyTerms(scopes=frozenset({Scope.ADMIN})), books.clock).api_key


@contextmanager
def _vendor(folder: Path, books: Books) -> Iterator[LocalVendor]:
    """A vendor on these books, with their clock."""
    with patch.object(local_vendor, "FakeClock", lambda: books.clock):
        vendor = LocalVendor(folder, batch_store=str(folder / "store"))
    with vendor:
        yield vendor


def _asked(ask: Callable[[], str], times: int) -> tuple[float, float, int]:
    """The median milliseconds of an answer and of the processor for it, and its size."""
    size, took, used = len(ask()), [], []
    for _ in range(times):
        began, worked = time.perf_counter(), time.process_time()
        ask()
        took.append(1000 * (time.perf_counter() - began))
        used.append(1000 * (time.process_time() - worked))
    return median(took), median(used), size


if __name__ == "__main__":
    main()
