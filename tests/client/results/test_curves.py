"""Curves over queries, against areas worked out by hand."""

import math

import pytest

from client.results.comparison_table import ComparisonTable, as_text, differences_of, rows_of
from client.results.curves import curves_of
from client.results.run_result import RunResult
from tests.client.results.test_comparison_table import SETTING


def _run(
    method: str, share: float, queries: int = 0, labels: int | None = None, budget: int | None = None
) -> RunResult:
    return RunResult(method, "red", 0, 0.9, share, queries, 0, 1.0, labels=labels, budget=budget)


RESULTS = [
    _run("erm", 0.80),
    _run("ours", 0.82, 9, budget=10),
    _run("ours", 0.90, 99, budget=100),
    _run("erm", 0.40, labels=1),
    _run("label-only", 0.50, labels=1),
    _run("ours", 0.60, 9, labels=1, budget=10),
    _run("ours", 0.84, 99, labels=1, budget=100),
]


def test_an_area_is_a_mean_over_the_logarithm_of_queries() -> None:
    curves = {(each.method, each.labels): each for each in curves_of(RESULTS)}
    few = curves["ours", 1]
    assert few.points == [(0.0, 50.0), (9.0, 60.0), (99.0, pytest.approx(84.0))]  # the best that asks nothing
    assert few.area == pytest.approx((55 + 72) / 2)  # log 1, log 10 and log 100 are as far from each other
    assert curves["ours", None].area == pytest.approx((81 + 86) / 2)
    assert curves["erm", 1].area == pytest.approx(40.0)
    assert few.level_from == pytest.approx(math.expm1(math.log(10) * (1 + 20 / 24)))  # 80%
    assert (curves["erm", 1].level_from, curves["erm", None].level_from) == (None, 0.0)
    assert few.queries_to(50.0) == 0
    assert few.queries_to(90.0) is None


def test_rows_are_compared_with_those_of_as_many_labels() -> None:
    assert [row.method for row in rows_of(RESULTS)][-2:] == [
        "ours, 1 label a class, 10 queries",
        "ours, 1 label a class, 100 queries",
    ]
    beside = {each.beside for each in differences_of(RESULTS)}
    assert beside == {"erm", "label-only, 1 label a class"}
    assert "ours with 1 a class 63.5, from about 67 queries on as good as all" in as_text(
        RESULTS, SETTING
    ).replace("\n", " ")
    assert ComparisonTable.of(RESULTS, SETTING).curves == curves_of(RESULTS)


def test_a_comparison_of_one_budget_has_no_curves() -> None:
    assert curves_of([_run("erm", 0.5), _run("ours", 0.6, 9)]) == []
