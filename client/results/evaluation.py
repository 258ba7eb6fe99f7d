"""Accuracy by domain, in the domains that were trained on and in the one that was not."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Self, TypeVar

from client.results.intervals import Interval, interval_of, interval_of_mean
from client.results.predictions import LabelledPrediction
from client.results.records import Accuracy, GroupedAccuracy

Cell = TypeVar("Cell", bound=Hashable)
# What metrics.jsonl calls the halves of the hold-outs.
HALVES = ("first_half", "second_half")


@dataclass(frozen=True)
class ShareCorrect:
    """A domain's share of right predictions, from 0 to 1, and of how many images."""

    accuracy: float
    images: int


@dataclass(frozen=True)
class Evaluation:
    """Accuracy of a student on the hold-outs of the source domains and on the whole target domain, if any.

    In-domain and out-of-domain accuracy are means over domains, as DomainBed averages them. `over_classes`
    has each domain's mean over classes, in which a class of few images counts as much as one of many.
    `over_twins` has each domain's mean over groups of near twins, in which a group counts as one image.
    """

    sources: Mapping[str, ShareCorrect]
    targets: Mapping[str, ShareCorrect]
    over_classes: Mapping[str, float] = field(default_factory=dict)
    over_twins: Mapping[str, ShareCorrect] = field(default_factory=dict)

    @classmethod
    def of(cls, predictions: Sequence[LabelledPrediction], twins: Sequence[int] | None = None) -> Self:
        """The accuracy of these predictions; `twins` has a number for each, which near twins share."""

        def accuracy(*, seen: bool) -> dict[str, ShareCorrect]:
            chosen = [prediction for prediction in predictions if prediction.seen == seen]
            return accuracy_by_domain([a.right for a in chosen], [a.domain for a in chosen])

        over_classes = accuracy_over_classes(
            [a.right for a in predictions], [a.domain for a in predictions], [a.label for a in predictions]
        )
        over_twins = (
            {}
            if twins is None
            else accuracy_over_twins([a.right for a in predictions], [a.domain for a in predictions], twins)
        )
        return cls(accuracy(seen=True), accuracy(seen=False), over_classes, over_twins)

    @property
    def in_domain(self) -> float | None:
        """Mean accuracy over the hold-outs of the source domains, from 0 to 1; `None` if there are none."""
        return fmean(domain.accuracy for domain in self.sources.values()) if self.sources else None

    @property
    def out_of_domain(self) -> float | None:
        """Mean accuracy over the domains that were never trained on, from 0 to 1; `None` if there is none."""
        return fmean(domain.accuracy for domain in self.targets.values()) if self.targets else None

    @property
    def by_domain(self) -> dict[str, ShareCorrect]:
        """Every domain's accuracy: source domains on their hold-outs."""
        return {**self.sources, **self.targets}

    @property
    def worst_domain(self) -> str | None:
        """The domain with the lowest accuracy; `None` where nothing is measured."""
        domains = self.by_domain
        return min(domains, key=lambda name: domains[name].accuracy, default=None)

    @property
    def record(self) -> Accuracy:
        """As `summary.json` holds it: shares from 0 to 1, unrounded."""
        return Accuracy(
            in_domain=self.in_domain,
            out_of_domain=self.out_of_domain,
            by_domain={name: domain.accuracy for name, domain in self.by_domain.items()},
            images_by_domain={name: domain.images for name, domain in self.by_domain.items()},
            worst_domain=self.worst_domain,
            intervals_by_domain={
                name: interval
                for name, domain in self.by_domain.items()
                if (interval := interval_of(domain.accuracy, domain.images)) is not None
            },
            in_domain_interval=_interval_over(self.sources),
            out_of_domain_interval=_interval_over(self.targets),
            in_domain_over_classes=self._over_classes(self.sources),
            out_of_domain_over_classes=self._over_classes(self.targets),
            in_domain_over_twins=self._over_twins(self.sources),
            out_of_domain_over_twins=self._over_twins(self.targets),
            twin_groups_by_domain={name: domain.images for name, domain in self.over_twins.items()},
        )

    def _over_twins(self, domains: Mapping[str, ShareCorrect]) -> GroupedAccuracy | None:
        known = {name: self.over_twins[name] for name in domains if name in self.over_twins}
        if not known:
            return None
        return GroupedAccuracy(
            accuracy=fmean(domain.accuracy for domain in known.values()), interval=_interval_over(known)
        )

    def _over_classes(self, domains: Mapping[str, ShareCorrect]) -> float | None:
        known = [self.over_classes[name] for name in domains if name in self.over_classes]
        return fmean(known) if known else None


def _interval_over(domains: Mapping[str, ShareCorrect]) -> Interval | None:
    return interval_of_mean((each.accuracy, each.images) for each in domains.values())


def cross_fitted(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """The accuracy on hold-outs that did not choose the state: each half scores the state best on the other.

    `rows` are of metrics.jsonl, of one stage. Among equally accurate states the one with the lowest loss
    counts, then the latest, as in a run. `None` where no half was scored.
    """
    scored = [row for row in rows if all(f"{half}_accuracy" in row for half in HALVES)]
    if not scored:
        return None
    shares = []
    for one, other in (HALVES, HALVES[::-1]):
        best = max(scored, key=lambda row: (row[f"{one}_accuracy"], -row[f"{one}_loss"], row["step"]))
        shares.append(float(best[f"{other}_accuracy"]))
    return fmean(shares)


def accuracy_by_domain(right: Sequence[bool], domains: Sequence[str]) -> dict[str, ShareCorrect]:
    """The share of right predictions of each domain, given each image's prediction and domain."""
    return dict(sorted(accuracy_by_cell(right, domains).items()))


def accuracy_over_classes(
    right: Sequence[bool], domains: Sequence[str], labels: Sequence[Hashable]
) -> dict[str, float]:
    """The mean over classes of each domain's share of right predictions; classes without an image are left
    out."""
    cells = accuracy_by_cell(right, list(zip(domains, labels, strict=True)))
    by_domain: dict[str, list[float]] = {}
    for (domain, _), share in cells.items():
        by_domain.setdefault(domain, []).append(share.accuracy)
    return {domain: fmean(shares) for domain, shares in sorted(by_domain.items())}


def accuracy_over_twins(
    right: Sequence[bool], domains: Sequence[str], twins: Sequence[int]
) -> dict[str, ShareCorrect]:
    """Each domain's mean over groups of near twins of the share that is right, and of how many groups."""
    groups: dict[str, list[float]] = {}
    for (domain, _), share in accuracy_by_cell(right, list(zip(domains, twins, strict=True))).items():
        groups.setdefault(domain, []).append(share.accuracy)
    return {domain: ShareCorrect(fmean(votes), len(votes)) for domain, votes in sorted(groups.items())}


def accuracy_by_cell(right: Sequence[bool], cells: Sequence[Cell]) -> dict[Cell, ShareCorrect]:
    """The share of right predictions of each cell, given each image's prediction and cell."""
    images, hits = Counter(cells), Counter(c for c, hit in zip(cells, right, strict=True) if hit)
    return {cell: ShareCorrect(hits[cell] / count, count) for cell, count in images.items()}
