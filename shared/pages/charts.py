"""Bars as SVG, drawn by the server: they need no script, and colours come from the style sheet.

Widths are shares of the place that a drawing gets, and its words are text of the page: it can be read on a
phone as on a desk.
"""

from collections.abc import Sequence
from math import ceil, floor, log10
from typing import Literal

from markupsafe import Markup

from shared.text import in_html, isolated

NEARLY, ALMOST_ALL = 0.8, 0.95  # of a limit: from here on a meter warns, and warns more
_NAMES = 5  # below a chart
Level = Literal["fine", "high", "full"]


def bars(label: str, values: Sequence[tuple[str, float, str]], unit: str = "") -> Markup:
    """A bar for each name, with its value and what is told of it when it is pointed at."""
    ticks = nice_ticks(0, max((value for _, value, _ in values), default=0.0) or 1.0)
    step = 100 / max(1, len(values))
    drawn = Markup()
    for tick in ticks:
        y = 100 - 100 * tick / ticks[-1]
        drawn += Markup('<line class="grid" x1="0" x2="100" y1="{0:.1f}" y2="{0:.1f}"/>').format(y)
    for number, (_, value, tip) in enumerate(values):
        x, height = step * number, 100 * value / ticks[-1]
        drawn += Markup(
            '<g><rect class="slot" x="{:.2f}" y="0" width="{:.2f}" height="100"/>'
            '<rect class="bar" x="{:.2f}" y="{:.1f}" width="{:.2f}" height="{:.1f}"/><title>{}</title></g>'
        ).format(*(x, step), *(x + step * 0.14, 100 - height, step * 0.72, height, isolated(tip)))
    shown = [round(at * (len(values) - 1) / (_NAMES - 1)) for at in range(_NAMES)] if values else []
    names = Markup().join(_span(values[at][0]) for at in dict.fromkeys(shown))
    return Markup(
        '<figure class="chart"><span class="unit">{}</span><span class="axis">{}</span>{}'
        '<span class="names">{}</span></figure>'
    ).format(
        unit,
        Markup().join(_span(_written(tick)) for tick in reversed(ticks)),
        _svg(label, 100, 100, drawn, "plot"),
        names,
    )


def meter(label: str, used: float, limit: float, expected: float | None = None) -> Markup:
    """How much of a limit is used, and with a mark how much will be by the end of the period."""
    share = min(1.0, used / limit) if limit else 1.0
    drawn = Markup('<rect class="track" width="100" height="10"/>')
    if share > 0:
        drawn += Markup('<rect class="used {}" width="{:.1f}" height="10"/>').format(
            level(used, limit), max(1.5, 100 * share)
        )
    if expected is not None and limit:
        x = min(99.2, 100 * expected / limit)
        drawn += Markup('<rect class="expected" x="{:.1f}" width="0.8" height="10"/>').format(x)
    return _svg(label, 100, 10, drawn, "meter")


def progress(label: str, done: float, total: float) -> Markup:
    """How far some work has come."""
    drawn = Markup(
        '<rect class="track" width="100" height="10"/><rect class="used fine" width="{:.1f}" height="10"/>'
    )
    return _svg(label, 100, 10, drawn.format(100 * min(1.0, done / total) if total else 0), "meter")


def level(used: float, limit: float) -> Level:
    """How near the limit is."""
    if used < NEARLY * limit:
        return "fine"
    return "high" if used < ALMOST_ALL * limit else "full"


def share(part: float, whole: float) -> Markup:
    """A bar in a table of how much of the whole this is, for the eye alone: the number stands beside it."""
    width = 100 * min(1.0, max(0.0, part / whole)) if whole > 0 else 0.0
    return Markup(
        '<svg class="share" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="100" height="8"/><rect class="bar" width="{:.1f}" height="8"/></svg>'
    ).format(width)


def nice_ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """About so many round numbers, two at least, from one at or below `low` to one at or above `high`."""
    span = (high - low) or abs(high) or 1.0
    raw = span / wanted
    unit = 10 ** floor(log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw * 0.999999)
    first = floor(low / step + 1e-9)
    last = max(first + 1, ceil(high / step - 1e-9))
    return [round(number * step, 12) for number in range(first, last + 1)]


def _written(number: float) -> str:
    """In full: an axis of money in exponents is misread."""
    return f"{number:,.12f}".rstrip("0").rstrip(".")


def _span(words: str) -> Markup:
    return Markup("<span>{}</span>").format(Markup(in_html(words)))  # noqa: S704 (escaped there)


def _svg(label: str, width: float, height: float, drawn: Markup, kind: str) -> Markup:
    return Markup(
        '<svg class="{}" viewBox="0 0 {:g} {:g}" preserveAspectRatio="none" role="img" aria-label="{}">'
        "{}</svg>"
    ).format(kind, width, height, isolated(label), drawn)
