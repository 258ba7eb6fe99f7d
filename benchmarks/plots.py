"""A plot of docs/: accuracy by the queries that were spent."""

import math
from collections.abc import Callable, Sequence
from statistics import fmean

from markupsafe import Markup

from client.results.charts import Frame, svg, text
from client.results.comparison_table import Spread
from client.results.run_result import RunResult
from shared.pages.charts import nice_ticks

_STYLE = """
svg { fill: #444 } text { font: 11px system-ui, sans-serif; stroke: none }
.rule { stroke: #ddd } .whisker { stroke-width: 1 }
polyline { fill: none; stroke-width: 2 }
"""
_COLOURS = ("#1b6ca8", "#c8553d", "#2e7d4f", "#7b4fa3", "#a67c00")
_LINE_HEIGHT = 13.0


def plot(results: Sequence[RunResult]) -> str:
    """What is right in-domain, on unseen styles, and on the worst of them, with each row's queries.

    Queries stand across by their square root; a whisker is a sample deviation over seeds each way.
    """
    rows = [[r for r in results if r.method == name] for name in dict.fromkeys(r.method for r in results)]
    lines = {
        "in-domain": [_over_seeds(row, lambda each: fmean(r.in_domain or 0 for r in each)) for row in rows],
        "unseen styles": [
            _over_seeds(row, lambda each: fmean(r.out_of_domain for r in each)) for row in rows
        ],
        "the worst": [_over_seeds(row, lambda each: min(r.out_of_domain for r in each)) for row in rows],
    }
    queries = [fmean(r.queries for r in row) for row in rows]
    return _drawn([math.sqrt(each) for each in queries], [f"{each:,.0f}" for each in queries], lines)


def _over_seeds(results: Sequence[RunResult], of: Callable[[Sequence[RunResult]], float]) -> Spread:
    seeds = dict.fromkeys(r.seed for r in results)
    return Spread.of([of([r for r in results if r.seed == seed]) for seed in seeds])


def _drawn(across: Sequence[float], names: Sequence[str], lines: dict[str, list[Spread]]) -> str:
    reach = [
        s.mean + sign * (s.deviation or 0) for spreads in lines.values() for s in spreads for sign in (-1, 1)
    ]
    ticks = nice_ticks(min(reach), max(reach))
    margin = 0.1 * (max(across) - min(across))
    sides = (min(across) - margin, max(across) + margin)
    frame = Frame(46, 12, 470, 240, sides, (ticks[0], ticks[-1]))
    style = Markup(_STYLE)  # noqa: S704 (ours)
    paper = Markup('<style>{}</style><rect width="600" height="296" fill="#fff"/>').format(style)
    drawn = paper + frame.horizontals(ticks, "%")
    for x, name in zip(across, names, strict=True):
        drawn += text(frame.at(x, 0)[0], 268, name, "middle")
    drawn += text(281, 286, "queries", "middle")
    ends = [frame.at(0, spreads[-1].mean)[1] for spreads in lines.values()]
    for (name, spreads), colour, height in zip(lines.items(), _COLOURS, _apart(ends), strict=False):
        points = list(zip(across, spreads, strict=True))
        drawing = frame.line([(x, spread.mean) for x, spread in points if x], "mean")
        for x, spread in points:
            away = spread.deviation or 0
            drawing += frame.line([(x, spread.mean - away), (x, spread.mean + away)], "whisker")
            place = frame.at(x, spread.mean)
            drawing += Markup('<circle stroke="none" cx="{:.1f}" cy="{:.1f}" r="3.5"/>').format(*place)
        drawing += text(522, height + 4, name)
        drawn += Markup('<g stroke="{0}" fill="{0}">{1}</g>').format(colour, drawing)
    label = "Accuracy by the queries that a student was given"
    return str(svg(600, 296, label, drawn)).replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)


def _apart(heights: Sequence[float]) -> list[float]:
    """Where lines of text stand that are wanted at these heights, each below the one before it."""
    placed: dict[int, float] = {}
    for number in sorted(range(len(heights)), key=heights.__getitem__):
        lowest = max(placed.values(), default=-math.inf)
        placed[number] = max(heights[number], lowest + _LINE_HEIGHT)
    return [placed[number] for number in range(len(heights))]
