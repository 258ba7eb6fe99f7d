"""Plots of docs/: accuracy by what was spent, a line for each style or mean of styles."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from client.results.charts import Frame, nice_ticks, svg, text
from client.results.comparison_table import Spread

_STYLE = """
svg { fill: #444 } text { font: 11px system-ui, sans-serif; stroke: none }
.rule { stroke: #ddd } .whisker { stroke-width: 1 }
polyline { fill: none; stroke-width: 2 }
"""
_COLOURS = ("#1b6ca8", "#c8553d", "#2e7d4f", "#7b4fa3", "#a67c00")
_LINE_HEIGHT = 13.0


@dataclass(frozen=True)
class Place:
    """Where points stand across.

    Attributes:
        x: the value.
        name: what stands below it; an empty one leaves it out.
        joined: whether the line runs through it.
    """

    x: float
    name: str
    joined: bool = True


def spent_and_gained(
    places: Sequence[Place], lines: Mapping[str, Sequence[Spread]], label: str, axis: str
) -> str:
    """Accuracy at each place, a line of each name; a whisker is a sample deviation each way."""
    reach = [
        s.mean + sign * (s.deviation or 0) for spreads in lines.values() for s in spreads for sign in (-1, 1)
    ]
    ticks = nice_ticks(min(reach), max(reach))
    left, right = min(place.x for place in places), max(place.x for place in places)
    margin = 0.1 * (right - left)
    frame = Frame(46, 12, 470, 240, (left - margin, right + margin), (ticks[0], ticks[-1]))
    style = Markup(_STYLE)  # noqa: S704 (ours)
    paper = Markup('<style>{}</style><rect width="600" height="296" fill="#fff"/>').format(style)
    drawn = paper + frame.horizontals(ticks, "%")
    for place in places:
        drawn += text(frame.at(place.x, 0)[0], 268, place.name, "middle") if place.name else Markup()
    drawn += text(281, 286, axis, "middle")
    ends = [frame.at(0, spreads[-1].mean)[1] for spreads in lines.values()]
    for (name, spreads), colour, height in zip(lines.items(), _COLOURS, _apart(ends), strict=False):
        points = list(zip(places, spreads, strict=True))
        drawing = frame.line([(place.x, spread.mean) for place, spread in points if place.joined], "mean")
        for place, spread in points:
            away = spread.deviation or 0
            ends_of = [(place.x, spread.mean - away), (place.x, spread.mean + away)]
            drawing += frame.line(ends_of, "whisker")
            x, y = frame.at(place.x, spread.mean)
            drawing += Markup('<circle stroke="none" cx="{:.1f}" cy="{:.1f}" r="3.5"/>').format(x, y)
        drawing += text(522, height + 4, name)
        drawn += Markup('<g stroke="{0}" fill="{0}">{1}</g>').format(colour, drawing)
    return str(svg(600, 296, label, drawn)).replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)


def _apart(heights: Sequence[float]) -> list[float]:
    """Where lines of text stand that are wanted at these heights, each below the one before it."""
    placed: dict[int, float] = {}
    for number in sorted(range(len(heights)), key=heights.__getitem__):
        lowest = max(placed.values(), default=-math.inf)
        placed[number] = max(heights[number], lowest + _LINE_HEIGHT)
    return [placed[number] for number in range(len(heights))]
