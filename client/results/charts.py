"""The report's drawings, as inline SVG: curves of training, reliability, and who was taken for whom.

Each is a few rectangles and lines, so no plotting library, script or font has to travel with the page.
Colours are classes of the page's style sheet. Everything that is written is escaped.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from client.results.calibration import Calibration
from client.results.paired import Difference
from shared.pages.charts import nice_ticks
from shared.text import isolated

_NAME_LENGTH = 15  # letters that a name has room for


@dataclass(frozen=True)
class Frame:
    """A rectangle of the drawing, in its units, and the values that its edges stand for."""

    left: float
    top: float
    width: float
    height: float
    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a value is drawn."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return self.left + self.width * across, self.top + self.height * (1 - up)

    def box(self, x: tuple[float, float], y: tuple[float, float], kind: str, tip: str = "") -> Markup:
        """A filled rectangle between values."""
        (left, bottom), (right, top) = self.at(x[0], y[0]), self.at(x[1], y[1])
        title = Markup("<title>{}</title>").format(tip) if tip else Markup()
        return Markup(
            '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">{}</rect>'
        ).format(kind, left, top, max(0.0, right - left), max(0.0, bottom - top), title)

    def line(self, points: Iterable[tuple[float, float]], kind: str) -> Markup:
        """A line through values."""
        path = " ".join("{:.1f},{:.1f}".format(*self.at(x, y)) for x, y in points)
        return Markup('<polyline class="{}" points="{}"/>').format(kind, path)

    def horizontals(self, ticks: Sequence[float], unit: str = "") -> Markup:
        """A rule across at each of these values, with its number on the left."""
        drawn = Markup()
        for tick in ticks:
            _, y = self.at(self.x[0], tick)
            drawn += self.line([(self.x[0], tick), (self.x[1], tick)], "rule")
            drawn += text(self.left - 5, y + 3.5, f"{tick:g}{unit}", "end")
        return drawn


def text(x: float, y: float, words: object, anchor: str = "start") -> Markup:
    """Words at a place; `anchor` is "start", "middle" or "end"."""
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        x, y, anchor, isolated(str(words))
    )


def svg(width: float, height: float, label: str, content: Markup) -> Markup:
    """A drawing that takes the width it is given, and its description for who cannot see it."""
    return Markup('<svg viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">{}</svg>').format(
        width, height, label, content
    )


def curve(label: str, points: Sequence[tuple[int, float]], kept: tuple[int, int], unit: str = "") -> Markup:
    """A value by step, with the steps whose weights were kept: a band, or a dot where it is one step."""
    if len(points) < 2:
        return Markup()
    values = [value for _, value in points]
    ticks = nice_ticks(min(values), max(values))
    low, high = min(ticks[0], *values), max(ticks[-1], *values)
    frame = Frame(38, 8, 190, 112, (0, points[-1][0]), (low, high))
    drawn = frame.horizontals(ticks, unit)
    if kept[0] < kept[1]:
        drawn += frame.box((kept[0] - 1, kept[1]), (low, high), "window", f"steps {kept[0]} to {kept[1]}")
    drawn += frame.line(points, "curve")
    marked = dict(points).get(kept[1])
    if kept[0] == kept[1] and marked is not None:
        x, y = frame.at(kept[1], marked)
        drawn += _dot(x, y, 4, "dot")
    drawn += text(38, 134, "0") + text(228, 134, f"step {points[-1][0]}", "end")
    return svg(236, 140, label, drawn)


def reliability(label: str, found: Calibration, kind: str) -> Markup:
    """Accuracy by confidence: on the diagonal a student is right as often as it says."""
    frame = Frame(38, 8, 242, 170, (0, 100), (0, 100))
    drawn = frame.horizontals((0, 25, 50, 75, 100), "%")
    for each in found.bins:
        tip = (
            f"{each.count} images: {100 * each.confidence:.0f}% sure on average, "
            f"{100 * each.accuracy:.0f}% right"
        )
        drawn += frame.box((100 * each.low + 0.6, 100 * each.high - 0.6), (0, 100 * each.accuracy), kind, tip)
    drawn += frame.line([(0, 0), (100, 100)], "diagonal")
    for tick in (0, 50, 100):
        drawn += text(frame.at(tick, 0)[0], 192, f"{tick}%", "middle")
    drawn += text(159, 206, "how sure it says it is", "middle")
    return svg(300, 210, label, drawn)


def frequencies(label: str, confidence: Sequence[float], accuracy: Sequence[float]) -> Markup:
    """How often a student is right in groups of images, by how sure it is of them; both from 0 to 1."""
    frame = Frame(38, 8, 242, 150, (0, 100), (0, 100))
    points = [(100 * sure, 100 * right) for sure, right in zip(confidence, accuracy, strict=True)]
    drawn = frame.horizontals((0, 25, 50, 75, 100), "%")
    drawn += frame.line([(0, 0), (100, 100)], "diagonal") + frame.line(points, "curve")
    for x, y in (frame.at(*point) for point in points):
        drawn += _dot(x, y, 3, "dot")
    for tick in (0, 50, 100):
        drawn += text(frame.at(tick, 0)[0], 172, f"{tick}%", "middle")
    drawn += text(159, 186, "how sure it says it is", "middle")
    return svg(300, 190, label, drawn)


@dataclass(frozen=True)
class ShareCurve:
    """A value in % by a share in %, the level that it comes to, and the colour of its line."""

    points: Sequence[tuple[float, float]]
    level: float
    kind: str


def shares(label: str, curves: Sequence[ShareCurve], marked: float | None = None) -> Markup:
    """Values by the share of images that are asked about, over one axis; levels are dashed lines.

    Args:
        label: says what is drawn.
        curves: at least one.
        marked: the share at which a line stands, which a slider moves; `None` for no line.
    """
    values = [value for each in curves for value in (each.level, *(value for _, value in each.points))]
    ticks = nice_ticks(min(values), min(100, max(values)))
    frame = Frame(38, 8, 242, 150, (0, 100), (ticks[0], ticks[-1]))
    drawn = frame.horizontals(ticks, "%")
    for each in curves:
        drawn += frame.line([(0, each.level), (100, each.level)], f"diagonal {each.kind}")
        drawn += frame.line(each.points, f"curve {each.kind}")
    for tick in (0, 25, 50, 75, 100):
        drawn += text(frame.at(tick, 0)[0], 172, f"{tick}%", "middle")
    drawn += text(159, 186, "of the images asked about, the least sure first", "middle")
    if marked is not None:
        x, _ = frame.at(marked, 0)
        drawn += Markup(
            '<line class="mark" data-from="{0:g}" data-width="{1:g}" x1="{2:.1f}" x2="{2:.1f}" y1="{3:g}" '
            'y2="{4:g}"/>'
        ).format(frame.left, frame.width, x, frame.top, frame.top + frame.height)
    return svg(300, 190, label, drawn)


@dataclass(frozen=True)
class Priced:
    """A method: what a run costs, its mean accuracy in %, that of each seed, and whether it competes."""

    name: str
    cost: float
    mean: float
    by_seed: Sequence[float]
    competes: bool = True


def frontier(label: str, methods: Sequence[Priced], unit: str) -> Markup:
    """Accuracy by cost: a dot a method with its name, small ones for its seeds, and a line through those that
    nothing cheaper beats.

    Args:
        label: says what is drawn.
        methods: at least one.
        unit: of the cost.
    """
    values = [value for each in methods for value in (each.mean, *each.by_seed)]
    across = nice_ticks(0, max(each.cost for each in methods))
    up = nice_ticks(min(values), max(values))
    frame = Frame(38, 8, 330, 190, (0, across[-1]), (up[0], up[-1]))
    drawn = frame.horizontals(up, "%")
    for tick in across:
        drawn += text(frame.at(tick, 0)[0], 212, f"{tick:g}", "middle")
    drawn += text(203, 226, unit, "middle")
    best: list[tuple[float, float]] = []
    for each in sorted(methods, key=lambda one: (one.cost, -one.mean)):
        if each.competes and (not best or each.mean > best[-1][1]):
            best += [(each.cost, best[-1][1])] if best else []
            best.append((each.cost, each.mean))
    drawn += frame.line(best, "curve")
    taken: list[tuple[bool, float]] = []
    for each in sorted(methods, key=lambda one: one.mean):
        kind = "dot" if each.competes else "dot teacher"
        for value in each.by_seed:
            drawn += _dot(*frame.at(each.cost, value), 2, f"{kind} seed")
        x, y = frame.at(each.cost, each.mean)
        drawn += _dot(x, y, 4, kind)
        right = x < frame.left + 0.6 * frame.width
        place = y + 3.5
        while any(abs(place - other) < 11 and side == right for side, other in taken):
            place -= 1
        taken.append((right, place))
        drawn += text(x + 8 if right else x - 8, place, shortened(each.name), "start" if right else "end")
    return svg(380, 232, label, drawn)


def _dot(x: float, y: float, radius: float, kind: str) -> Markup:
    return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{:g}"/>').format(kind, x, y, radius)


def differences(found: Sequence[Difference]) -> list[Markup]:
    """For a table: each difference as a mark in its interval, over one scale with 0 in the middle."""
    ends = [abs(value) for each in found for value in (each.mean, *(each.interval or ()))]
    half = 1.05 * max([1.0, *ends])
    drawings = []
    for each in found:
        at = [50 + 50 * value / half for value in (each.mean, *(each.interval or (each.mean, each.mean)))]
        drawn = Markup('<line class="diagonal" x1="50" x2="50" y1="0" y2="12"/>')
        drawn += Markup('<rect class="seen" x="{:.1f}" y="4" width="{:.1f}" height="4"/>').format(
            at[1], at[2] - at[1]
        )
        drawn += Markup('<rect class="right" x="{:.1f}" y="2" width="1.6" height="8"/>').format(at[0] - 0.8)
        drawings.append(
            Markup(
                '<svg class="difference" viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">'
                "{}</svg>"
            ).format(drawn)
        )
    return drawings


def confusion_matrix(label: str, counts: Sequence[Sequence[int]], classes: Sequence[str]) -> Markup:
    """A square a pair of classes, darker for a larger share of its row; rows are the true classes.

    It has the size of its letters, so a narrow page scrolls it, and the names of the rows stay in sight.
    """
    side = max(13.0, min(32.0, 260 / len(classes)))
    head, size = 104.0, side * len(classes)
    names, drawn = Markup(), Markup()
    for row, (name, line) in enumerate(zip(classes, counts, strict=True)):
        y = side * row
        names += text(98, head + y + side / 2 + 3.5, shortened(name), "end")
        drawn += Markup('<text transform="translate({:.1f},{:.1f}) rotate(-90)">{}</text>').format(
            y + side / 2 + 3.5, head - 5, isolated(shortened(name))
        )
        total = sum(line)
        for column, count in enumerate(line):
            if count:
                tip = f"{isolated(name)} taken for {isolated(classes[column])}: {count} of {total}"
                drawn += _cell(side * column, head + y, side, count / total, row == column, tip)
    outline = Markup('<rect class="outline" x="0" y="{:g}" width="{:g}" height="{:g}"/>').format(
        head, size, size
    )
    sized = Markup('<svg class="{}" width="{:g}" height="{:g}" {}>{}</svg>')
    height = head + size + 1
    return Markup('<div class="matrix" tabindex="0" role="region" aria-label="{}">').format(label) + (
        sized.format("names", 102, height, Markup('aria-hidden="true"'), names)
        + sized.format(
            "cells", size + 1, height, Markup('role="img" aria-label="{}"').format(label), outline + drawn
        )
        + Markup("</div>")
    )


def _cell(x: float, y: float, side: float, share: float, right: bool, tip: str) -> Markup:
    return Markup(
        '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:g}" height="{:g}" fill-opacity="{:.2f}">'
        "<title>{}</title></rect>"
    ).format("right" if right else "wrong", x + 0.5, y + 0.5, side - 1, side - 1, 0.15 + 0.85 * share, tip)


def shortened(name: str) -> str:
    """A name that is too long for its place, cut."""
    return name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 1]}…"
