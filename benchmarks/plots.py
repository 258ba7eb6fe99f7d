"""The plots of docs/: accuracy by queries, and by labels and queries, and cost by the size of the work."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from markupsafe import Markup

from client.results.charts import Frame, svg, text
from client.results.comparison_table import Spread
from client.results.run_result import RunResult
from shared.pages.charts import nice_ticks

_STYLE = """
svg { fill: #444 } text { font: 11px system-ui, sans-serif; stroke: none }
.rule { stroke: #ddd } .whisker { stroke-width: 1 } .title { font-weight: 600 }
polyline.guide { stroke: #999; stroke-width: 1; stroke-dasharray: 2 4 }
polyline.flat { stroke-dasharray: 6 3 }
polyline { fill: none; stroke-width: 2 }
"""
_COLOURS = (
    "#1b6ca8",
    "#c8553d",
    "#2e7d4f",
    "#7b4fa3",
    "#a67c00",
    "#0b7a75",
    "#b03a7a",
    "#555555",
    "#8c2d04",
    "#3f51b5",
)
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
    drawn = frame.horizontals(ticks, "%")
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
    return _on_paper(600, 296, "Accuracy by the queries that a student was given", drawn)


def heat_map(shares: Mapping[tuple[int | None, int | None], float]) -> str:
    """Accuracy in % by labels a class (down) and queries (across), `None` for all; the darker the higher.

    A place that was not measured stays white and empty.
    """
    rows, columns = (
        sorted({place[side] for place in shares}, key=lambda number: math.inf if number is None else number)
        for side in (0, 1)
    )
    wide, high = 84.0, 34.0
    low, top = min(shares.values()), max(shares.values())
    frame = Frame(96, 26, wide * len(columns), high * len(rows), (0, len(columns)), (len(rows), 0))
    drawn = text(8, 16, "labels a class") + text(frame.left + frame.width / 2, 16, "queries", "middle")
    for down, row in enumerate(rows):
        drawn += text(frame.left - 8, frame.at(0, down + 0.5)[1] + 4, _number(row), "end")
    for across, column in enumerate(columns):
        drawn += text(frame.at(across + 0.5, 0)[0], frame.top + frame.height + 16, _number(column), "middle")
    for (row, column), share in shares.items():
        x, y = frame.at(columns.index(column), rows.index(row))
        dark = (share - low) / (top - low or 1)
        drawn += Markup(
            '<rect x="{:.1f}" y="{:.1f}" width="{:g}" height="{:g}" stroke="#fff" stroke-width="2"'
            ' fill="rgb({:.0f},{:.0f},{:.0f})"/>'
        ).format(x, y, wide, high, *(240 - dark * each for each in (213, 132, 72)))
        colour = "#fff" if dark > 0.6 else "#222"
        drawn += Markup('<g class="title" style="fill:{}">{}</g>').format(
            colour, text(x + wide / 2, y + high / 2 + 4, f"{share:.1f}", "middle")
        )
    return _on_paper(
        frame.left + frame.width + 12, frame.top + frame.height + 28, "Accuracy by labels and queries", drawn
    )


def _number(number: int | None) -> str:
    return "all" if number is None else f"{number:,}"


@dataclass(frozen=True)
class Grown:
    """Seconds by size: a line for each piece of work, and whether one time of it is meant (`flat`)."""

    title: str
    lines: Mapping[str, Sequence[tuple[int, float]]]
    flat: frozenset[str]


def growth(panels: Sequence[Grown]) -> str:
    """Seconds by the size of the work, both by their logarithms: a panel for each kind of size, two in a row.

    What should cost the same at any size is dashed and should be level; the rest should rise no more steeply
    than the dotted guide, ten times as much for ten times the work.
    """
    width, height = 500.0, 262.0
    drawn = Markup()
    for number, panel in enumerate(panels):
        drawn += _grown(panel, width * (number % 2), height * (number // 2))
    rows = math.ceil(len(panels) / 2)
    return _on_paper(2 * width, rows * height, "Seconds by the size of the work", drawn)


def _grown(panel: Grown, left: float, top: float) -> Markup:
    points = [point for line in panel.lines.values() for point in line]
    sizes = sorted({size for size, _ in points})
    across = (math.log10(sizes[0]), math.log10(sizes[-1]))
    bottom = math.floor(math.log10(min(seconds for _, seconds in points)))
    highest = math.ceil(math.log10(max(seconds for _, seconds in points)))
    frame = Frame(left + 56, top + 30, 262, 200, across, (bottom, highest))
    drawn = Markup('<text class="title" x="{:.1f}" y="{:.1f}">{}</text>').format(
        left + 56, top + 18, panel.title
    )
    for power in range(bottom, highest + 1):
        drawn += frame.line([(across[0], power), (across[1], power)], "rule")
        drawn += text(frame.left - 5, frame.at(0, power)[1] + 3.5, _time(10.0**power), "end")
    for size in sizes:
        drawn += text(frame.at(math.log10(size), 0)[0], top + 246, f"{size:,}", "middle")
    drawn += _guides(frame)
    ends = [frame.at(0, math.log10(line[-1][1]))[1] for line in panel.lines.values()]
    upwards = [-each for each in _apart([-each for each in ends])]  # below are the sizes
    for (name, line), colour, height in zip(panel.lines.items(), _COLOURS[: len(ends)], upwards, strict=True):
        logs = [(math.log10(size), math.log10(seconds)) for size, seconds in line]
        drawing = frame.line(logs, "flat" if name in panel.flat else "all")
        for point in logs:
            drawing += Markup('<circle stroke="none" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(
                *frame.at(*point)
            )
        drawing += text(frame.left + frame.width + 8, height + 4, name)
        drawn += Markup('<g stroke="{0}" fill="{0}">{1}</g>').format(colour, drawing)
    return drawn


def _guides(frame: Frame) -> Markup:
    """Lines of ten times as much for ten times the work, a hundred times apart."""
    (low, high), (bottom, top) = frame.x, frame.y
    drawn = Markup()
    for start in np.arange(bottom - (high - low), top, 2.0):
        begin, end = max(low, low + bottom - start), min(high, low + top - start)
        if begin < end:
            drawn += frame.line([(begin, start + begin - low), (end, start + end - low)], "guide")
    return drawn


def _time(seconds: float) -> str:
    for unit, name in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= 0.999 * unit:
            return f"{seconds / unit:,.0f} {name}"
    return f"{seconds / 1e-6:,.0f} µs"


def _on_paper(width: float, height: float, label: str, drawn: Markup) -> str:
    style = Markup(_STYLE)  # noqa: S704 (ours)
    paper = Markup('<style>{}</style><rect width="{:g}" height="{:g}" fill="#fff"/>')
    drawing = svg(width, height, label, paper.format(style, width, height) + drawn)
    return str(drawing).replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)


def _apart(heights: Sequence[float]) -> list[float]:
    """Where lines of text stand that are wanted at these heights, each below the one before it."""
    placed: dict[int, float] = {}
    for number in sorted(range(len(heights)), key=heights.__getitem__):
        lowest = max(placed.values(), default=-math.inf)
        placed[number] = max(heights[number], lowest + _LINE_HEIGHT)
    return [placed[number] for number in range(len(heights))]
