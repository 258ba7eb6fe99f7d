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
_BEGIN, _END = "<!-- make bench-attacks writes what follows -->", "<!-- until here -->"
_WIDTH = 100  # letters of a promise in a table


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
        """How near it came to a limit at most; nothing if it has none but that nothing gets through."""
        rows = [row for row in self.rows if row.nearest and row.nearest.limit]
        row = max(rows, key=lambda row: row.nearest.share if row.nearest else 0.0, default=None)
        return "" if row is None else f"{row.nearest} (`{row.name.rpartition('::')[2]}`)"


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
            told = f"{found.skipped} skipped" if found.skipped else ""
            tries = found.passed + found.failed
            yield Row(test, promise, tries, found.failed, found.seconds, tuple(found.figures), told)


def scores(rows: Iterable[Row], stated: Sequence[Promise]) -> list[Score]:
    """The promises, each with its rows."""
    rows = list(rows)
    return [Score(each, tuple(row for row in rows if row.promise == each.text)) for each in stated]


def promise_table(board: Iterable[Score]) -> str:
    """A line of each promise that was tried, or was to be."""
    lines = ["| promise | on | attacks | nearest to a limit | result |", "|---|---|---:|---|---|"]
    part = ""
    for score in board:
        if score.promise.part != part:
            part = score.promise.part
            lines.append(f"| **{part}** | | | | |")
        cells = (short(score.promise.text), score.promise.side, score.tried, score.nearest, score.verdict)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def probe_table(rows: Iterable[Row]) -> str:
    """A line of each attack on a vendor that runs."""
    lines = ["| on a vendor that runs | how far it came | result |", "|---|---|---|"]
    for row in rows:
        came = str(row.nearest) if row.nearest else row.told
        lines.append(f"| {PROBES[row.name].what} | {came} | {verdict_of([row])} |")
    return "\n".join(lines)


def neighbour_table(rows: Iterable[Row]) -> str:
    """A line of each attack beside which a good customer asked, the worst first."""
    by_attack: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_attack.setdefault(row.attack, {})[row.name.partition(" (")[2].rstrip(")")] = row
    lines = ["| beside | SQLite | PostgreSQL | result |", "|---|---:|---:|---|"]

    def ratio(row: Row | None) -> float | None:
        return row.nearest.value if row and row.nearest else None

    order = sorted(by_attack.items(), key=lambda each: -max(ratio(row) or 0.0 for row in each[1].values()))
    for name, found in order:
        values = [ratio(found.get(each)) for each in DATABASES]
        ratios = ["" if value is None else f"{value:.1f}" for value in values]
        lines.append(f"| {ATTACKS[name].what} | {' | '.join(ratios)} | {verdict_of(found.values())} |")
    return "\n".join(lines)


def found_table(rows: Iterable[Row], results: dict[str, Evidence], *, whole: bool) -> str:
    """A line of each thing that attackers once found; if not all were tried, of those that were."""
    rows, lines = list(rows), ["| found | attacks | result |", "|---|---:|---|"]
    for name, attacks in found_by_attackers().items():
        ours = [row for row in rows if row.attack in attacks and "::" not in row.attack]
        tried = [*tested(attacks, "", results), *ours]
        if not (tried or whole):
            continue
        lines.append(f"| {name} | {sum(row.tries for row in tried)} | {verdict_of(tried)} |")
    return "\n".join(lines)


def short(promise: str) -> str:
    """The beginning of a promise, for a table."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", promise).replace("|", "\\|")
    return text if len(text) <= _WIDTH else text[:_WIDTH].rpartition(" ")[0].rstrip(",.:") + " …"


def written(page: str, tables: str) -> str:
    """A page with other tables between its marks."""
    head, _, rest = page.partition(_BEGIN)
    _, mark, tail = rest.partition(_END)
    if not mark:
        raise SystemExit(f"there is no {_BEGIN}")
    return f"{head}{_BEGIN}\n\n{tables}\n\n{_END}{tail}"


def as_json(board: Iterable[Score]) -> str:
    """Everything, for another program."""
    told = [
        {
            "promise": score.promise.text,
            "part": score.promise.part,
            "side": score.promise.side,
            "verdict": score.verdict,
            "rows": [
                asdict(row) | {"figures": [each._asdict() for each in row.figures]} for row in score.rows
            ],
        }
        for score in board
    ]
    return json.dumps(told, indent=1)
