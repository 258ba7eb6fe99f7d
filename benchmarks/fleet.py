"""A fleet of vendors, simulated: what it answers of a load that no machine here can make, and how fast.

    make bench-fleet

A discrete-event model (simpy). Front ends take requests, decode images, admit and settle them in transactions
that do the work of several, and have a device of their own for the model; all share one PostgreSQL. What each
step costs is measured first, on one real vendor (fleet_costs.py). Then two real vendors are asked, and the
model is told the same; `--check` stops there. The rest are answers for docs/operations.md: how many front
ends and how many cores of the database a load takes, and what its customers notice when a device fails and
when the database does.

docs/operations.md has what came of it, and how far the check holds.
"""

import argparse
import json
import math
import random
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import accumulate, count
from pathlib import Path
from typing import Any

import numpy as np
import simpy
from markupsafe import Markup

from client.results.charts import Frame, nice_ticks, svg, text

Steps = Generator[simpy.Event, Any, None]

_SLICE = 0.004  # seconds that work holds a core before others get their turn
_SWITCH = 0.005  # seconds that Python's event loop keeps the lock where other threads want it
_GATHER = 0.004  # seconds that a transaction waits for others at most
# Of a transaction, its begin and commit among them. Each waits for Python's lock, and then for the database.
_STATEMENTS = 9
_RETRY = 0.5  # seconds until a client asks again what was refused
_MONTH = 30 * 86_400


@dataclass(frozen=True)
class Costs:
    """What a vendor's steps cost, in seconds of a core where nothing else is said.

    Attributes:
        request: Python's part of a request, in which its lock is held, with what is done for it in the two
            transactions that admit and settle it.
        image: the same of each image in it.
        decode: of an image, in a process of its own.
        transaction: Python's part of one transaction, however much it does.
        books: the database's part of a transaction.
        books_piece: the same of each thing done in it.
        commit: seconds (no core's) that a commit waits for the disk.
        model: of one forward pass, however large.
        model_image: the same of each image in it.
    """

    request: float
    image: float
    decode: float
    transaction: float
    books: float
    books_piece: float
    commit: float
    model: float
    model_image: float


@dataclass(frozen=True)
class Fleet:
    """How many of what there are.

    Attributes:
        front_ends: vendor processes, each with a device.
        cores: of each front end's machine.
        books_cores: of the database's machine.
        largest_batch: images in a forward pass.
        one_machine: whether all of it, models included, shares the cores of one machine, as in the check.
    """

    front_ends: int
    cores: int = 16
    books_cores: int = 8
    largest_batch: int = 32
    one_machine: bool = False


@dataclass(frozen=True)
class Demand:
    """What is asked for.

    Attributes:
        queries_a_second: over all accounts.
        single: the share of the queries that come one by one, as texts that are known; the others come 32
            images a request.
        accounts: of these, the n-th asks 1/n as often as the first (Zipf).
    """

    queries_a_second: float
    single: float = 0.0
    accounts: int = 10_000


@dataclass
class Told:
    """What was seen of a run: (when it came, seconds to its answer) of each request, and who was busy."""

    answered: list[tuple[float, float]] = field(default_factory=list)
    refused: int = 0
    busy: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def percentile(self, share: float, *, since: float = 0.0, until: float = math.inf) -> float:
        """Of the seconds to an answer, for requests that came in this time."""
        seconds = [each for came, each in self.answered if since <= came < until]
        return float(np.percentile(seconds, share)) if seconds else math.nan

    def rate(self, since: float, until: float) -> float:
        """Answers a second."""
        return sum(since <= came + took < until for came, took in self.answered) / (until - since)


class Away(Exception):
    """What was asked cannot answer now: the client asks again."""


class Machine:
    """Some cores, whose time is told under a name."""

    def __init__(self, env: simpy.Environment, cores: int, name: str, told: Told) -> None:
        self._env, self._name, self._told = env, name, told
        self._cores = simpy.Resource(env, cores)

    def work(self, seconds: float, name: str = "") -> Steps:
        """Be worked on for so long, in turns with others."""
        left = seconds
        while left > 1e-9:
            turn = min(left, _SLICE)
            with self._cores.request() as core:
                yield core
                yield self._env.timeout(turn)
            left -= turn
        self._told.busy[name or self._name] += seconds


@dataclass
class Piece:
    """Something that a transaction is to do for an account."""

    account: int
    done: simpy.Event


class Books:
    """The database: its cores, its commits, and the accounts that a transaction has locked."""

    def __init__(self, env: simpy.Environment, costs: Costs, machine: Machine) -> None:
        self.locked: set[int] = set()
        self.changed = env.event()
        self.away = False
        self._env, self._costs, self._machine = env, costs, machine

    def be_away(self, away: bool) -> None:
        """Refuse everything, or no longer."""
        self.away = away

    def transact(self, pieces: Sequence[Piece], python: Callable[[float], Steps]) -> Steps:
        """Do pieces whose accounts are free, statement by statement, and hold these until it is committed.

        `python` does the part of the vendor that has the transaction.
        """
        accounts = {piece.account for piece in pieces}
        self.locked |= accounts
        costs = self._costs
        books = costs.books + costs.books_piece * len(pieces)
        for _ in range(_STATEMENTS):
            yield from python(costs.transaction / _STATEMENTS)
            yield from self._machine.work(books / _STATEMENTS, "books")
        yield self._env.timeout(costs.commit)
        self.locked -= accounts
        self.changed.succeed()
        self.changed = self._env.event()


class FrontEnd:
    """One vendor process: Python behind its lock, decoders, the thread of the books, and a device."""

    def __init__(
        self, env: simpy.Environment, costs: Costs, fleet: Fleet, books: Books, machines: "Machines"
    ) -> None:
        self._env, self._costs, self._fleet, self._books = env, costs, fleet, books
        self.machine, self._device = machines.front_end(), machines.device()
        self._lock = simpy.Resource(env, 1)
        self._calls: deque[tuple[float, simpy.Event]] = deque()  # what the event loop is to do
        self._call_came = env.event()
        self.up = True
        self.in_hand = 0
        self._pieces: deque[Piece] = deque()
        self._apart: dict[int, list[Piece]] = {}  # by account that another front end has locked
        self._images: dict[int, deque[simpy.Event]] = defaultdict(deque)  # by account
        self._work_came, self._piece_came = env.event(), env.event()
        env.process(self._run_loop())
        env.process(self._keep_books())
        env.process(self._run_model())

    def answer(self, account: int, images: int) -> Steps:
        """One request, from its head to its answer.

        Raises:
            Away: it was refused, and not charged.
        """
        costs = self._costs
        self.in_hand += 1
        try:
            yield self._on_loop(0.6 * costs.request + costs.image * images)
            if images:
                yield self._env.all_of([self._env.process(self._decoded()) for _ in range(images)])
            yield from self._in_transaction(account)
            if images:
                yield self._env.all_of(self._queued(account, images))
            yield from self._in_transaction(account)
            yield self._on_loop(0.4 * costs.request)
        finally:
            self.in_hand -= 1
        if not self.up:
            raise Away

    def fail(self) -> None:
        """The device ends, and what waits for it is refused."""
        self.up = False
        for queue in self._images.values():
            while queue:
                queue.popleft().succeed()

    def _on_loop(self, seconds: float) -> simpy.Event:
        """Have the event loop do work; the event is that it is done."""
        done = self._env.event()
        self._calls.append((seconds, done))
        if not self._call_came.triggered:
            self._call_came.succeed()
        return done

    def _run_loop(self) -> Steps:
        """One piece of work after the other. Python's lock is let go when there is none, or others wait."""
        while True:
            if not self._calls:
                self._call_came = self._env.event()
                yield self._call_came
            with self._lock.request() as lock:
                yield lock
                until = self._env.now + _SWITCH
                while self._calls and (self._env.now < until or not self._lock.queue):
                    seconds, done = self._calls.popleft()
                    yield from self.machine.work(seconds, "python")
                    done.succeed()

    def _python(self, seconds: float) -> Steps:
        """What another thread than the event loop's does in Python."""
        with self._lock.request() as lock:
            yield lock
            yield from self.machine.work(seconds, "python")

    def _decoded(self) -> Steps:
        yield from self.machine.work(self._costs.decode, "decoding")

    def _queued(self, account: int, images: int) -> list[simpy.Event]:
        if not self.up:
            raise Away
        waiting = [self._env.event() for _ in range(images)]
        self._images[account].extend(waiting)
        if not self._work_came.triggered:
            self._work_came.succeed()
        return waiting

    def _in_transaction(self, account: int) -> Steps:
        if self._books.away:
            raise Away
        piece = Piece(account, self._env.event())
        self._pieces.append(piece)
        if not self._piece_came.triggered:
            self._piece_came.succeed()
        yield piece.done

    def _keep_books(self) -> Steps:
        """One transaction after the other, each of which waits for as much as others did of late."""
        of_late = 1
        while True:
            if not self._pieces:
                yield self._piece_came
            self._piece_came = self._env.event()
            if of_late > 1:
                until = self._env.timeout(_GATHER)
                while len(self._pieces) < of_late and not until.processed:
                    yield until | self._piece_came
                    self._piece_came = self._env.event()
            waiting = [self._pieces.popleft() for _ in range(min(256, len(self._pieces)))]
            free = [piece for piece in waiting if piece.account not in self._books.locked]
            for piece in waiting:
                if piece.account in self._books.locked:
                    self._put_apart(piece)
            of_late = max(len(waiting), of_late - 1) if len(waiting) > 1 else 1
            if free:
                yield from self._commit(free)

    def _put_apart(self, piece: Piece) -> None:
        if piece.account in self._apart:
            self._apart[piece.account].append(piece)
        else:
            self._apart[piece.account] = [piece]
            self._env.process(self._work_off(piece.account))

    def _work_off(self, account: int) -> Steps:
        """Do what waits for an account that is locked, once that lets go."""
        while self._apart[account]:
            while account in self._books.locked:
                yield self._books.changed
            pieces, self._apart[account] = self._apart[account], []
            yield from self._commit(pieces)
        del self._apart[account]

    def _commit(self, pieces: Sequence[Piece]) -> Steps:
        yield from self._books.transact(pieces, self._python)
        for piece in pieces:
            piece.done.succeed()

    def _run_model(self) -> Steps:
        """One pass after the other, filled from the accounts in turn."""
        while self.up:
            batch: list[simpy.Event] = []
            while len(batch) < self._fleet.largest_batch:
                asking = [queue for queue in self._images.values() if queue]
                if not asking:
                    break
                batch += [queue.popleft() for queue in asking[: self._fleet.largest_batch - len(batch)]]
            if not batch:
                self._work_came = self._env.event()
                yield self._work_came
                continue
            costs = self._costs
            yield from self._device.work(costs.model + costs.model_image * len(batch), "model")
            for each in batch:
                each.succeed()
            self._images = defaultdict(deque, {name: q for name, q in self._images.items() if q})


class Machines:
    """Which cores each part of a fleet works on."""

    def __init__(self, env: simpy.Environment, fleet: Fleet, told: Told) -> None:
        self._env, self._fleet, self._told = env, fleet, told
        self._shared = Machine(env, fleet.cores, "all", told) if fleet.one_machine else None

    def front_end(self) -> Machine:
        """Of a front end."""
        return self._shared or Machine(self._env, self._fleet.cores, "front end", self._told)

    def device(self) -> Machine:
        """Of a front end's model."""
        return self._shared or Machine(self._env, 1, "model", self._told)

    def books(self) -> Machine:
        """Of the database."""
        return self._shared or Machine(self._env, self._fleet.books_cores, "books", self._told)


class Simulation:
    """A fleet and its customers."""

    def __init__(self, costs: Costs, fleet: Fleet, seed: int = 0) -> None:
        self.env, self.told = simpy.Environment(), Told()
        self._random = random.Random(seed)
        machines = Machines(self.env, fleet, self.told)
        self.books = Books(self.env, costs, machines.books())
        self.front_ends = [
            FrontEnd(self.env, costs, fleet, self.books, machines) for _ in range(fleet.front_ends)
        ]

    def ask(self, demand: Demand, seconds: float) -> "Simulation":
        """Have requests come as they come (Poisson) for so long, and see what becomes of them."""
        weights = list(accumulate(1 / (n + 1) for n in range(demand.accounts)))
        for images, share in ((0, demand.single), (32, 1 - demand.single)):
            rate = demand.queries_a_second * share / max(1, images)
            if rate:
                self.env.process(self._arrivals(rate, images, weights, seconds))
        return self

    def ask_in_turn(self, connections: int, images: int, *, accounts: int, caller: float) -> "Simulation":
        """Have so many connections ask without end for accounts in turn, each when it was answered.

        A request costs the `caller` so many seconds, of the machine that all share.
        """
        for number in range(connections):
            self.env.process(self._connection(number, images, accounts, caller))
        return self

    def run(self, seconds: float) -> Told:
        """What was seen in so many seconds."""
        self.env.run(until=seconds)
        return self.told

    def at(self, moment: float, act: Callable[[], None]) -> "Simulation":
        """Have something happen."""

        def happen() -> Steps:
            yield self.env.timeout(moment)
            act()

        self.env.process(happen())
        return self

    def _arrivals(self, rate: float, images: int, weights: Sequence[float], seconds: float) -> Steps:
        while self.env.now < seconds:
            yield self.env.timeout(self._random.expovariate(rate))
            (account,) = self._random.choices(range(len(weights)), cum_weights=weights)
            self.env.process(self._customer(account, images))

    def _customer(self, account: int, images: int) -> Steps:
        """Ask the front end that has least in hand, and again until there is an answer."""
        came = self.env.now
        while True:
            up = [each for each in self.front_ends if each.up]
            if up:
                try:
                    yield from min(up, key=lambda each: each.in_hand).answer(account, images)
                    break
                except Away:
                    self.told.refused += 1
            yield self.env.timeout(_RETRY)
        self.told.answered.append((came, self.env.now - came))

    def _connection(self, number: int, images: int, accounts: int, caller: float) -> Steps:
        turn, place = divmod(number, len(self.front_ends))
        front_end = self.front_ends[place]
        for account in count(turn + place * accounts // len(self.front_ends)):
            came = self.env.now
            yield from front_end.machine.work(caller, "caller")
            yield from front_end.answer(account % accounts, images)
            self.told.answered.append((came, self.env.now - came))


# -- answers


def main() -> None:
    """Measure what it costs, check the model, and print the answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--costs", type=Path, help="measured before, as --save wrote them")
    parser.add_argument("--save", type=Path, help="write the costs that were measured here")
    parser.add_argument("--check", action="store_true", help="measure and check, and give no answers")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement with texts")
    parser.add_argument("--turns", type=int, default=3, help="of all measurements, in a round")
    parser.add_argument("--rounds", type=int, default=6, help="of measuring and checking")
    parser.add_argument("--device-rate", type=float, default=1000.0, help="images a second of a device")
    parser.add_argument("--plot", type=Path, help="draw what a failure does to the answers, as SVG")
    arguments = parser.parse_args()
    if arguments.costs is None:
        from benchmarks.fleet_costs import measure_and_check

        costs = measure_and_check(arguments.seconds, arguments.turns, arguments.rounds)
        if arguments.save is not None:
            arguments.save.write_text(json.dumps(asdict(costs), indent=2) + "\n")
    else:
        costs = Costs(**json.loads(arguments.costs.read_text()))
    if not arguments.check:
        on_devices = replace(costs, model=0.002, model_image=1 / arguments.device_rate - 0.002 / 32)
        print_sizes(on_devices)
        failures = during_failures(on_devices)
        if arguments.plot is not None:
            arguments.plot.write_text(plot(failures), encoding="utf-8")


QUERIES_A_MONTH = 1e9
PEAK = 4.0  # times the average
_TARGET = 1.0  # seconds, of the 99th percentile
_WARM, _LONG = 10.0, 40.0


def print_sizes(costs: Costs) -> None:
    """The smallest fleets that answer a billion queries a month within the target at the peak."""
    print("| one by one | requests/s at the peak | front ends | cores of the database | p50 s | p99 s |")
    print("|---|---|---|---|---|---|")
    for single in (0.0, 0.1, 0.5, 1.0):
        demand = Demand(PEAK * QUERIES_A_MONTH / _MONTH, single)
        fleet, told = smallest(costs, demand)
        rate = demand.queries_a_second * (single + (1 - single) / 32)
        cells = f"{told.percentile(50, since=_WARM):.2f} | {told.percentile(99, since=_WARM):.2f}"
        print(
            f"| {100 * single:.0f}% | {rate:.0f} | {fleet.front_ends} | {fleet.books_cores} | {cells} |",
            flush=True,
        )


def smallest(costs: Costs, demand: Demand) -> tuple[Fleet, Told]:
    """The fewest front ends with many cores of the database, and then the fewest of these."""
    singles, images = demand.queries_a_second * demand.single, demand.queries_a_second * (1 - demand.single)
    python = costs.request * (singles + images / 32) + costs.image * images
    fleet = Fleet(max(1, math.ceil(max(python, costs.model_image * images))), books_cores=64)
    while not _suffices(told := seen(costs, fleet, demand)):
        fleet = replace(fleet, front_ends=fleet.front_ends + 1)
    for cores in (1, 2, 4, 8, 16, 32):
        smaller = replace(fleet, books_cores=cores)
        if _suffices(found := seen(costs, smaller, demand)):
            return smaller, found
    return fleet, told


def seen(costs: Costs, fleet: Fleet, demand: Demand, seconds: float = _LONG) -> Told:
    """What is seen of a fleet at this demand."""
    return Simulation(costs, fleet).ask(demand, seconds).run(seconds)


def _suffices(told: Told) -> bool:
    """Whether the target is met, and the later answers do not wait longer than the earlier ones."""
    middle = (_WARM + _LONG) / 2
    p99 = [told.percentile(99, since=a, until=b) for a, b in ((_WARM, middle), (middle, _LONG - _TARGET))]
    return max(p99) <= _TARGET and p99[1] <= 1.5 * p99[0] + 0.05


def during_failures(costs: Costs) -> dict[str, Told]:
    """What customers notice of a device that fails, and of a database that is away for half a minute."""
    demand = Demand(PEAK * QUERIES_A_MONTH / _MONTH, 0.1)
    fleet, _ = smallest(costs, demand)
    fleet = replace(fleet, front_ends=fleet.front_ends + 1, books_cores=2 * fleet.books_cores)
    found: dict[str, Told] = {}
    print("\n| what fails | p99 s before | while it does | a minute later | asked again |")
    print("|---|---|---|---|---|")
    for name, until in (("one device, for good", 120.0), ("the database, for 30 s", 90.0)):
        simulation = Simulation(costs, fleet).ask(demand, 180)
        if name.startswith("one"):
            simulation.at(60, simulation.front_ends[0].fail)
        else:
            simulation.at(60, partial(simulation.books.be_away, True))
            simulation.at(90, partial(simulation.books.be_away, False))
        told = found[name] = simulation.run(180)
        spans = ((10.0, 60.0), (60.0, until), (150.0, 175.0))
        cells = " | ".join(f"{told.percentile(99, since=a, until=b):.2f}" for a, b in spans)
        print(f"| {name} | {cells} | {told.refused} |", flush=True)
    return found


_STYLE = """
svg { fill: #444 } text { font: 11px system-ui, sans-serif; stroke: none }
.rule { stroke: #ddd } polyline { fill: none; stroke-width: 2 }
"""
_COLOURS = ("#1b6ca8", "#c8553d")


def plot(failures: dict[str, Told]) -> str:
    """The 99th percentile of the answers to what came in each five seconds."""
    lines = {
        name: [(s, told.percentile(99, since=s, until=s + 5)) for s in range(10, 175, 5)]
        for name, told in failures.items()
    }
    ticks = nice_ticks(0, max(value for line in lines.values() for _, value in line))
    frame = Frame(46, 12, 470, 200, (10, 175), (0, ticks[-1]))
    style = Markup(_STYLE)  # noqa: S704 (ours)
    drawn = Markup('<style>{}</style><rect width="600" height="256" fill="#fff"/>').format(style)
    drawn += frame.horizontals(ticks, " s")
    for seconds in (60, 90, 120, 150):
        drawn += text(frame.at(seconds, 0)[0], 228, f"{seconds} s", "middle")
    drawn += text(281, 246, "when it was asked; 99th percentile of the seconds to an answer", "middle")
    for (name, line), colour in zip(lines.items(), _COLOURS, strict=True):
        across, down = frame.at(*max(line, key=lambda point: point[1]))
        named = text(across - 8, down - 8, name, "end") if across > 300 else text(across + 8, down + 10, name)
        drawn += Markup('<g stroke="{0}" fill="{0}">{1}{2}</g>').format(
            colour, frame.line(line, "p99"), named
        )
    drawing = svg(600, 256, "What a failure does to the answers", drawn)
    return str(drawing).replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)


if __name__ == "__main__":
    main()
