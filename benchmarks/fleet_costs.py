"""What a vendor's steps cost, measured on a real one; and whether fleet.py foretells what two of them do.

The vendors sell the bundled model, with books on a PostgreSQL that does not wait for the disk. Each request
has an idempotency key, as those of our client have, so its price is held first and charged later. They, the
database and the callers share the cores of this machine. Texts are known ones, so that no model runs for
them. A machine that others share is faster in one second than in the next, so what costs are told from and
what they are checked against is asked for in short turns, one thing after the other. A round is some turns,
and what is printed are medians over rounds.
"""

import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import httpx
import numpy as np
import psycopg
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import load
from benchmarks.customers import icons
from benchmarks.fleet import Costs, Fleet, Simulation
from tests.support.postgres import Postgres, started_postgres
from tests.support.vendor_process import VendorProcess

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_KEYS = 64
_IMAGES = 32


@dataclass(frozen=True)
class Measured:
    """What one load took, a request; seconds are of processor time where nothing else is said.

    Attributes:
        rate: requests a second.
        p50: seconds from a request to its answer.
        vendor: of the vendor's own process.
        decoding: of the processes that decode for it.
        books: of the database.
        caller: of the load itself.
        writes: transactions that hold or charge something.
        passes: forward passes of the model.
        model: seconds that they took.
    """

    rate: float
    p50: float
    vendor: float
    decoding: float
    books: float
    caller: float
    writes: float
    passes: float
    model: float


class Site:
    """Real vendors on one database, and what their processes have used."""

    def __init__(self, stack: ExitStack, vendors: int) -> None:
        self._postgres: Postgres = stack.enter_context(started_postgres())
        self._url = self._postgres.create_database()
        self._folder = Path(stack.enter_context(TemporaryDirectory()))
        self.vendors = [stack.enter_context(self._vendor(number)) for number in range(vendors)]
        keys = [self.vendors[0].create_key(queries_per_second=10**6, quota=10**12) for _ in range(_KEYS)]
        self.texts = [load.embed(key, *_json([{"text": "a photo of a cat"}])) for key in keys]
        drawings = icons(_IMAGES)
        self.image = [load.embed(key, *load.form(drawings[:1])) for key in keys]
        self.images = [load.embed(key, *load.form(drawings)) for key in keys]

    def _vendor(self, number: int) -> VendorProcess:
        folder = self._folder / str(number)
        folder.mkdir()
        return VendorProcess(folder, "--migrate", "--device", "cpu", database_url=self._url)

    def traffic_to_measure(self) -> "list[Traffic]":
        """What costs are told from."""
        texts = [Traffic(self, self.texts, connections) for connections in (1, 4, 16)]
        # Images one request at a time, so that nothing holds up a pass of the model; and as many as keep all
        # cores busy, which then take longer for the same.
        images = ((self.image, 1), (self.images, 1), (self.images, 4))
        return texts + [Traffic(self, requests, connections) for requests, connections in images]

    def ask(self, requests: Sequence[bytes], connections: int, seconds: float) -> Measured:
        """Ask all vendors at once, each over so many connections, and for accounts of its own at a time."""

        def run(place: int) -> load.Load:
            first = place * len(requests) // len(self.vendors)
            port = int(self.vendors[place].url.rpartition(":")[2])
            return load.run(
                port, [*requests[first:], *requests[:first]], connections, seconds, with_keys=True
            )

        before, began = self._used(), time.process_time()
        with ThreadPoolExecutor() as pool:
            loads = list(pool.map(run, range(len(self.vendors))))
        rate = sum(each.answers_a_second for each in loads)
        after = self._used()
        answered = after["requests"] - before["requests"]
        used = {name: (after[name] - before[name]) / answered for name in after}
        return Measured(
            rate,
            float(np.median([each.p50 for each in loads])),
            used["vendor"],
            used["decoding"],
            used["books"],
            (time.process_time() - began) / answered,
            used["writes"],
            used["passes"],
            used["model"],
        )

    def _used(self) -> dict[str, float]:
        with psycopg.connect(self._url) as connection:
            # Only a transaction that writes, or locks a row, takes one of these numbers.
            found = connection.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text").fetchone()
        assert found is not None
        told = [self._told(vendor) for vendor in self.vendors]
        return {
            "writes": float(found[0]),
            "vendor": sum(_processor(vendor.pid) for vendor in self.vendors),
            "decoding": sum(sum(map(_processor, _below(vendor.pid))) for vendor in self.vendors),
            "books": _of_postgres(),
            **{name: sum(each[name] for each in told) for name in told[0]},
        }

    def _told(self, vendor: VendorProcess) -> dict[str, float]:
        sums = {"requests": 0.0, "passes": 0.0, "model": 0.0}
        for family in text_string_to_metric_families(httpx.get(f"{vendor.url}/metrics").text):
            for sample in family.samples:
                if sample.name == "tuition_requests_total" and sample.labels["route"] == "/embed":
                    sums["requests"] += sample.value
                elif sample.name == "tuition_model_seconds_count":
                    sums["passes"] += sample.value
                elif sample.name == "tuition_model_seconds_sum":
                    sums["model"] += sample.value
        return sums


@dataclass(frozen=True)
class Traffic:
    """What the vendors of a site are asked, each over so many connections."""

    site: Site
    requests: Sequence[bytes]
    connections: int

    def ask(self, seconds: float) -> Measured:
        """Ask for so long if it is for texts; images are answered ten times more slowly."""
        lasting = seconds if self.requests is self.site.texts else 5 * seconds
        return self.site.ask(self.requests, self.connections, lasting)


def measure_and_check(seconds: float, turns: int, rounds: int) -> Costs:
    """The costs of one vendor, and a table of what two do and what the model says of them."""
    measured, found = [], []
    with ExitStack() as stack:
        one, two = Site(stack, 1), Site(stack, 2)
        for site in (one, two):  # and now the texts are known
            site.ask(site.texts, 4, 5 * seconds)
            site.ask(site.images, 2, 5 * seconds)
        told_from = one.traffic_to_measure()
        checks = {
            "1 text over 4 connections": Traffic(two, two.texts, 4),
            "1 text over 8": Traffic(two, two.texts, 8),
            "32 images over 2": Traffic(two, two.images, 2),
            "32 images over 8": Traffic(two, two.images, 8),
        }
        for _ in range(rounds):
            taken = _in_turns([*told_from, *checks.values()], seconds, turns)
            measured.append(costs_of(taken[: len(told_from)]))
            found.append([each.rate for each in taken[len(told_from) :]])
    print("| asked of each of two vendors | measured, requests/s | simulated | ratio |\n|---|---|---|---|")
    for (name, check), rates in zip(checks.items(), zip(*found, strict=True), strict=True):
        images = _IMAGES if check.requests is two.images else 0
        told = [foretold(costs, caller, images, check.connections) for costs, caller in measured]
        ratios = sorted(simulated / real for simulated, real in zip(told, rates, strict=True))
        spread = f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"| {name} | {median(rates):.1f} | {median(told):.1f} | {spread} |", flush=True)
    names = [each.name for each in fields(Costs)]
    costs = Costs(**{name: median(getattr(each, name) for each, _ in measured) for name in names})
    print(f"\ncosts, in seconds: {costs}\n", flush=True)
    return costs


def foretold(costs: Costs, caller: float, images: int, connections: int) -> float:
    """Requests a second that the model says two vendors answer, each over so many connections."""
    fleet = Fleet(2, cores=os.cpu_count() or 1, one_machine=True)
    simulation = Simulation(costs, fleet)
    told = simulation.ask_in_turn(2 * connections, images, accounts=_KEYS, caller=caller).run(12)
    return told.rate(2, 12)


def _in_turns(all_traffic: Sequence[Traffic], seconds: float, turns: int) -> list[Measured]:
    """What each took over all turns: of the rate the mean, of the rest that of a request."""
    taken = [[traffic.ask(seconds) for traffic in all_traffic] for _ in range(turns)]
    together = []
    for parts in zip(*taken, strict=True):
        rates = [part.rate for part in parts]
        means = {
            each.name: float(np.average([getattr(part, each.name) for part in parts], weights=rates))
            for each in fields(Measured)
        }
        together.append(Measured(**{**means, "rate": float(np.mean(rates))}))
    return together


def costs_of(measured: Sequence[Measured]) -> tuple[Costs, float]:
    """What the steps of one vendor cost, by its `traffic_to_measure`; and a caller, a request."""
    *texts, one, many, busy = measured
    strain = max(1.0, (busy.vendor + busy.decoding) / (many.vendor + many.decoding))
    shape = np.array([[1.0, each.writes] for each in texts])
    python, *_ = np.linalg.lstsq(shape, np.array([each.vendor for each in texts]), rcond=None)
    books, *_ = np.linalg.lstsq(shape, np.array([each.books for each in texts]), rcond=None)
    python, books = np.maximum(python, 0), np.maximum(books, 0)
    alone = texts[0]
    spent = alone.vendor + alone.decoding + alone.books + alone.caller
    image = (many.vendor - many.model - python[0] - python[1] * many.writes) / _IMAGES
    model_image = (many.model / many.passes - one.model / one.passes) / (_IMAGES / many.passes - 1)
    return (
        Costs(
            request=float(python[0]),
            image=strain * float(max(0.0, image)),
            decode=strain * many.decoding / _IMAGES,
            transaction=float(python[1]),
            books=float(books[1]),
            books_piece=float(books[0]) / 2,
            commit=max(0.0, (alone.p50 - spent) / 2),
            model=strain * (one.model / one.passes - model_image),
            model_image=strain * model_image,
        ),
        float(np.mean([each.caller for each in texts])),
    )


def _json(inputs: list[dict[str, str]]) -> tuple[bytes, str]:
    return json.dumps({"inputs": inputs}).encode(), "application/json"


def _processor(pid: int) -> float:
    """Seconds that a process has used, with those of its children that have ended; 0 if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) * _TICK


def _below(pid: int) -> list[int]:
    """The processes below one."""
    try:
        children = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [*children, *(deeper for child in children for deeper in _below(child))]


def _of_postgres() -> float:
    """Of all processes of the database; another that runs meanwhile would be counted as well."""
    names = Path("/proc").glob("[0-9]*/comm")
    return sum(_processor(int(each.parent.name)) for each in names if _name(each) == "postgres")


def _name(comm: Path) -> str:
    try:
        return comm.read_text().strip()
    except OSError:
        return ""
