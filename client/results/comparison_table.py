"""Many runs as one table: a row a method, means and deviations over seeds, fit for a paper."""

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from statistics import fmean, stdev
from typing import Any, TypeVar

T = TypeVar("T")

_IN_LATEX = str.maketrans({"\\": r"\textbackslash{}"} | {c: f"\\{c}" for c in "&%$#_{}"})


@dataclass(frozen=True)
class RunResult:
    """What one run came to.

    Attributes:
        method: its row.
        target: the domain that was held out.
        seed: of the run.
        in_domain: mean accuracy over the hold-outs of the source domains, from 0 to 1.
        out_of_domain: accuracy on the target domain, from 0 to 1.
        queries: embeddings that it worked with, whoever paid for them.
        cost_micros: what these cost by the vendor's prices, bought for this run alone.
        seconds: of training, work that it shared with other runs included.
    """

    method: str
    target: str
    seed: int
    in_domain: float
    out_of_domain: float
    queries: int
    cost_micros: int
    seconds: float


@dataclass(frozen=True)
class Spread:
    """Mean and sample deviation over seeds, in %; no deviation of one."""

    mean: float
    deviation: float | None

    @classmethod
    def of(cls, shares: Sequence[float]) -> "Spread":
        """Of shares from 0 to 1."""
        percents = [100 * share for share in shares]
        return cls(fmean(percents), stdev(percents) if len(percents) > 1 else None)

    def show(self, plus_minus: str = "±") -> str:
        """To a tenth."""
        deviation = "" if self.deviation is None else f" {plus_minus} {self.deviation:.1f}"
        return f"{self.mean:.1f}{deviation}"


@dataclass(frozen=True)
class Row:
    """A method over all its runs.

    Attributes:
        method: its name.
        by_target: accuracy on each held-out domain.
        mean: the mean over these domains (the average of DomainBed), seed by seed.
        worst: the lowest of them, seed by seed.
        in_domain: accuracy on source hold-outs, averaged over the runs of a seed.
        queries, cost_micros, seconds: means over runs, as in `RunResult`.
        runs: how many there are.
    """

    method: str
    by_target: dict[str, Spread]
    mean: Spread
    worst: Spread
    in_domain: Spread
    queries: float
    cost_micros: float
    seconds: float
    runs: int


def rows_of(results: Sequence[RunResult]) -> list[Row]:
    """A row for each method, in the order of the results."""
    return [_row([r for r in results if r.method == name]) for name in _unique(r.method for r in results)]


def _row(results: Sequence[RunResult]) -> Row:
    def by_seed(share: Callable[[list[RunResult]], float]) -> Spread:
        return Spread.of(
            [share([r for r in results if r.seed == seed]) for seed in _unique(r.seed for r in results)]
        )

    return Row(
        method=results[0].method,
        by_target={
            target: Spread.of([r.out_of_domain for r in results if r.target == target])
            for target in _unique(r.target for r in results)
        },
        mean=by_seed(lambda runs: fmean(r.out_of_domain for r in runs)),
        worst=by_seed(lambda runs: min(r.out_of_domain for r in runs)),
        in_domain=by_seed(lambda runs: fmean(r.in_domain for r in runs)),
        queries=fmean(r.queries for r in results),
        cost_micros=fmean(r.cost_micros for r in results),
        seconds=fmean(r.seconds for r in results),
        runs=len(results),
    )


def as_json(results: Sequence[RunResult]) -> dict[str, Any]:
    """The rows, and every run; of runs shares from 0 to 1, of rows %."""
    return {"rows": [asdict(row) for row in rows_of(results)], "runs": [asdict(r) for r in results]}


def as_csv(results: Sequence[RunResult]) -> str:
    """The rows, mean and deviation in columns of their own."""
    rows = rows_of(results)
    targets = _targets(rows)
    accuracies = [*targets, "mean", "worst", "in_domain"]
    header = ["method", *(f"{name}_{what}" for name in accuracies for what in ("mean", "deviation"))]
    file = StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*header, "queries", "cost_micros", "seconds", "runs"])
    for row in rows:
        cells = [cell for s in _spreads(row, targets) for cell in ((s.mean, s.deviation) if s else ("", ""))]
        writer.writerow([row.method, *cells, row.queries, row.cost_micros, row.seconds, row.runs])
    return file.getvalue()


def as_text(results: Sequence[RunResult]) -> str:
    """For a terminal."""
    columns, rows = _cells(rows_of(results))
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    lines = [
        "  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in (columns, *rows)
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]]) + "\n"


def as_markdown(results: Sequence[RunResult]) -> str:
    """A Markdown table, the best of each column bold."""
    columns, rows = _cells(
        rows_of(results), bold="**{}**", escape=lambda name: name.replace("|", r"\|").replace("_", r"\_")
    )
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def as_latex(results: Sequence[RunResult]) -> str:
    """A LaTeX `tabular` (package booktabs), the best of each column bold."""
    columns, rows = _cells(
        rows_of(results),
        plus_minus=r"$\pm$",
        bold=r"\textbf{{{}}}",
        escape=lambda name: name.translate(_IN_LATEX),
    )
    body = [" & ".join(line) + r" \\" for line in (columns, *rows)]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}",
            r"\toprule",
            body[0],
            r"\midrule",
            *body[1:],
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _cells(
    rows: Sequence[Row],
    *,
    plus_minus: str = "±",
    bold: str = "{}",
    escape: Callable[[str], str] = lambda name: name,
) -> tuple[list[str], list[list[str]]]:
    """Header and cells as strings; accuracies in %, cost in units of the vendor's currency."""
    targets = _targets(rows)
    columns = ["method", *map(escape, targets), "mean", "worst", "in-domain", "queries", "cost", "seconds"]
    table = [_spreads(row, targets) for row in rows]
    best = [max((s.mean for s in column if s), default=0.0) for column in zip(*table, strict=True)]
    cells = []
    for row, spreads in zip(rows, table, strict=True):
        shown = [
            ""
            if s is None
            else (bold if s.mean == top and len(rows) > 1 else "{}").format(s.show(plus_minus))
            for s, top in zip(spreads, best, strict=True)
        ]
        numbers = [f"{row.queries:.0f}", f"{row.cost_micros / 1e6:.4f}", f"{row.seconds:.0f}"]
        cells.append([escape(row.method), *shown, *numbers])
    return columns, cells


def _spreads(row: Row, targets: Sequence[str]) -> list[Spread | None]:
    return [*(row.by_target.get(target) for target in targets), row.mean, row.worst, row.in_domain]


def _targets(rows: Sequence[Row]) -> list[str]:
    return _unique(target for row in rows for target in row.by_target)


def _unique(values: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(values))
