"""Many runs as one table: a row a method, means and deviations over seeds, fit for a paper."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import partial
from statistics import fmean, stdev
from textwrap import wrap
from typing import Any, TypeVar

from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, Field

from client.results.curves import Curve, curves_of, described_curves
from client.results.escaping import csv_line, in_markdown
from client.results.paired import Difference, difference
from client.results.run_result import RunResult
from shared.text import visible

T = TypeVar("T")

_IN_LATEX = str.maketrans(
    {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
    | {c: f"\\{c}" for c in "&%$#_{}"}
)


@dataclass(frozen=True)
class Setting:
    """The setting that all runs of a table share.

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
        """Notes that a reader of the table needs."""
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
            described_curves(curves_of(results)) or _compared(results),
            _chance(results),
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


def differences_of(results: Sequence[RunResult]) -> list[Difference]:
    """Each student beside the best one of those that ask nothing, on the same domains and seeds.

    Without such a one, beside the first of the table.
    """
    by_labels = ([r for r in results if r.labels == labels] for labels in _unique(r.labels for r in results))
    return [difference for some in by_labels for difference in _differences_of(some)]


def _differences_of(results: Sequence[RunResult]) -> list[Difference]:
    """The same of runs with as many labels."""
    runs: dict[str, dict[tuple[str, int], float]] = {}
    for each in results:
        if not each.is_teacher:
            runs.setdefault(each.row, {})[each.target, each.seed] = each.out_of_domain
    if len(runs) < 2:
        return []
    paid = {each.row for each in results if each.queries}
    free = [name for name in runs if name not in paid]
    most = max(len(runs[name]) for name in free or runs)
    whole = [name for name in free or list(runs)[:1] if len(runs[name]) == most]
    best = max(whole, key=lambda name: fmean(runs[name].values()), default=next(iter(runs)))
    found = (difference(name, runs[name], best, runs[best]) for name in runs if name != best)
    return [each for each in found if each is not None]


def _compared(results: Sequence[RunResult]) -> str:
    """The differences in a sentence."""
    found = differences_of(results)
    if not found:
        return ""
    asked = any(each.queries for each in results if each.row == found[0].beside)
    intervals = any(each.interval is not None for each in found)
    return (
        f"In pairs of the same domain and seed, beside {found[0].beside}{'' if asked else ' (asks nothing)'}"
        f"{', with 95% intervals over domains and seeds' if intervals else ''}: "
        f"{'; '.join(each.described for each in found)}."
    )


def _chance(results: Sequence[RunResult]) -> str:
    """How far an accuracy on few images may be off; empty where all were measured on many."""
    halves = [(each[1] - each[0]) / 2 for r in results if (each := r.out_of_domain_interval) is not None]
    return f"By so few images, one is known to ± {100 * max(halves):.1f} points (95%)." if halves else ""


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
        method: its name, and labels and budget where these are some of several.
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
        over_classes: the mean over the domains of `RunResult.over_classes`; `None` where no run has it.
        over_twins: likewise of `RunResult.over_twins`.
        in_domain_cross_fitted: likewise of `RunResult.in_domain_cross_fitted`.
        by_seed: `mean` of each seed, in %.
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
    over_classes: Spread | None = None
    over_twins: Spread | None = None
    in_domain_cross_fitted: Spread | None = None
    by_seed: list[float] = dataclass_field(default_factory=list)


class ComparisonTable(BaseModel):
    """A comparison as one table: `table.json`."""

    model_config = ConfigDict(frozen=True)

    setting: Setting = Field(description="what all runs have in common")
    rows: list[Row] = Field(description="a row a method; accuracies in %")
    differences: list[Difference] = Field(
        description="each student beside the best one that asks nothing, in pairs of the same domain and seed"
    )
    curves: list[Curve] = Field(
        description="accuracy by queries, of each method and number of labels, where there are several"
    )
    runs: list[RunResult] = Field(description="every run that has finished; accuracies from 0 to 1")

    @classmethod
    def of(cls, results: Sequence[RunResult], setting: Setting) -> "ComparisonTable":
        """The table of some runs, a row for each method in the order of the runs."""
        return cls(
            setting=setting,
            rows=rows_of(results),
            differences=differences_of(results),
            curves=curves_of(results),
            runs=list(results),
        )

    def to_json(self) -> dict[str, Any]:
        """The table as `json.dumps` takes it."""
        return self.model_dump()


def rows_of(results: Sequence[RunResult]) -> list[Row]:
    """A row for each method, in the order of the results."""
    return [_row([r for r in results if r.row == name]) for name in _unique(r.row for r in results)]


def _row(results: Sequence[RunResult]) -> Row:
    outside = _by_seed(results, lambda run: run.out_of_domain)

    def mean_of(share: Callable[[RunResult], float | None]) -> Spread | None:
        known = _by_seed(results, share)
        return Spread.of([fmean(shares) for shares in known]) if known else None

    return Row(
        method=results[0].row,
        by_target={
            target: Spread.of([r.out_of_domain for r in results if r.target == target])
            for target in _unique(r.target for r in results)
        },
        mean=Spread.of([fmean(shares) for shares in outside]),
        worst=Spread.of([min(shares) for shares in outside]),
        in_domain=mean_of(lambda run: run.in_domain),
        queries=fmean(r.queries for r in results),
        cost_micros=fmean(r.cost_micros for r in results),
        seconds=fmean(r.seconds for r in results),
        runs=len(results),
        is_teacher=results[0].is_teacher,
        over_classes=mean_of(lambda run: run.over_classes),
        over_twins=mean_of(lambda run: run.over_twins),
        in_domain_cross_fitted=mean_of(lambda run: run.in_domain_cross_fitted),
        by_seed=[100 * fmean(shares) for shares in outside],
    )


def _by_seed(results: Sequence[RunResult], share: Callable[[RunResult], float | None]) -> list[list[float]]:
    """A share of the runs of each seed, as far as it was measured; not of a seed of which it never was."""
    runs = ([r for r in results if r.seed == seed] for seed in _unique(r.seed for r in results))
    found = ([known for each in seed if (known := share(each)) is not None] for seed in runs)
    return [shares for shares in found if shares]


# -- the columns


@dataclass(frozen=True)
class Accuracy:
    """A column of accuracies: its name in a CSV, its title for people, and what a row has there."""

    name: str
    title: str
    of: Callable[[Row], Spread | None]


_ACCURACIES = (
    Accuracy("mean", "mean", lambda row: row.mean),
    Accuracy("worst", "worst", lambda row: row.worst),
    Accuracy("in_domain", "in-domain", lambda row: row.in_domain),
    Accuracy("over_classes", "by class", lambda row: row.over_classes),
    Accuracy("over_twins", "twins as one", lambda row: row.over_twins),
    Accuracy("in_domain_cross_fitted", "cross-fitted", lambda row: row.in_domain_cross_fitted),
)
_WHERE_MEASURED = ("over_classes", "over_twins", "in_domain_cross_fitted")


def accuracies(rows: Sequence[Row]) -> list[Accuracy]:
    """The held-out domains, and what sums them up."""
    targets = _unique(target for row in rows for target in row.by_target)
    known = [a for a in _ACCURACIES if a.name not in _WHERE_MEASURED or any(a.of(row) for row in rows)]
    return [*(Accuracy(t, t, partial(_of_target, t)) for t in targets), *known]


def best_of(rows: Sequence[Row], column: Accuracy) -> float | None:
    """The best mean of a student in a column, in %."""
    students = [row for row in rows if not row.is_teacher]
    return max((spread.mean for each in students if (spread := column.of(each))), default=None)


def _of_target(target: str, row: Row) -> Spread | None:
    return row.by_target.get(target)


# The columns behind them, as tables for people show them; cost is in units of the vendor's currency.
_NUMBERS: dict[str, Callable[[Row], str]] = {
    "queries": lambda row: f"{row.queries:.0f}",
    "cost": lambda row: f"{row.cost_micros / 1e6:.4f}",
    "seconds": lambda row: f"{row.seconds:.0f}",
}


# -- the formats


def as_csv(results: Sequence[RunResult], _setting: Setting) -> str:
    """The rows, mean and deviation in columns of their own."""
    rows = rows_of(results)
    columns = accuracies(rows)
    header = ["method", *(f"{each.name}_{what}" for each in columns for what in ("mean", "deviation"))]
    lines = [csv_line([*header, "queries", "cost_micros", "seconds", "runs"])]
    for row in rows:
        spreads = [each.of(row) for each in columns]
        cells = [cell for s in spreads for cell in ((s.mean, s.deviation) if s else ("", ""))]
        lines.append(csv_line([row.method, *cells, row.queries, row.cost_micros, row.seconds, row.runs]))
    return "".join(lines)


def as_text(results: Sequence[RunResult], setting: Setting) -> str:
    """For a terminal."""
    lines = _cells(results, escape=visible)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    first, *others = (
        "  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    )
    caption = wrap(visible(setting.caption(results)), max(len(first), 80))
    return "\n".join([first, "-" * len(first), *others, "", *caption]) + "\n"


def as_markdown(results: Sequence[RunResult], setting: Setting) -> str:
    """A Markdown table, the best student of each column bold, and its caption."""
    header, *rows = _cells(results, bold="**{}**", escape=in_markdown)
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n{in_markdown(setting.caption(results))}\n"


def as_card(results: Sequence[RunResult], setting: Setting) -> str:
    """For a notebook: the table, and each row's mean as a bar."""
    from client.results.rendering import render

    (header, *lines), rows = _cells(results, bold=Markup("<b>{}</b>"), escape=str), rows_of(results)
    return render(
        "comparison_card.html",
        data=setting.data,
        header=header,
        lines=list(zip(lines, rows, strict=True)),
        caption=setting.caption(results),
        spread=any(row.mean.deviation is not None for row in rows),
    )


def as_latex(results: Sequence[RunResult], setting: Setting) -> str:
    """A LaTeX `table` (package booktabs), the best student of each column bold."""
    lines = _cells(results, plus_minus=r"$\pm$", bold=r"\textbf{{{}}}", escape=_in_latex)
    header, *body = (" & ".join(line) + r" \\" for line in lines)
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_in_latex(setting.caption(results))}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(lines[0]) - 1)}}}",
            r"\toprule",
            header,
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


# By the endings of their files.
FORMATS: dict[str, Callable[[Sequence[RunResult], Setting], str]] = {
    "txt": as_text,
    "csv": as_csv,
    "md": as_markdown,
    "tex": as_latex,
}


def _cells(
    results: Sequence[RunResult], *, plus_minus: str = "±", bold: str = "{}", escape: Callable[[str], str]
) -> list[list[str]]:
    """The header and each row as strings; accuracies in %."""
    rows = rows_of(results)
    columns = accuracies(rows)
    students = [row for row in rows if not row.is_teacher]
    cells = [["method", *(escape(each.title) for each in columns), *_NUMBERS]]
    for row in rows:
        shown = []
        for column in columns:
            best, spread = best_of(rows, column), column.of(row)
            look = bold if spread and spread.mean == best and len(students) > 1 else "{}"
            shown.append(look.format(spread.show(plus_minus)) if spread else "")
        cells.append([escape(row.method), *shown, *(number(row) for number in _NUMBERS.values())])
    return cells


def _in_latex(text: str) -> str:
    return visible(text).translate(_IN_LATEX)


def _unique(values: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(values))
