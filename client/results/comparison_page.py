"""A comparison as a page: cost against accuracy, differences in pairs, and what asking in use brings."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from client.results.asking import SHARES, Answers, Asked, asked_by_share, mean_of, price_of_thousand
from client.results.charts import Priced, differences, frontier
from client.results.comparison_table import Setting, accuracies, best_of, differences_of, rows_of
from client.results.intervals import in_percent
from client.results.rendering import render
from client.results.run_result import RunResult
from shared.pages.tables import Column
from shared.text import isolated

# Where the slider stands at first, among `SHARES`.
_START = 4


# A page has no room for these columns of a table.
_LEFT_OUT = ("over_twins", "in_domain_cross_fitted")


def as_page(
    results: Sequence[RunResult],
    setting: Setting,
    answers: Sequence[Answers] = (),
    price: tuple[int | None, str | None] = (None, None),
) -> str:
    """The page as HTML, which loads nothing from elsewhere.

    Args:
        results: of the runs that have finished, at least one.
        setting: of all runs.
        answers: of the students, as far as they are known, for the slider.
        price: of an image, in millionths of the currency, and the currency; `None` where not known.
    """
    rows, found = rows_of(results), differences_of(results)
    columns = [each for each in accuracies(rows) if each.name not in _LEFT_OUT]
    best = [best_of(rows, each) for each in columns]
    return render(
        "comparison.html",
        setting=setting,
        caption=setting.caption(results),
        currency=price[1] or "units",
        columns=[Column("method"), *(Column(each.title, numbers=True) for each in columns)],
        lines=[
            (row, [(spread := each.of(row), spread is not None and spread.mean == top)
                   for each, top in zip(columns, best, strict=True)])
            for row in rows
        ],
        frontier=_frontier(results, price[1]),
        drawn=list(zip(found, differences(found), strict=True)),
        asking=_asking(answers, price),
    )  # fmt: skip


def _frontier(results: Sequence[RunResult], currency: str | None) -> Markup | None:
    """The drawing; `None` where all cost the same."""
    rows = rows_of(results)
    if len({row.queries for row in rows}) < 2:
        return None
    by_cost = any(row.cost_micros for row in rows)
    priced = [
        Priced(
            row.method,
            row.cost_micros / 1e6 if by_cost else row.queries,
            row.mean.mean,
            row.by_seed,
            competes=not row.is_teacher,
        )
        for row in rows
    ]
    unit = f"{currency or 'units'} a run" if by_cost else "embeddings a run"
    return frontier("Accuracy on held-out domains by what a run costs", priced, unit)


def _asking(answers: Sequence[Answers], price: tuple[int | None, str | None]) -> dict[str, Any] | None:
    """What the slider shows of each method; `None` without answers."""
    if not answers:
        return None
    methods: dict[str, dict[str, list[Answers]]] = {}
    for each in answers:
        methods.setdefault(each.method, {}).setdefault(each.target, []).append(each)
    return {
        "percents": [f"{100 * each:.0f}%" for each in SHARES],
        "start": _START,
        "price": [price_of_thousand(each, *price) for each in SHARES],
        "methods": [_texts(name, by_target) for name, by_target in methods.items()],
    }


def _texts(method: str, by_target: Mapping[str, Sequence[Answers]]) -> dict[str, Any]:
    found = {
        target: asked_by_share([p for run in runs for p in run.predictions], runs[0].teacher, len(runs))
        for target, runs in by_target.items()
    }
    places = [
        mean_of({target: asked[place] for target, asked in found.items()}) for place in range(len(SHARES))
    ]
    return {
        "name": method,
        "accuracy": [f"{100 * each.accuracy:.1f}%" for each in places],
        "interval": [in_percent(each.interval) for each in places],
        "worst": [_worst(each) for each in places],
    }


def _worst(asked: Asked) -> str:
    return "" if asked.worst is None else f"{isolated(asked.worst.name)}: {100 * asked.worst.accuracy:.1f}%"
