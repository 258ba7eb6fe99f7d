"""What charging costs: requests a second with billing on (SQLite, PostgreSQL) and off, and bytes of books.

    make bench-money

Three vendors stand side by side and are asked in turn, over loopback, so that what else the machine does
hits all of them alike. Billing off means that nothing is admitted, held, settled, voided or signed; keys are
still checked. Texts meet an encoder that answers at once, images the bundled model.

With `--entries 10000000` texts are asked for on books with so many charges instead, beside books with a
thousand. On SQLite 10,000,000 take 7.8 GB and twenty minutes to write; on PostgreSQL 200,000 take 0.19 GB.
"""

import argparse
import base64
import json
import multiprocessing
import os
import secrets
import socket
import threading
import time
import zipfile
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Literal, TypeVar

import numpy as np
from sqlalchemy import func, select

from benchmarks.load import keyed, request
from client.data.bundled_set import ICONS
from shared.embeddings import Kind
from shared.kinds import Counts
from tests.support.long_history import write_history
from tests.support.postgres import started_postgres
from tests.vendor_service.books import opened_books
from vendor_service.accounts.accounts import Terms, open_account
from vendor_service.accounts.keys import KeyTerms, issue_key
from vendor_service.clock import system_clock
from vendor_service.database import schema
from vendor_service.database.session import Database
from vendor_service.money.admission import Admission
from vendor_service.money.orders import Admitted, Charged, Order

DIMENSIONS = 256  # of the bundled model
CHARGES = 20_000  # of which the size is told
DATABASES = ("SQLite", "PostgreSQL")
PROCESSES: SpawnContext | ForkServerContext = multiprocessing.get_context("spawn")
Value = TypeVar("Value")
BooksKept = Literal["off", "unsigned", "signed"]


class NoAdmission(Admission):
    """Lets everything through, free of charge, without a look at the database."""

    def admit(self, order: Order) -> "Future[Admitted]":
        """Admit at no cost."""
        return _done(Admitted(order.request_id, order.counts, 0, False, None, None))

    def sell(self, order: Order, buckets: Collection[int] = ()) -> "Future[Admitted]":
        """Charge nothing."""
        charged = Charged(0, "", 0, "", 0)
        return _done(Admitted(order.request_id, order.counts, 0, False, None, None, charged))

    def settle(
        self,
        account_id: str,
        request_id: str,
        buckets: Collection[int] = (),
        answered: Counts | None = None,
    ) -> "Future[Charged]":
        """Charge nothing."""
        return _done(Charged(0, "", 0, "", 0))

    def void(self, account_id: str, request_id: str) -> "Future[bool]":
        """Release nothing."""
        return _done(False)


def _done(value: Value) -> "Future[Value]":
    future: Future[Value] = Future()
    future.set_result(value)
    return future


def main() -> None:
    """Measure, and print the table of docs/results.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement of texts")
    parser.add_argument("--entries", type=int, help="charges in the books, beside books with a thousand")
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=DATABASES, help="for --entries")
    arguments = parser.parse_args()
    if arguments.entries is None:
        print_costs(arguments.rounds, arguments.seconds)
    else:
        print("| books | charges in them | GB | texts a second | of those with a thousand |")
        print("|---|---|---|---|---|")
        for database in arguments.databases:
            print_by_history(database, arguments.entries, arguments.rounds, arguments.seconds)


def print_costs(rounds: int, seconds: float) -> None:
    """What billing costs, and what it keeps."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        postgres = stack.enter_context(started_postgres())
        vendors = {
            "off": stack.enter_context(served(f"sqlite:///{folder / 'off.db'}", "off")),
            "SQLite": stack.enter_context(served(f"sqlite:///{folder / 'on.db'}")),
            "PostgreSQL": stack.enter_context(served(postgres.create_database())),
        }
        print("| request | at a time | billing | requests a second | of those without billing |")
        print("|---|---|---|---|---|")
        # Images are answered seventy times more slowly: a count as good takes longer.
        requests = (
            ("1 text", text(), 16, seconds),
            ("32 images", images(32), 4, 3 * seconds),
        )
        for name, inputs, callers, lasting in requests:
            rates: dict[str, list[float]] = {billing: [] for billing in vendors}
            for _ in range(rounds):
                for billing, vendor in vendors.items():
                    rates[billing].append(throughput(vendor, inputs, callers, lasting))
            for billing, measured in rates.items():
                ratio = median(on / off for on, off in zip(measured, rates["off"], strict=True))
                print(
                    f"| {name} | {callers} | {billing} | {median(measured):.1f} | {ratio:.2f} |", flush=True
                )
        size = bytes_a_charge(folder / "size.db", CHARGES)
        print(f"a charge and its hold: {size:.0f} bytes in SQLite, of {CHARGES} with an idempotency key each")


def print_by_history(database: str, entries: int, rounds: int, seconds: float) -> None:
    """What texts are charged at by how long the account's history is."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        postgres = stack.enter_context(started_postgres()) if database == "PostgreSQL" else None
        vendors, sizes = {}, {}
        for number in (1_000, entries):
            file = folder / f"{number}.db"
            url = f"sqlite:///{file}" if postgres is None else postgres.create_database()
            vendors[number] = stack.enter_context(served(url, entries=number))
            sizes[number] = file.stat().st_size if postgres is None else database_bytes(url)
        os.sync()  # what was written is not to be written while anything is measured
        rates: dict[int, list[float]] = {number: [] for number in vendors}
        for _ in range(rounds):
            for number, vendor in vendors.items():
                rates[number].append(throughput(vendor, text(), 16, seconds, with_keys=True))
        for number, measured in rates.items():
            ratio = median(long / short for long, short in zip(measured, rates[1_000], strict=True))
            cells = f"{sizes[number] / 1e9:.2f} | {median(measured):.1f} | {ratio:.2f}"
            print(f"| {database} | {number:,} | {cells} |", flush=True)


def database_bytes(url: str) -> int:
    """How large a database of PostgreSQL is."""
    with closing(Database(url)) as database, database.read() as session:
        return int(session.scalar(select(func.pg_database_size(func.current_database()))) or 0)


def bytes_a_charge(file: Path, charges: int) -> float:
    """The size of SQLite's books for each charge in them, its hold and an idempotency key of our client's."""
    with opened_books(f"sqlite:///{file}") as books:
        order = replace(books.open(), model_fingerprint=f"fp_{secrets.token_hex(16)}")
        orders = [
            replace(
                order,
                request_id=f"req_{secrets.token_hex(16)}",
                idempotency_key=secrets.token_hex(32),
                body_hash=secrets.token_hex(32),
            )
            for _ in range(charges)
        ]
        for admitting in [books.admission.admit(each) for each in orders]:
            admitting.result()
        for settling in [books.admission.settle(each.account_id, each.request_id) for each in orders]:
            settling.result()
    return file.stat().st_size / charges


@dataclass(frozen=True)
class Served:
    """A vendor in a process of its own, and a key of an account with every kind of limit."""

    port: int
    key: str
    pid: int


@contextmanager
def served(
    database_url: str,
    books: BooksKept = "signed",
    *,
    account: str = "bench",
    sketches: bool = True,
    entries: int = 0,
) -> Iterator[Served]:
    """A vendor whose answers are charged and signed, only charged, or neither; with or without sketches.

    The key is of a new `account`, for which so many `entries` are in the books already.
    """
    with closing(Database(database_url)) as database:
        schema.upgrade(database)
        with database.write() as session:
            much = 10**12
            terms = Terms(much, "month", much, much, 10**6)
            key = issue_key(
                session, open_account(session, account, terms, system_clock), KeyTerms(), system_clock
            )
        if entries:
            write_history(database, key.key_id, entries, system_clock())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    process = PROCESSES.Process(target=_serve, args=(database_url, port, books, sketches))
    process.start()
    try:
        _wait(port)
        assert process.pid is not None
        yield Served(port, key.api_key, process.pid)
    finally:
        process.terminate()
        process.join()


def throughput(
    vendor: Served,
    inputs: Sequence[dict[str, str]],
    callers: int,
    seconds: float,
    *,
    with_keys: bool = False,
) -> float:
    """Requests a second of callers that each keep one connection and one request open.

    They may come `with_keys`: each has a random idempotency key.
    """
    body = json.dumps({"inputs": inputs, "encoding": "base64"}).encode()
    asked = request("/embed", body, authorization=f"Bearer {vendor.key}", content_type="application/json")
    over = threading.Event()

    def call(_: int) -> int:
        answered = 0
        with (
            socket.create_connection(("127.0.0.1", vendor.port)) as connection,
            connection.makefile("rb") as answers,
        ):
            while not over.is_set():
                connection.sendall(keyed(asked) if with_keys else asked)
                status = answers.readline()
                assert b" 200 " in status, status
                length = 0
                while (line := answers.readline().lower()) not in (b"\r\n", b""):
                    if line.startswith(b"content-length:"):
                        length = int(line.partition(b":")[2])
                answers.read(length)
                answered += 1
        return answered

    with ThreadPoolExecutor(callers) as pool:
        began = time.perf_counter()
        counts = pool.map(call, range(callers))
        time.sleep(seconds)
        over.set()
        return sum(counts) / (time.perf_counter() - began)


def _serve(database_url: str, port: int, books: BooksKept, sketches: bool) -> None:
    import torch

    import vendor_service.embed.sales
    import vendor_service.run.app
    import vendor_service.run.vendor
    from shared.http import server
    from vendor_service.encoder.queries import Vectors
    from vendor_service.encoder.replica import Replica, Staged
    from vendor_service.run.settings import Settings

    encode = Replica.encode

    def encode_texts_at_once(replica: Replica, kind: Kind, staged: Staged) -> Vectors:
        if kind == "image":
            return encode(replica, kind, staged)
        return np.full((staged.queries, DIMENSIONS), DIMENSIONS**-0.5, dtype=np.float32)

    torch.set_num_threads(1)
    patches: list[tuple[object, str, object]] = [(Replica, "encode", encode_texts_at_once)]
    if books == "off":
        patches.append((vendor_service.run.vendor, "Admission", NoAdmission))
    if books != "signed":
        patches.append((vendor_service.embed.sales, "what_was_sold", lambda *_: []))
        patches.append((vendor_service.embed.sales, "receipt", lambda *_: "none"))
    for target, name, replacement in patches:
        setattr(target, name, replacement)
    settings = Settings(database_url=database_url, port=port, text_cache_bytes=0, sketches=sketches)
    application = vendor_service.run.app.create_app(settings)
    server.serve(application, server.bind(settings.host, port), lambda: None)


def _wait(port: int) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError("a vendor did not start")


def text() -> list[dict[str, str]]:
    """The inputs of a request for one text."""
    return [{"text": "a photo of a cat"}]


def images(count: int) -> list[dict[str, str]]:
    """The inputs of a request for so many bundled icons."""
    with zipfile.ZipFile(ICONS) as archive:
        names = [name for name in archive.namelist() if name.endswith(".png")][:count]
        return [{"image": base64.b64encode(archive.read(name)).decode()} for name in names]


if __name__ == "__main__":
    main()
