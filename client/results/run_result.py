"""The result of one run of a comparison."""

from dataclasses import dataclass

from client.results.intervals import Interval


@dataclass(frozen=True)
class RunResult:
    """The result of one run.

    Attributes:
        method: its row.
        target: the domain that was held out.
        seed: of the run.
        in_domain: mean accuracy over the hold-outs of the source domains, from 0 to 1; `None` where there
            is none.
        out_of_domain: accuracy on the target domain, from 0 to 1.
        queries: embeddings that it worked with, whoever paid for them.
        cost_micros: what these cost by the vendor's prices, bought for this run alone.
        seconds: of training, work that it shared with other runs included.
        is_teacher: whether this is the teacher's own answer: no student, and out of their competition.
        out_of_domain_interval: the 95% interval of `out_of_domain`; `None` from 1,000 images on.
        over_classes: as `out_of_domain`, but the mean over classes, so that a rare one counts as much as a
            common one; `None` where it was not measured.
        over_twins: as `out_of_domain`, but near twins count as one image together; `None` likewise.
        in_domain_cross_fitted: as `in_domain`, but on hold-outs that did not choose the weights; `None`
            where it was not measured.
        labels: how many labels a class had; `None` for all.
        budget: how many embeddings it might use, where budgets are compared; `None` for all that it asks.
    """

    method: str
    target: str
    seed: int
    in_domain: float | None
    out_of_domain: float
    queries: int
    cost_micros: int
    seconds: float
    is_teacher: bool = False
    out_of_domain_interval: Interval | None = None
    over_classes: float | None = None
    over_twins: float | None = None
    in_domain_cross_fitted: float | None = None
    labels: int | None = None
    budget: int | None = None

    @property
    def row(self) -> str:
        """The name of its row."""
        return row_name(self.method, self.labels, self.budget)


def row_name(method: str, labels: int | None, budget: int | None) -> str:
    """The method, and labels a class and budget where they are some of several."""
    told = "" if labels is None else f", {labels} label{'s' * (labels != 1)} a class"
    return method + told + ("" if budget is None else f", {budget:,} queries")
