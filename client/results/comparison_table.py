"""Many runs as one table: a row a method, means and deviations over seeds, fit for a paper."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from textwrap import wrap
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from client.progress import printable
from client.results.escaping import csv_line, in_markdown

T = TypeVar("T")

_IN_LATEX = str.maketrans(
    {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
    | {c: f"\\{c}" for c in "&%$#_{}"}
)


@dataclass(frozen=True)
class RunResult:
    """What one run came to.

    Attributes:
        method: its row.
        target: the domain that was held out.
        seed: of the run.
        in_domain: mean accuracy over the hold-outs of the source domains, from 0 to 1; `None` where there
            is none.
        out_of_domain: accuracy on the target domain, from 0 to 1.
        queries: embeddings that it worked with, whoever paid for them.
        cost_micros: what these cost by the vendor's prices, bought for this run alone.
        seconds: of training, work that it shared with other runs included.
        is_teacher: whether this is the teacher's own answer: no student, and out of their competition.
    """

    method: str
    target: str
    seed: int
    in_domain: float | None
    out_of_domain: float
    queries: int
    cost_micros: int
    seconds: float
    is_teacher: bool = False


@dataclass(frozen=True)
class Setting:
    """What all runs of a table have in common.

    Attributes:
        data: the name of the folder or the table.
        images: how many files each domain has.
        classes: how many there are.
        student: the backbone's name.
        image_size: side of the student's input in pixels.
        teacher: name and fingerprint of the vendor's model; `None` where nothing was asked.
        queries: how many embeddings each run may use; `None` for all that it asks.
        machine: where it was trained.
        planned: how many runs there are to be.
    """

    data: str
    images: dict[str, int]
    classes: int
    student: str
    image_size: int
    teacher: str | None
    queries: int | None
    machine: str
    planned: int

    def caption(self, results: Sequence[RunResult]) -> str:
        """What a reader needs to know of the table of these runs."""
        seeds = len(_unique(result.seed for result in results))
        spread = f"mean ± sample deviation over {seeds} seeds" if seeds > 1 else "one seed"
        domains = ", ".join(f"{name} {count:,}" for name, count in self.images.items())
        chosen = (
            "weights are chosen on hold-outs of the source domains"
            if any(result.in_domain is not None for result in results)
            else "nothing of the source domains is held out, so the last weights are kept"
        )
        sentences = [
            f"Accuracy in % on each domain held out in turn, {spread}; {chosen}.",
            f"{self.data}: {sum(self.images.values()):,} images ({domains}) of {self.classes} classes.",
            f"Student: {self.student} at {self.image_size} px.",
            f"Teacher: {self.teacher}." if self.teacher else "",
            self._bounded(results),
            f"Trained on {self.machine}.",
            f"Only {len(results)} of {self.planned} runs have finished."
            if len(results) < self.planned
            else "",
        ]
        return " ".join(filter(None, sentences))

    def _bounded(self, results: Sequence[RunResult]) -> str:
        """How many embeddings each run may use, and the rows that this does not hold for."""
        if not self.queries:
            return ""
        others = ", ".join(_unique(r.method for r in results if r.queries > self.queries))
        return f"No run uses more than {self.queries:,} embeddings{others and f', but for {others}'}."


@dataclass(frozen=True)
class Spread:
    """Mean and deviation over seeds.

    Attributes:
        mean: in %.
        deviation: the sample deviation, in %; `None` of one seed.
    """

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
        in_domain: accuracy on source hold-outs, averaged over those runs of a seed that have any; `None`
            where no run has.
        queries: as in `RunResult`; the mean over the runs.
        cost_micros: as in `RunResult`; the mean over the runs.
        seconds: as in `RunResult`; the mean over the runs.
        runs: how many there are.
        is_teacher: as in `RunResult`.
    """

    method: str
    by_target: dict[str, Spread]
    mean: Spread
    worst: Spread
    in_domain: Spread | None
    queries: float
    cost_micros: float
    seconds: float
    runs: int
    is_teacher: bool


class ComparisonTable(BaseModel):
    """A comparison as one table: `table.json`.

    Attributes:
        setting: what all runs have in common.
        rows: a row a method; accuracies in %.
        runs: every run that has finished; accuracies from 0 to 1.
    """

    model_config = ConfigDict(frozen=True)

    setting: Setting
    rows: list[Row]
    runs: list[RunResult]

    @classmethod
    def of(cls, results: Sequence[RunResult], setting: Setting) -> "ComparisonTable":
        """The table of some runs, a row for each method in the order of the runs."""
        return cls(setting=setting, rows=rows_of(results), runs=list(results))

    def to_json(self) -> dict[str, Any]:
        """What `json.dumps` takes."""
        return self.model_dump()


def rows_of(results: Sequence[RunResult]) -> list[Row]:
    """A row for each method, in the order of the results."""
    return [_row([r for r in results if r.method == name]) for name in _unique(r.method for r in results)]


def _row(results: Sequence[RunResult]) -> Row:
    outside = _by_seed(results, lambda run: run.out_of_domain)
    inside = _by_seed(results, lambda run: run.in_domain)
    return Row(
        method=results[0].method,
        by_target={
            target: Spread.of([r.out_of_domain for r in results if r.target == target])
            for target in _unique(r.target for r in results)
        },
        mean=Spread.of([fmean(shares) for shares in outside]),
        worst=Spread.of([min(shares) for shares in outside]),
        in_domain=Spread.of([fmean(shares) for shares in inside]) if inside else None,
        queries=fmean(r.queries for r in results),
        cost_micros=fmean(r.cost_micros for r in results),
        seconds=fmean(r.seconds for r in results),
        runs=len(results),
        is_teacher=results[0].is_teacher,
    )


def _by_seed(results: Sequence[RunResult], share: Callable[[RunResult], float | None]) -> list[list[float]]:
    """A share of the runs of each seed, as far as it was measured; not of a seed of which it never was."""
    runs = ([r for r in results if r.seed == seed] for seed in _unique(r.seed for r in results))
    found = ([known for each in seed if (known := share(each)) is not None] for seed in runs)
    return [shares for shares in found if shares]


def as_json(results: Sequence[RunResult], setting: Setting) -> dict[str, Any]:
    """The setting, the rows, and every run; of runs shares from 0 to 1, of rows %."""
    return ComparisonTable.of(results, setting).to_json()


def as_csv(results: Sequence[RunResult], _setting: Setting) -> str:
    """The rows, mean and deviation in columns of their own."""
    rows = rows_of(results)
    targets = _targets(rows)
    accuracies = [*targets, "mean", "worst", "in_domain"]
    header = ["method", *(f"{name}_{what}" for name in accuracies for what in ("mean", "deviation"))]
    lines = [csv_line([*header, "queries", "cost_micros", "seconds", "runs"])]
    for row in rows:
        cells = [cell for s in _spreads(row, targets) for cell in ((s.mean, s.deviation) if s else ("", ""))]
        lines.append(csv_line([row.method, *cells, row.queries, row.cost_micros, row.seconds, row.runs]))
    return "".join(lines)


def as_text(results: Sequence[RunResult], setting: Setting) -> str:
    """For a terminal."""
    columns, rows = _cells(rows_of(results), escape=printable)
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    lines = [
        "  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in (columns, *rows)
    ]
    caption = wrap(printable(setting.caption(results)), max(len(lines[0]), 80))
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], "", *caption]) + "\n"


def as_markdown(results: Sequence[RunResult], setting: Setting) -> str:
    """A Markdown table, the best student of each column bold, and its caption."""
    columns, rows = _cells(rows_of(results), bold="**{}**", escape=in_markdown)
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n{in_markdown(setting.caption(results))}\n"


def as_latex(results: Sequence[RunResult], setting: Setting) -> str:
    """A LaTeX `table` (package booktabs), the best student of each column bold."""
    columns, rows = _cells(rows_of(results), plus_minus=r"$\pm$", bold=r"\textbf{{{}}}", escape=_in_latex)
    body = [" & ".join(line) + r" \\" for line in (columns, *rows)]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_in_latex(setting.caption(results))}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}",
            r"\toprule",
            body[0],
            r"\midrule",
            *body[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
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
    students = [spreads for row, spreads in zip(rows, table, strict=True) if not row.is_teacher]
    best = [max((s.mean for s in column if s), default=0.0) for column in zip(*students, strict=True)]
    cells = []
    for row, spreads in zip(rows, table, strict=True):
        shown = [
            ""
            if s is None
            else (bold if s.mean == top and len(students) > 1 else "{}").format(s.show(plus_minus))
            for s, top in zip(spreads, best or [0.0] * len(spreads), strict=True)
        ]
        numbers = [f"{row.queries:.0f}", f"{row.cost_micros / 1e6:.4f}", f"{row.seconds:.0f}"]
        cells.append([escape(row.method), *shown, *numbers])
    return columns, cells


def _in_latex(text: str) -> str:
    return text.translate(_IN_LATEX)


def _spreads(row: Row, targets: Sequence[str]) -> list[Spread | None]:
    return [*(row.by_target.get(target) for target in targets), row.mean, row.worst, row.in_domain]


def _targets(rows: Sequence[Row]) -> list[str]:
    return _unique(target for row in rows for target in row.by_target)


def _unique(values: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(values))
