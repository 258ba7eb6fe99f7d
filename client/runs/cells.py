"""The cells of a comparison's table: a run each."""

from collections.abc import Sequence
from dataclasses import dataclass

from client.learning.methods import method_of
from client.learning.recipe import Variant
from client.results.asking import Answers, Right, price_of, right_of
from client.results.predictions import read_predictions
from client.results.records import Plan, Summary, held_out_whole
from client.results.run_result import RunResult, row_name
from client.runs.config import RunConfig
from client.runs.file_names import as_file_name
from client.runs.folder import RunFolder
from client.runs.trainer import same_steps
from client.runs.zero_shot import ZERO_SHOT, ZeroShotPlan, ZeroShotSummary


@dataclass(frozen=True)
class Cell:
    """One run of a comparison; labels a class and budget where these differ between its runs."""

    variant: Variant
    config: RunConfig
    run: RunFolder
    labels: int | None = None
    budget: int | None = None

    @property
    def target(self) -> str:
        """The domain that is held out: every run of a comparison has one."""
        assert self.config.target_domain is not None
        return self.config.target_domain

    @property
    def trains(self) -> bool:
        """Whether there is a student in it."""
        return self.variant.method != ZERO_SHOT

    @property
    def steps(self) -> RunConfig:
        """Equal for runs that take the same steps, and differ in which of their states they keep."""
        return same_steps(self.config) if self.trains else self.config

    @property
    def buys(self) -> bool:
        """Whether it takes anything from the vendor."""
        return not self.trains or method_of(self.variant.method).buys

    @property
    def result(self) -> RunResult:
        """The row that a finished run is in the table."""
        summary, plan = self.summary, self._plan
        queries = summary.queries_bought + summary.queries_cached
        if isinstance(summary, Summary) and isinstance(plan, Plan) and self._asks_bundled:
            taught = len(plan.source_domains) - len(held_out_whole(plan, summary.accuracy))
            seen = self.config.recipe.views_seen(summary.train_images, taught)
            queries = seen + len(plan.classes)
        cost = 0
        if plan.purchase and plan.model:
            texts = min(queries, plan.purchase.prompts)
            cost = plan.model.prices.cost_of({"image": queries - texts, "text": texts})
        out_of_domain = summary.accuracy.out_of_domain
        assert out_of_domain is not None  # a domain is held out
        by_twins = summary.accuracy.out_of_domain_over_twins
        return RunResult(
            method=self.variant.name,
            target=self.target,
            seed=self.config.seed,
            in_domain=summary.accuracy.in_domain,
            out_of_domain=out_of_domain,
            queries=queries,
            cost_micros=cost,
            seconds=sum(summary.seconds.get(stage, 0.0) for stage in ("align", "distill")),
            is_teacher=not self.trains,
            out_of_domain_interval=summary.accuracy.out_of_domain_interval,
            over_classes=summary.accuracy.out_of_domain_over_classes,
            in_domain_cross_fitted=summary.accuracy.in_domain_cross_fitted,
            over_twins=None if by_twins is None else by_twins.accuracy,
            labels=self.labels,
            budget=self.budget,
        )

    @property
    def summary(self) -> Summary | ZeroShotSummary:
        """What a finished run came to."""
        run = self.run
        return run.record(Summary, run.summary) if self.trains else run.record(ZeroShotSummary, run.summary)

    @property
    def _asks_bundled(self) -> bool:
        """Whether the bundled teacher is asked about every view."""
        return method_of(self.variant.method).teacher == "bundled"

    @property
    def _plan(self) -> Plan | ZeroShotPlan:
        run = self.run
        return run.record(Plan, run.plan) if self.trains else run.record(ZeroShotPlan, run.plan)


def name_of_run(
    variant: Variant, target: str, seed: int, labels: int | None = None, budget: int | None = None
) -> str:
    """The name of a cell's folder."""
    parts = {"labels": labels, "queries": budget}
    told = "".join(f"-{number}-{what}" for what, number in parts.items() if number is not None)
    return f"{variant.name}-{as_file_name(target)}-{seed}{told}"


def answers_of(cells: Sequence[Cell]) -> list[Answers]:
    """The answers of all students about their targets, where it is known how right the teacher is there.

    The teacher's own run says so, or what another run knows of it.
    """
    found = [(cell, cell.summary) for cell in cells]
    teachers: dict[str, Right] = {}
    for cell, summary in sorted(found, key=lambda each: each[0].trains):
        accuracy = summary.accuracy
        if isinstance(summary, Summary):
            known = right_of(summary, cell.target)
        else:
            known = Right(accuracy.by_domain[cell.target], accuracy.images_by_domain[cell.target])
        if known is not None:
            teachers.setdefault(cell.target, known)
    return [
        Answers(
            row_name(cell.variant.name, cell.labels, cell.budget),
            cell.target,
            [each for each in read_predictions(cell.run.answers) if not each.seen],
            teachers[cell.target],
        )
        for cell in cells
        if cell.trains and cell.target in teachers and cell.run.answers.exists()
    ]


def price_among(cells: Sequence[Cell]) -> tuple[int | None, str | None]:
    """The price of an image, in millionths of the currency, and the currency, by any run that knows it."""
    for cell in cells:
        summary = cell.summary
        if isinstance(summary, Summary) and summary.teacher is not None:
            return price_of(summary)
    return None, None


def by_steps(cells: Sequence[Cell]) -> list[Cell]:
    """Runs that take the same steps one after the other, so that these are taken, and kept, once."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(repr(cell.steps), []).append(cell)
    return [cell for group in groups.values() for cell in group]
