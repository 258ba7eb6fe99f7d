"""The purchase that a run would make, as far as its teacher is worth it, and a probe of that."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from client.errors import BudgetExhausted, UsageError
from client.purchase.buyer import Buyer
from client.purchase.plan import PurchasePlan
from client.results.records import TeacherCheck
from client.runs.config import RunConfig
from client.runs.dataset import Dataset
from client.runs.requirements import require_unrefused
from client.runs.supervision import known_of
from client.runs.teacher_check import FEWEST, check_teacher
from client.runs.teacher_queries import TeacherQueries, teacher_queries


def worth_asking(
    config: RunConfig, dataset: Dataset, asked: TeacherQueries, teacher: Buyer, *, folder: Path | None
) -> bool:
    """Whether, by what was bought of the labelled images, anything will be learnt of the teacher."""
    check = check_by_labelled(config, dataset, asked, teacher, folder=folder)
    return check is None or check.learnt_from


def plan_for(
    config: RunConfig,
    dataset: Dataset,
    asked: TeacherQueries,
    teacher: Buyer,
    *,
    folder: Path | None = None,
) -> tuple[PurchasePlan, TeacherCheck | None]:
    """Plan the run's purchase; the arguments are those of `worth_asking`.

    Where only images that come after the labelled ones are left to buy, and nothing will be learnt of the
    teacher, the plan is without them, and what was checked of the teacher comes with it.
    """
    directly = asked.needed_first if teacher.buys_by_jobs else ()
    plan = teacher.plan(asked.tranches(dataset), directly=directly)
    texts, labelled, further = asked.lots(plan.to_buy)
    if texts or labelled or not further:
        return plan, None
    check = check_by_labelled(config, dataset, asked, teacher, folder=folder)
    if check is None or check.learnt_from:
        return plan, None
    left_out = {*plan.to_buy, *plan.beyond}
    kept = asked.only([query for query in asked.all if query not in left_out])
    return teacher.plan(kept.tranches(dataset), directly=directly), check


def check_by_labelled(
    config: RunConfig, dataset: Dataset, asked: TeacherQueries, teacher: Buyer, *, folder: Path | None
) -> TeacherCheck | None:
    """The verdict of the labelled images that were bought; `None` where they are too few."""
    labelled = replace(asked, images=(asked.of("labelled"),))
    known, _ = known_of(config, dataset, labelled, teacher, folder=folder)
    return None if known is None else check_teacher(config, dataset, known).check


def probe(
    config: RunConfig, dataset: Dataset, teacher: Buyer, queries: int, approve: Callable[[int], None]
) -> TeacherCheck | None:
    """Buy the first queries of a run, and check the teacher by them; the run finds them in the cache.

    Raises:
        UsageError: so many do not reach beyond the class texts, or too few labelled images are asked about.
        BudgetExhausted: what was bought for it before leaves too little.
        DataError: the vendor refused a class text.
    """
    asked = teacher_queries(config.changed(use_at_most=None, select="stratified"), dataset)
    _require_enough(asked, queries)
    asked = asked.first(queries, dataset)
    approve(teacher.quote(asked.all).cost_micros)
    for lot in (asked.prompts, asked.all):
        teacher.buy(lot, used=asked.all).require_compared(teacher.budget)
        require_unrefused(asked.prompts, teacher)
    known, missing = known_of(config, dataset, asked, teacher)
    if known is None:
        raise BudgetExhausted(
            f"The budget of {teacher.budget.described} does not reach the class texts: "
            f"{teacher.spending.queries} queries were paid for this probe already. What was bought is kept: "
            f"the same command with {teacher.enough_for(missing, counted_by='--probe')} continues from here."
        )
    return check_teacher(config, dataset, known).check


def _require_enough(asked: TeacherQueries, queries: int) -> None:
    labelled, texts = len(asked.of("labelled").positions), len(asked.prompts)
    if labelled < FEWEST:
        raise UsageError(
            f"--probe judges the teacher by {FEWEST} labelled images or more, and the run asks about "
            f"{labelled}. Nothing is bought: leave --probe out, or give more images with labels."
        )
    if queries < texts + FEWEST:
        raise UsageError(
            f"{queries} queries do not reach {FEWEST} images beyond the {texts} class texts: probe with "
            f"{texts + 100}, for example."
        )
