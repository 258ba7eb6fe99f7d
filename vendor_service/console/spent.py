"""Spending as pages show it: bars by day, and shares by what was bought on which key."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from markupsafe import Markup

from shared.pages import charts
from vendor_service.money.spending import Spent
from vendor_service.terms import money

_UNIT = 1_000_000
_MOST_SHOWN = 12


@dataclass(frozen=True)
class Share:
    """The charges of one group, and its share of all."""

    spent: Spent
    percent: int
    drawing: Markup


def chart_of_days(label: str, days: Sequence[Spent], currency: str | None) -> Markup:
    """A bar a day of what was charged."""
    named = "" if currency is None else f" {currency}"
    return charts.bars(
        f"{label}, in {currency or 'units of the currency'}",
        [
            (
                f"{date.fromisoformat(each.group):%d %b}",
                each.charged_micros / _UNIT,
                f"{each.group}: {money(each.charged_micros)}{named} for {each.queries:,} queries",
            )
            for each in days
        ],
        currency or "units of the currency",
    )


def shares_of(groups: Sequence[Spent]) -> list[Share]:
    """The largest groups, with what share of the whole each is."""
    whole = sum(each.charged_micros for each in groups)
    return [
        Share(each, round(100 * each.charged_micros / (whole or 1)), charts.share(each.charged_micros, whole))
        for each in groups[:_MOST_SHOWN]
    ]


def shown_days(days: Sequence[Spent]) -> list[Spent]:
    """The days with something, the newest first: the chart as a table, for who cannot see it."""
    return [each for each in reversed(days) if each.requests or each.net_micros]
