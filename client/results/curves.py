"""Accuracy by the number of queries, as one curve for a method and a number of labels, and the area below."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from client.results.run_result import RunResult


@dataclass(frozen=True)
class Curve:
    """A method with a number of labels.

    Attributes:
        method: its name.
        labels: labels a class; `None` for all.
        points: queries and accuracy in %, means over domains and seeds. A method that asks begins without
            queries at the best method that asks nothing and has as many labels, if there is one.
        area: the mean of its accuracy over log(1 + queries), between its first point and its last, in %.
        level_from: from how many queries on it first is as good as the best method that asks nothing and has
            all labels, on straight lines over log(1 + queries); `None` if it never is.
    """

    method: str
    labels: int | None
    points: list[tuple[float, float]]
    area: float
    level_from: float | None

    def queries_to(self, accuracy: float) -> float | None:
        """The fewest queries with which it reaches an accuracy in %; `None` if it never does."""
        return _reached(self.points, accuracy)


def curves_of(results: Sequence[RunResult]) -> list[Curve]:
    """The curves of a comparison of several budgets, or numbers of labels; none of any other."""
    students = [each for each in results if not each.is_teacher]
    if all(each.labels is None and each.budget is None for each in students):
        return []
    cells: dict[tuple[int | None, str], dict[int | None, list[RunResult]]] = {}
    for each in students:
        cells.setdefault((each.labels, each.method), {}).setdefault(each.budget, []).append(each)
    free: dict[int | None, float] = {}
    for (labels, _), by_budget in cells.items():
        for runs in by_budget.values():
            if not any(run.queries for run in runs):
                free[labels] = max(free.get(labels, 0.0), _accuracy(runs))
    curves = []
    for (labels, method), by_budget in cells.items():
        points = sorted((fmean(run.queries for run in runs), _accuracy(runs)) for runs in by_budget.values())
        if points[0][0] and labels in free:
            points.insert(0, (0.0, free[labels]))
        level = _reached(points, free[None]) if None in free else None
        curves.append(Curve(method, labels, points, _area(points), level))
    return curves


def described_curves(curves: Sequence[Curve]) -> str:
    """The areas in a sentence; empty without any."""
    if not curves:
        return ""
    said = []
    for each in curves:
        labels = "all labels" if each.labels is None else f"{each.labels} a class"
        asks, level = each.points[-1][0], each.level_from
        reached = (
            f", from about {level:,.0f} queries on as good as all labels without any"
            if level and asks
            else ""
        )
        said.append(f"{each.method} with {labels} {each.area:.1f}{reached}")
    return f"Area below accuracy by log(1 + queries), as a mean in %: {'; '.join(said)}."


def _accuracy(runs: Sequence[RunResult]) -> float:
    domains = dict.fromkeys(run.target for run in runs)
    return 100 * fmean(fmean(run.out_of_domain for run in runs if run.target == each) for each in domains)


def _area(points: Sequence[tuple[float, float]]) -> float:
    across, up = np.log1p([queries for queries, _ in points]), np.asarray([share for _, share in points])
    width = float(across[-1] - across[0])
    return float(((up[1:] + up[:-1]) / 2 * np.diff(across)).sum()) / width if width else float(up[-1])


def _reached(points: Sequence[tuple[float, float]], accuracy: float) -> float | None:
    before: tuple[float, float] | None = None
    for queries, share in points:
        if share >= accuracy:
            if before is None:
                return queries
            part = (accuracy - before[1]) / (share - before[1])
            low, high = np.log1p(before[0]), np.log1p(queries)
            return float(np.expm1(low + part * (high - low)))
        before = queries, share
    return None
