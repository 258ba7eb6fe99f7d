"""Every promise of docs/security.md, the attacks that test it, and how near they came to its limit.

    make bench-attacks

Three sorts of attacks are tried: the tests that tests/surface/promises.toml names of each promise; those of
benchmarks/attacks.py, which another customer must hardly notice, on fresh vendors with SQLite and PostgreSQL;
and those of benchmarks/probes.py, on a vendor that runs. The latter break nothing, so they can be tried on a
vendor of one's own:

    python -m benchmarks.scoreboard --url https://vendor.example --key-file KEY --other-key-file KEY

Each file has the key of one account, with all scopes. This buys at most as many queries as it says at its
beginning. It exits with 1 if a promise was broken, or if one was not tried although everything was.
"""

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import results_page, student_neighbours
from benchmarks.attacks import ATTACKS
from benchmarks.evidence import PAGE, Evidence, Promise, found_by_attackers, promises, run_tests
from benchmarks.neighbours import Comparison, Outcome
from benchmarks.probes import PROBES, Deployment, NotOffered, Probe
from benchmarks.score import (
    DATABASES,
    Row,
    Score,
    as_json,
    found_table,
    neighbour_table,
    probe_table,
    promise_table,
    scores,
    tested,
)
from tests.support.figures import Figure
from tests.support.vendor_process import VendorProcess
from vendor_service.accounts.keys import Scope

NEIGHBOURS = "Beside each of"
STUDENT = "Beside hostile images"
_QUICK = ("giant_bodies", "heavy_chunks", "endless_accepts", "free_reads")


def probed(deployment: Deployment, chosen: Iterable[Probe], stated: Sequence[Promise]) -> Iterator[Row]:
    """A row of each attack on a vendor that runs."""
    for probe in chosen:
        began = time.monotonic()
        promise = the_one(probe.promise, stated).text
        try:
            figure = probe.try_on(deployment)
        except NotOffered as error:
            yield Row(probe.name, promise, told=str(error))
            continue
        broken = int(figure.value > figure.limit)
        yield Row(probe.name, promise, 1, broken, time.monotonic() - began, (figure,), probe.what)


def the_one(start: str, stated: Sequence[Promise]) -> Promise:
    """The promise that begins so.

    Raises:
        LookupError: there is none, or there are several.
    """
    found = [promise for promise in stated if promise.text.startswith(start)]
    if len(found) != 1:
        raise LookupError(f"{len(found)} promises of {PAGE} begin with {start!r}")
    return found[0]


def beside(outcome: Outcome, yardstick: Outcome, database: str, promise: str, seconds: float) -> Row:
    """The row of an attack beside which a good customer asked."""
    figure = Figure(outcome.ratio(yardstick), outcome.BOUND, "times")
    told = f"{outcome.attack.what}; it got {outcome.result}; {outcome.charged.queries} queries were charged; "
    told += f"the vendor grew by {outcome.grown / 1e6:.0f} MB, /livez took {outcome.livez:.2f} s"
    if outcome.waits.refused:
        told += f"; the good customer was refused: {dict(outcome.waits.refused)}"
    name = f"{outcome.attack.name} ({database})"
    return Row(name, promise, 1, int(not outcome.passes(yardstick)), seconds, (figure,), told)


@contextmanager
def local_vendor() -> Iterator[Deployment]:
    """A fresh vendor with bulk jobs and two customers."""
    with TemporaryDirectory() as folder:
        store = ("--batch-store", str(Path(folder) / "store"))
        with VendorProcess(Path(folder), *store) as vendor:
            keys = [vendor.create_key(scopes=frozenset(Scope)) for _ in range(2)]
            yield Deployment(vendor.url, *keys)


class Board:
    """What is chosen, and the rows that come of it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.stated = promises()
        self.results: dict[str, Evidence] = {}

    def chosen(self, *words: str) -> bool:
        """Whether an attack with these names is asked for."""
        return not self.options.only or any(name in word for name in self.options.only for word in words)

    def test_ids(self) -> set[str]:
        """The tests to run: what is named, and what tests a promise that is."""
        named = [(promise.text, test) for promise in self.stated for test in promise.tests]
        named += [(name, test) for name, tests in found_by_attackers().items() for test in tests]
        return {test for text, test in named if "::" in test and self.chosen(test, text)}

    def rows(self) -> Iterator[Row]:
        """Attack, in all ways that are asked for."""
        yield from self._probes()
        if self.options.url is None:
            yield from self._tests()
            yield from self._neighbours()
            yield from self._student()

    def _probes(self) -> Iterator[Row]:
        chosen = [
            each
            for each in PROBES.values()
            if self.chosen(each.name, the_one(each.promise, self.stated).text)
        ]
        if not chosen:
            return
        if self.options.url:
            say(f"This buys at most {sum(each.queries for each in chosen)} queries.")
            key, other = self.options.key_file, self.options.other_key_file
            read = [file.read_text().strip() for file in (key, other) if file]
            yield from probed(Deployment(self.options.url, *read), chosen, self.stated)
            return
        say(f"{len(chosen)} attacks on a vendor that runs")
        with local_vendor() as deployment:
            yield from probed(deployment, chosen, self.stated)

    def _tests(self) -> Iterator[Row]:
        ids = self.test_ids()
        say(f"{len(ids)} tests")
        self.results = run_tests(ids, slow=not self.options.quick)
        for promise in self.stated:
            yield from tested(promise.tests, promise.text, self.results)

    def _neighbours(self) -> Iterator[Row]:
        promise = the_one(NEIGHBOURS, self.stated).text
        names = _QUICK if self.options.quick and not self.options.only else tuple(ATTACKS)
        names = tuple(name for name in names if self.chosen(name, promise))
        for database in self.options.databases if names else ():
            with Comparison(database, self.options.seconds) as comparison:
                for name in names:
                    began = time.monotonic()
                    say(f"a good customer beside {ATTACKS[name].what} ({database})")
                    try:
                        outcome, yardstick = comparison.measure(ATTACKS[name])
                    except (AssertionError, OSError, RuntimeError) as error:  # nobody answered any more
                        yield Row(f"{name} ({database})", promise, 1, 1, told=f"not measured: {error}")
                        continue
                    yield beside(outcome, yardstick, database, promise, time.monotonic() - began)

    def _student(self) -> Iterator[Row]:
        promise, began = the_one(STUDENT, self.stated).text, time.monotonic()
        if not self.chosen("four_attackers", promise):
            return
        say("a caller of a student beside four attackers")
        outcome = student_neighbours.measure(self.options.seconds)
        figure = Figure(outcome.ratio, student_neighbours.BOUND, "times")
        broken = int(figure.value > figure.limit or bool(outcome.beside.refused))
        seconds = time.monotonic() - began
        yield Row("four_attackers", promise, 1, broken, seconds, (figure,), str(outcome))

    @property
    def whole(self) -> bool:
        """Whether everything is tried."""
        return not (self.options.only or self.options.quick or self.options.url)

    def tables(self, board: Sequence[Score]) -> str:
        """All tables, in Markdown."""
        shown = [score for score in board if self.whole or score.rows]
        tables = [promise_table(shown)]
        rows = [row for score in board for row in score.rows]
        if probes := [row for row in rows if row.name in PROBES]:
            tables.append(probe_table(probes))
        if neighbours := [row for row in rows if row.attack in ATTACKS]:
            tables.append(neighbour_table(neighbours))
        if self.results:
            tables.append(found_table(rows, self.results, whole=self.whole))
        return "\n\n".join(tables)


def say(text: str) -> None:
    """Tell whoever waits."""
    print(text, file=sys.stderr, flush=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="a part of an attack's name or of a promise"
    )
    parser.add_argument("--quick", action="store_true", help="a few minutes: no slow test, few neighbours")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything there")
    parser.add_argument("--write", action="store_true", help="if all is tried, into docs/results.md")
    parser.add_argument("--databases", nargs="+", choices=DATABASES, help="of the neighbours' vendors")
    parser.add_argument("--seconds", type=float, help="that a good customer asks beside an attack")
    parser.add_argument("--url", help="attack this vendor, which is yours, and nothing else")
    parser.add_argument("--key-file", type=Path, help="with the key of an account of it")
    parser.add_argument("--other-key-file", type=Path, help="with the key of another account")
    known = {each.name: each.what for each in PROBES.values()} | {
        each.name: each.what for each in ATTACKS.values()
    }
    parser.epilog = "attacks:\n" + "\n".join(f"  {name:24} {what}" for name, what in known.items())
    options = parser.parse_args(arguments)
    if options.url and not options.key_file:
        parser.error("--url needs --key-file")
    options.seconds = options.seconds or (3.0 if options.quick else 6.0)
    options.databases = options.databases or (DATABASES[:1] if options.quick else DATABASES)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Attack, print the tables, and say whether every promise held."""
    board = Board(_options(arguments))
    rows = []
    for row in board.rows():
        rows.append(row)
        if row.broken:
            say(f"BROKEN: {row.name}: {row.promise}\n{row.told}")
    told = scores(rows, board.stated)
    tables = board.tables(told)
    print(tables)
    if board.options.json:
        board.options.json.write_text(as_json(told), encoding="utf-8")
    if board.options.write and board.whole:
        results_page.write("make bench-attacks", tables)
    broken = [score for score in told if score.broken]
    untried = [score for score in told if not score.tried] if board.whole else []
    print(f"\n{sum(bool(score.tried) for score in told)} promises tried, {len(broken)} broken", end="")
    print(f", {len(untried)} not tried" if untried else "")
    return int(bool(broken or untried))


if __name__ == "__main__":
    raise SystemExit(main())
