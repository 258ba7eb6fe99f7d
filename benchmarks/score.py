"""What came of attacks, promise by promise, and the tables of it."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

from benchmarks.attacks import ATTACKS
from benchmarks.evidence import Evidence, Promise, found_by_attackers
from benchmarks.probes import PROBES
from tests.support.figures import Figure

DATABASES = ("sqlite", "postgresql")
_WIDTH = 60  # letters of a promise in a table


@dataclass(frozen=True)
class Row:
    """An attack, how often it was tried and broke its promise, its seconds, and the figures that it gave."""

    name: str
    promise: str
    tries: int = 0
    broken: int = 0
    seconds: float = 0.0
    figures: tuple[Figure, ...] = ()
    told: str = ""

    @property
    def attack(self) -> str:
        """Its name without that of the database."""
        return self.name.partition(" (")[0]

    @property
    def nearest(self) -> Figure | None:
        """The figure that came nearest to its limit."""
        return max(self.figures, key=lambda figure: figure.share, default=None)


@dataclass(frozen=True)
class Score:
    """A promise with all its rows."""

    promise: Promise
    rows: tuple[Row, ...]

    @property
    def broken(self) -> list[Row]:
        """What broke it."""
        return [row for row in self.rows if row.broken]

    @property
    def tried(self) -> int:
        """How often it was attacked."""
        return sum(row.tries for row in self.rows)

    @property
    def verdict(self) -> str:
        """Whether it held, in a word or the names of what broke it."""
        return verdict_of(self.rows)

    @property
    def nearest(self) -> str:
        """How near it came to a limit at most; nothing if nothing may get through."""
        rows = [row for row in self.rows if row.nearest and row.nearest.limit]
        row = max(rows, key=lambda row: row.nearest.share if row.nearest else 0.0, default=None)
        return "" if row is None else f"at {row.nearest} (`{row.name.rpartition('::')[2]}`)"


def verdict_of(rows: Iterable[Row]) -> str:
    """Whether all held, in a word or with the names of those that did not."""
    rows = list(rows)
    if broken := [row.name for row in rows if row.broken]:
        return f"BROKEN by {', '.join(broken)}"
    return "held" if any(row.tries for row in rows) else "not tried"


def tested(ids: Iterable[str], promise: str, results: dict[str, Evidence]) -> Iterator[Row]:
    """A row of each test of a promise."""
    for test in ids:
        if (found := results.get(test)) is not None:
            told = "; ".join([*found.failures, *([f"{found.skipped} skipped"] if found.skipped else [])])
            tries = found.passed + found.failed
            yield Row(test, promise, tries, found.failed, found.seconds, tuple(found.figures), told)


def scores(rows: Iterable[Row], stated: Sequence[Promise]) -> list[Score]:
    """The promises, each with its rows."""
    rows = list(rows)
    return [Score(each, tuple(row for row in rows if row.promise == each.text)) for each in stated]


def promise_table(board: Iterable[Score]) -> str:
    """A line of each promise that was tried, or was to be."""
    lines = ["| promise | attacks | result |", "|---|---:|---|"]
    part = ""
    for score in board:
        if score.promise.part != part:
            part = score.promise.part
            lines.append(f"| **{part}** | | |")
        result = f"{score.verdict} {score.nearest}".rstrip()
        lines.append(f"| {short(score.promise.text)} | {score.tried} | {result} |")
    return "\n".join(lines)


def probe_table(rows: Iterable[Row]) -> str:
    """A line of each attack on a vendor that runs."""
    lines = ["| on a vendor that runs | result |", "|---|---|"]
    for row in rows:
        came = f"at {row.nearest}" if row.nearest and row.nearest.limit else "" if row.tries else row.told
        result = f"{verdict_of([row])} {came}".rstrip()
        lines.append(f"| {PROBES[row.name].what} | {result} |")
    return "\n".join(lines)


def neighbour_table(rows: Iterable[Row]) -> str:
    """A line of each attack that a good customer noticed, the worst first, and one of the others."""
    by_attack: dict[str, list[Row]] = {}
    for row in rows:
        by_attack.setdefault(row.attack, []).append(row)
    worst = {
        name: max((row.nearest.value for row in found if row.nearest), default=0.0)
        for name, found in by_attack.items()
    }
    lines = ["| beside | times as long | result |", "|---|---:|---|"]
    unnoticed = []
    for name, found in sorted(by_attack.items(), key=lambda each: -worst[each[0]]):
        if worst[name] <= 1 and verdict_of(found) == "held":
            unnoticed.append(name)
        else:
            lines.append(f"| {ATTACKS[name].what} | {worst[name]:.1f} | {verdict_of(found)} |")
    if unnoticed:
        lines.append(f"| {len(unnoticed)} other attacks | at most 1 | held |")
    return "\n".join(lines)


def found_table(rows: Iterable[Row], results: dict[str, Evidence], *, whole: bool) -> str:
    """A line of all that attackers once found and that held, and one of each that did not.

    Those that were not tried have a line if the `whole` board was.
    """
    rows, lines, closed, tries = list(rows), ["| found | attacks | result |", "|---|---:|---|"], 0, 0
    for name, attacks in found_by_attackers().items():
        ours = [row for row in rows if row.attack in attacks and "::" not in row.attack]
        tried = [*tested(attacks, "", results), *ours]
        if verdict_of(tried) == "held":
            closed, tries = closed + 1, tries + sum(row.tries for row in tried)
        elif tried or whole:
            lines.append(f"| {name} | {sum(row.tries for row in tried)} | {verdict_of(tried)} |")
    return "\n".join([*lines, f"| {closed} holes, now closed | {tries:,} | held |"])


def short(promise: str) -> str:
    """The beginning of a promise, for a table."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", promise).replace("|", "\\|")
    return text if len(text) <= _WIDTH else text[:_WIDTH].rpartition(" ")[0].rstrip(",.:") + " …"


def as_json(board: Iterable[Score]) -> str:
    """Everything, for another program."""
    told = [
        {
            "promise": score.promise.text,
            "part": score.promise.part,
            "verdict": score.verdict,
            "rows": [
                asdict(row) | {"figures": [each._asdict() for each in row.figures]} for row in score.rows
            ],
        }
        for score in board
    ]
    return json.dumps(told, indent=1)
