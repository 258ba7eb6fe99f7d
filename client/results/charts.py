"""The report's drawings, as inline SVG: curves of training, reliability, and who was taken for whom.

Each is a few rectangles and lines, so no plotting library, script or font has to travel with the page.
Colours are classes of the page's style sheet. Everything that is written is escaped.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from client.results.calibration import Calibration
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
        drawn += Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="4"/>').format(x, y)
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
        drawn += Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(x, y)
    for tick in (0, 50, 100):
        drawn += text(frame.at(tick, 0)[0], 172, f"{tick}%", "middle")
    drawn += text(159, 186, "how sure it says it is", "middle")
    return svg(300, 190, label, drawn)


def shares(label: str, points: Sequence[tuple[float, float]], level: float, kind: str) -> Markup:
    """A value in % by a share in %, with the level that it comes to as a dashed line."""
    values = [level, *(value for _, value in points)]
    ticks = nice_ticks(min(values), max(values))
    frame = Frame(38, 8, 242, 150, (0, 100), (ticks[0], ticks[-1]))
    drawn = frame.horizontals(ticks, "%")
    drawn += frame.line([(0, level), (100, level)], "diagonal") + frame.line(points, f"curve {kind}")
    for tick in (0, 25, 50, 75, 100):
        drawn += text(frame.at(tick, 0)[0], 172, f"{tick}%", "middle")
    drawn += text(159, 186, "of the images asked about, the least sure first", "middle")
    return svg(300, 190, label, drawn)


def confusion_matrix(label: str, counts: Sequence[Sequence[int]], classes: Sequence[str]) -> Markup:
    """A square a pair of classes, darker for a larger share of its row; rows are the true classes."""
    side, margin = 11.0, 92.0
    size = margin + side * len(classes) + 2
    drawn = Markup()
    for row, (name, line) in enumerate(zip(classes, counts, strict=True)):
        y = margin + side * row
        drawn += text(margin - 4, y + 8.5, shortened(name), "end")
        drawn += Markup('<text transform="translate({:.1f},{:.1f}) rotate(-90)">{}</text>').format(
            y + 8.5, margin - 4, isolated(shortened(name))
        )
        total = sum(line)
        for column, count in enumerate(line):
            if count:
                tip = f"{isolated(name)} taken for {isolated(classes[column])}: {count} of {total}"
                drawn += _cell(margin + side * column, y, side, count / total, row == column, tip)
    outline = Markup('<rect class="outline" x="{0:g}" y="{0:g}" width="{1:g}" height="{1:g}"/>').format(
        margin, side * len(classes)
    )
    return svg(size, size, label, outline + drawn)


def _cell(x: float, y: float, side: float, share: float, right: bool, tip: str) -> Markup:
    return Markup(
        '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:g}" height="{:g}" fill-opacity="{:.2f}">'
        "<title>{}</title></rect>"
    ).format("right" if right else "wrong", x + 0.5, y + 0.5, side - 1, side - 1, 0.15 + 0.85 * share, tip)


def shortened(name: str) -> str:
    """A name that is too long for its place, cut."""
    return name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 1]}…"
