"""What asking the teacher about the least sure images brings: accuracy, the worst class, and the price."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.learning.reliability import Reliability
from client.results.charts import ShareCurve, shares
from client.results.intervals import Interval, in_percent, interval_of_mix
from client.results.predictions import LabelledPrediction
from client.results.records import Summary
from shared.text import isolated

# The shares of the images that are asked about, as a slider has them.
SHARES = tuple(step / 20 for step in range(21))
# With fewer images, a class is the worst by chance; it counts where no class has more.
_ENOUGH_OF_A_CLASS = 5

Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Right:
    """How often a teacher is right, from 0 to 1.

    Attributes:
        accuracy: about all images.
        images: on how many that was measured; 0 where it is not known.
        by_class: about the images of a class, where that is known.
    """

    accuracy: float
    images: int = 0
    by_class: Mapping[str, float] = field(default_factory=dict)


def right_of(summary: Summary, domain: str | None = None) -> Right | None:
    """How right a run's teacher is by the names that its student asks by: in a domain, if that is known, or
    about the labelled images that were bought; `None` where neither is known.
    """
    check, known = summary.teacher_check, summary.teacher_zero_shot
    by_class = {} if check is None else check.by_class
    if domain in known:
        return Right(known[domain].accuracy, known[domain].images, by_class)
    if check is None or not check.accuracy_by_names:
        return None
    return Right(check.accuracy_by_names, sum(each.images for each in check.by_domain.values()), by_class)


@dataclass(frozen=True)
class WorstClass:
    """The class that is named right least often: how often, from 0 to 1, and of how many images."""

    name: str
    accuracy: float
    images: int


@dataclass(frozen=True)
class Asked:
    """What to expect where a share of the images is asked about.

    Attributes:
        share: of the images, the least sure first, from 0 to 1.
        accuracy: of student and teacher together, from 0 to 1.
        interval: its 95% interval.
        worst: the worst class; `None` where answers by class are not known.
    """

    share: float
    accuracy: float
    interval: Interval
    worst: WorstClass | None = None


def asked_by_share(predictions: Sequence[LabelledPrediction], teacher: Right, copies: int = 1) -> list[Asked]:
    """What to expect at each of `SHARES`, from a student's answers, at least one.

    The teacher is taken to be as right about unsure images as about all, which it may not be.

    Args:
        predictions: the answers.
        teacher: how right it is.
        copies: how many students answered about the same images.
    """
    order = np.argsort([each.confidence for each in predictions], kind="stable")
    ranked = [predictions[place] for place in order]
    right, counts = np.array([float(each.right) for each in ranked]), np.full(len(ranked), 1 / copies)
    classes = _classes(ranked, teacher, copies)
    found = []
    for share in SHARES:
        asked = _asked(share, counts)
        worst = min((each.at(asked, right) for each in classes), key=lambda each: each.accuracy)
        found.append(_point(share, asked, right, counts, teacher, worst))
    return found


@dataclass(frozen=True)
class Answers:
    """What a method's student answered about a held-out domain, and how right the teacher is there."""

    method: str
    target: str
    predictions: Sequence[LabelledPrediction]
    teacher: Right


def mean_of(asked: Mapping[str, Asked]) -> Asked:
    """The mean over domains at one share, and the worst class of all of them with its domain."""
    points, part = list(asked.values()), 1 / len(asked)
    mean = part * sum(each.accuracy for each in points)
    below, above = (
        part * math.sqrt(sum((each.accuracy - each.interval[side]) ** 2 for each in points))
        for side in (0, 1)
    )
    named = [
        WorstClass(f"{each.worst.name}, {domain}", each.worst.accuracy, each.worst.images)
        for domain, each in asked.items()
        if each.worst is not None
    ]
    worst = min(named, key=lambda each: each.accuracy, default=None)
    return Asked(points[0].share, mean, (mean - below, mean + above), worst)


def asked_by_hold_outs(known: Reliability, teacher: Right) -> list[Asked]:
    """The same from what a student's file says of the hold-outs; it knows no classes."""
    right, counts = np.array(known.accuracy), np.array(known.counts, np.float64)
    return [_point(share, _asked(share, counts), right, counts, teacher) for share in SHARES]


def _asked(share: float, counts: Rows) -> Rows:
    """The part of each row that is asked about, shape (n,); rows are in order, the least sure first."""
    before = np.cumsum(counts) - counts
    asked: Rows = np.clip((share * counts.sum() - before) / counts, 0, 1)
    return asked


def _point(
    share: float, asked: Rows, right: Rows, counts: Rows, teacher: Right, worst: WorstClass | None = None
) -> Asked:
    own = (1 - asked) * counts
    images = float(own.sum())
    alone = float((own * right).sum() / images) if images > 0 else 0.0
    accuracy, interval = interval_of_mix([
        (1 - share, alone, images), (share, teacher.accuracy, teacher.images),
    ])  # fmt: skip
    return Asked(share, accuracy, interval, worst)


@dataclass(frozen=True)
class _Class:
    """The images of a class: their rows, and how right the teacher is about them."""

    name: str
    rows: NDArray[np.intp]
    images: int
    teacher: float

    def at(self, asked: Rows, right: Rows) -> WorstClass:
        mine = asked[self.rows]
        accuracy = float((mine * self.teacher + (1 - mine) * right[self.rows]).mean())
        return WorstClass(self.name, accuracy, self.images)


def _classes(ranked: Iterable[LabelledPrediction], teacher: Right, copies: int) -> list[_Class]:
    rows: dict[str, list[int]] = {}
    for row, each in enumerate(ranked):
        rows.setdefault(each.label, []).append(row)
    enough = {name for name, each in rows.items() if len(each) >= copies * _ENOUGH_OF_A_CLASS} or set(rows)
    return [
        _Class(name, np.array(each), len(each) // copies, teacher.by_class.get(name, teacher.accuracy))
        for name, each in sorted(rows.items())
        if name in enough
    ]


@dataclass(frozen=True)
class OfImages:
    """What asking brings to one kind of images.

    Attributes:
        name: of these images, as a page calls them.
        seen: whether the student learnt from images like these.
        teacher: how right the teacher is about them.
        asked: a point for each of `SHARES`.
    """

    name: str
    seen: bool
    teacher: Right
    asked: Sequence[Asked]


def asking_of(summary: Summary, predictions: Sequence[LabelledPrediction]) -> dict[str, Any] | None:
    """What a template shows of a run's slider; `None` where it is not known how right its teacher is.

    Where that is not known of the target, the teacher is taken to be as right as about the training images,
    which is `supposed`.
    """
    target = summary.target_domain
    answers = ([a for a in predictions if a.seen], [a for a in predictions if not a.seen])
    names, known = ("held-out images", str(target)), (right_of(summary), right_of(summary, target))
    kinds = [
        OfImages(name, name == names[0], teacher, asked_by_share(some, teacher))
        for name, some, teacher in zip(names, answers, known, strict=True)
        if some and teacher
    ]
    if not kinds:
        return None
    supposed = target is not None and target not in summary.teacher_zero_shot and not kinds[-1].seen
    return {
        **slider(kinds, *price_of(summary)),
        "supposed": kinds[-1].teacher.accuracy if supposed else None,
        "target": target,
    }


def price_of(summary: Summary) -> tuple[int | None, str | None]:
    """The price of an image, in millionths of the currency, and the currency; `None` where not known."""
    teacher = summary.teacher
    return (None, None) if teacher is None else (teacher.prices.image_micros, teacher.currency)


def slider(
    kinds: Sequence[OfImages], image_micros: int | None, currency: str | None, *, share: float = 0.2
) -> dict[str, Any]:
    """What a template shows of a slider over `SHARES`: texts for each place of it, and a drawing.

    Args:
        kinds: at least one.
        image_micros: the price of asking about an image, in millionths of the currency; `None` where it is
            not known.
        currency: of the vendor; `None` where it names none.
        share: where the slider stands at first.
    """
    curves = [
        ShareCurve(
            [(100 * each.share, 100 * each.accuracy) for each in kind.asked],
            100 * kind.teacher.accuracy,
            "seen" if kind.seen else "unseen",
        )
        for kind in kinds
    ]
    start = min(range(len(SHARES)), key=lambda place: abs(SHARES[place] - share))
    label = "Accuracy by the share of images that the teacher is asked about"
    return {
        "percents": [f"{100 * each:.0f}%" for each in SHARES],
        "start": start,
        "kinds": [_texts(kind) for kind in kinds],
        "price": [price_of_thousand(each, image_micros, currency) for each in SHARES],
        "drawing": shares(label, curves, 100 * SHARES[start]),
    }


def price_of_thousand(share: float, image_micros: int | None, currency: str | None) -> str:
    """The price of a thousand images of which a share is asked about, in words."""
    if share == 0:
        return "nothing"
    if image_micros is None:
        return f"{1000 * share:.0f} queries"
    return f"{1000 * share * image_micros / 1e6:.4f} {currency or 'units'}"


def _texts(kind: OfImages) -> dict[str, Any]:
    worst = [each.worst for each in kind.asked if each.worst is not None]
    return {
        "name": kind.name,
        "seen": kind.seen,
        "accuracy": [f"{100 * each.accuracy:.1f}%" for each in kind.asked],
        "interval": [in_percent(each.interval) for each in kind.asked],
        "worst": [f"{100 * each.accuracy:.1f}%" for each in worst],
        "worst_class": [f"{isolated(each.name)} ({each.images:,} images)" for each in worst],
    }
