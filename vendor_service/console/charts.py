"""Charts as SVG, drawn by the server: they need no script, and colours come from the style sheet."""

from collections.abc import Sequence
from math import ceil, floor, log10

from markupsafe import Markup

from shared.text import isolated

_WIDTH, _HEIGHT = 720, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 6, 10, 24


def bars(label: str, values: Sequence[tuple[str, float, str]]) -> Markup:
    """A bar for each name, with its value and what is told of it when it is pointed at."""
    most = max((value for _, value, _ in values), default=0.0)
    ticks = nice_ticks(most)
    inner, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    step = inner / max(1, len(values))
    drawn = Markup()
    for tick in ticks:
        y = _TOP + high * (1 - tick / ticks[-1])
        drawn += Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
            _LEFT, _WIDTH - _RIGHT, y, y
        )
        drawn += _text(_LEFT - 8, y + 4, f"{tick:g}", "end")
    shown_every = max(1, ceil(len(values) / 8))
    for number, (name, value, tip) in enumerate(values):
        x, height = _LEFT + step * number, high * value / ticks[-1]
        drawn += Markup(
            '<g><rect class="slot" x="{:.1f}" y="{}" width="{:.1f}" height="{}"/>'
            '<rect class="bar" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="1.5"/>'
            "<title>{}</title></g>"
        ).format(
            *(x, _TOP, step, high),
            *(x + step * 0.14, _TOP + high - height, step * 0.72, height, tip),
        )
        if number % shown_every == 0:
            drawn += _text(x + step / 2, _HEIGHT - 6, name, "middle")
    return _svg(label, _WIDTH, _HEIGHT, drawn, "chart")


def meter(label: str, used: float, limit: float, expected: float | None = None) -> Markup:
    """How much of a limit is used, and with a mark how much will be by the end of the period."""
    share = min(1.0, used / limit) if limit else 1.0
    level = "full" if share >= 1 else "high" if share >= 0.8 else "fine"
    drawn = Markup('<rect class="track" x="0" y="2" width="400" height="10" rx="5"/>')
    if share > 0:
        drawn += Markup('<rect class="used {}" x="0" y="2" width="{:.1f}" height="10" rx="5"/>').format(
            level, max(6.0, 400 * share)
        )
    if expected is not None and limit:
        x = 400 * min(1.0, expected / limit)
        drawn += Markup('<rect class="expected" x="{:.1f}" y="0" width="2" height="14"/>').format(
            min(398.0, x)
        )
    return _svg(label, 400, 14, drawn, "meter")


def progress(label: str, done: int, total: int) -> Markup:
    """How far some work has come."""
    drawn = Markup('<rect class="track" x="0" y="2" width="400" height="10" rx="5"/>')
    if done:
        width = 400 * min(1.0, done / total)
        drawn += Markup('<rect class="used fine" x="0" y="2" width="{:.1f}" height="10" rx="5"/>').format(
            max(6.0, width)
        )
    return _svg(label, 400, 14, drawn, "meter")


def share_bar(value: float, most: float) -> Markup:
    """A small bar in a table, for the eye alone: the number stands beside it."""
    width = 0.0 if most <= 0 else 100 * max(0.0, value) / most
    return Markup(
        '<svg class="share" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="bar" x="0" y="0" width="{:.1f}" height="8" rx="1"/></svg>'
    ).format(width)


def nice_ticks(most: float, wanted: int = 4) -> list[float]:
    """About so many round numbers from 0 to one at or above `most`."""
    if most <= 0:
        return [0.0, 1.0]
    raw = most / wanted
    unit = 10.0 ** floor(log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw * 0.999999)
    return [round(step * number, 12) for number in range(ceil(most / step - 1e-9) + 1)]


def _text(x: float, y: float, words: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        x, y, anchor, isolated(words)
    )


def _svg(label: str, width: float, height: float, drawn: Markup, kind: str) -> Markup:
    return Markup('<svg class="{}" viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">{}</svg>').format(
        kind, width, height, label, drawn
    )
