"""The plan of a run: its images, its queries, and their price."""

import hashlib

from client.api.comparison import Comparison, compare
from client.api.confirm import Confirm, purchases
from client.api.settling import run_config, with_files
from client.errors import UsageError
from client.learning.methods import method_of
from client.learning.processes import chosen_device
from client.options.training import CompareOptions, DistillOptions
from client.progress import Display, ProgressListener
from client.purchase.buyer import Buyer
from client.results.records import Plan, TeacherCheck, TriedWording
from client.runs import forecast
from client.runs.config import RunConfig
from client.runs.connection import Connection
from client.runs.dataset import Dataset, read_dataset
from client.runs.folder import RunFolder
from client.runs.generations import seen_before
from client.runs.memo import Memo
from client.runs.mentions import mention_arithmetic, mention_skipped
from client.runs.plans import describe_outlook, describe_plan, describe_time
from client.runs.prompt_trial import prompt_trial
from client.runs.requirements import require_images, require_prompts
from client.runs.teacher_queries import teacher_queries

_STUDY_STEPS = 300


def plan(
    options: DistillOptions,
    *,
    probe: int = 0,
    try_prompts: bool = False,
    confirm: Confirm | None = None,
    progress: ProgressListener | None = None,
) -> Plan:
    """Plan a run: its images, its queries, and their price; spends nothing without `probe` or `try_prompts`.

    It writes to the cache and beside it alone: it keeps what it learns of the files, so that the next command
    is quick.

    Args:
        options: the run. A `budget` of `None` is no limit here. Where `out` holds the run already, what it
            has paid counts, and it goes on with its model and its record of what its weights have seen.
        probe: how many of the run's first queries to buy now, for `Plan.teacher_check`. The run finds them in
            the cache.
        try_prompts: whether to buy the texts of several wordings, and up to 100 labelled images, to see which
            wording they prefer (`Plan.tried_prompts`): the prompts of the options, or else common ones.
        confirm: is asked whether a probe of more than five units may be bought, unless the options say so.
        progress: is told how the work goes on.

    Raises:
        UsageError: an option or the image folder is not what a run needs, or the probe exceeds the budget.
        VendorError: the vendor does not answer, or refuses.
    """
    return _planned(
        options, probe=probe, try_prompts=try_prompts, confirm=confirm, progress=progress, is_dry_run=False
    )


def study(
    options: DistillOptions,
    planned: Plan,
    *,
    confirm: Confirm | None = None,
    progress: ProgressListener | None = None,
) -> Comparison:
    """Measure what labels and queries are worth on the images of a plan: short runs, a domain held out.

    They have 1, 4, 16 and all labels a class, as far as there are more, and the class texts alone, all
    queries of the plan, and what lies between; beside them stands `label-only`, which asks nothing. All is
    bought first, after one quote, and a later run finds what it asks, too.

    Args:
        options: those of the plan.
        planned: the plan.
        confirm: is asked whether a purchase of more than five units may begin, unless the options say so.
        progress: is told how the work goes on.

    Raises:
        UsageError: there are no two domains, or the method asks nothing.
        ClientError: see client/errors.py; what was bought and trained so far is kept.
    """
    if planned.purchase is None:
        raise UsageError(f"The method {planned.method} asks nothing, so --study has nothing to compare.")
    labels = (planned.train_images + planned.holdout_images) / len(planned.classes)
    texts, most = planned.purchase.prompts, planned.purchase.cached + planned.purchase.to_buy
    budgets = sorted({texts, round((texts * most) ** 0.5), most} - {0})
    shared = CompareOptions.model_fields.keys() & DistillOptions.model_fields.keys()
    given = {name: getattr(options, name) for name in shared - {"budget", "out", "steps"}}
    domain = planned.target_domain or planned.source_domains[0]
    rows = ("label-only", options.method)
    few = [each for each in (1, 4, 16) if each < labels]
    steps = min(options.steps or _STUDY_STEPS, _STUDY_STEPS)
    runs = (len(few) + 1) * (len(budgets) + 1)
    if planned.training_seconds is not None:
        minutes = runs * planned.training_seconds * steps / planned.steps / 60
        Display.of(progress).note(f"{runs} runs of {steps} steps, about {minutes:.0f} minutes of training.")
    return compare(
        CompareOptions(
            **given,
            out=options.out or run_config(options).usual_folder.with_name(f"study-{domain}"),
            methods=rows,
            target_domains=(domain,),
            seeds=1,
            steps=steps,
            labels=(*few, "all"),
            budgets=tuple(budgets),
        ),
        confirm=confirm,
        progress=progress,
    )


def _planned(
    options: DistillOptions,
    *,
    probe: int,
    try_prompts: bool,
    confirm: Confirm | None,
    progress: ProgressListener | None,
    is_dry_run: bool,
) -> Plan:
    if options.budget is not None and probe > options.budget:
        raise UsageError(
            f"--probe {probe} is more than --budget {options.budget}: nothing is bought beyond the budget."
        )
    options = with_files(options, progress)
    config, connection = run_config(options), Connection(options, progress)
    run = None if options.out is None else RunFolder(options.out)
    run_id = "plan"
    if run is not None:
        run_id = run.id_of(config) or run_id
    display = connection.display
    seen = seen_before(config, run, display)
    dataset = read_dataset(config, display, Memo(files=connection.files), seen=seen)
    planned, purchase = describe_plan(config, dataset, None, None), None
    if try_prompts and "images" not in method_of(config.method).asks:
        raise UsageError(
            f"The method {config.method} asks a vendor about no images: nothing to try prompts with."
        )
    if method_of(config.method).buys:
        with connection.teacher(run_id=run_id, budget=options.budget, run=run) as teacher:
            checked = _probed(options, config, dataset, teacher, probe, confirm) if probe else None
            tried = _tried(options, config, dataset, teacher, confirm) if try_prompts else None
            asked = teacher_queries(config, dataset)
            mention_arithmetic(teacher.model, config.recipe, display)
            purchase, weak = forecast.plan_for(config, dataset, asked, teacher)
            if is_dry_run:
                require_prompts(asked, purchase, teacher)
                require_images(dataset, asked, purchase, teacher)
            if in_jobs := teacher.left_to_jobs(purchase.to_buy):
                display.note(
                    f"{in_jobs} of the queries to buy are in bulk jobs that have begun: what these bring is "
                    "fetched, and not paid for twice."
                )
            outlook = describe_outlook(teacher.outlook(purchase.to_buy))
            planned = describe_plan(config, dataset, teacher.model, purchase, outlook)
        planned = planned.model_copy(update={"teacher_check": checked or weak, "tried_prompts": tried})
    seconds = describe_time(config, dataset, purchase, chosen_device(options.device))
    planned = planned.model_copy(update={"training_seconds": seconds})
    mention_skipped(dataset.left_out, dataset.folder.base, display, listed_in="--json")
    return planned


def dry_run(options: DistillOptions, *, progress: ProgressListener | None = None) -> Plan:
    """Plan the rest of a run that `distill` would go on with; spends nothing, and writes as `plan` does.

    Raises:
        UsageError: an option, the image folder or the run's folder is not what a run needs.
        BudgetExhausted: the budget does not reach the class prompts, or an image to train on.
        VendorError: the vendor does not answer, or refuses.
    """
    options = with_files(options, progress)
    path = options.out or run_config(options).usual_folder
    begun = options.model_copy(update={"out": path})
    return _planned(begun, probe=0, try_prompts=False, confirm=None, progress=progress, is_dry_run=True)


def _probed(
    options: DistillOptions,
    config: RunConfig,
    dataset: Dataset,
    teacher: Buyer,
    queries: int,
    confirm: Confirm | None,
) -> TeacherCheck | None:
    """Buy the first queries of a run; what was bought of this teacher for the same run counts among them."""
    most = options.max_spend_micros
    approve = purchases(agreed=options.agreed, confirm=confirm)
    probing = teacher.for_run(_id_of(config, dataset, teacher), budget=queries, max_spend_micros=most)
    return forecast.probe(config, dataset, probing, queries, approve)


def _tried(
    options: DistillOptions,
    config: RunConfig,
    dataset: Dataset,
    teacher: Buyer,
    confirm: Confirm | None,
) -> list[TriedWording]:
    """Buy the texts of several wordings and a few labelled images, within the budget."""
    approve = purchases(agreed=options.agreed, confirm=confirm)
    trying = teacher.for_run(
        f"prompts-{_id_of(config, dataset, teacher)}",
        budget=options.budget,
        max_spend_micros=options.max_spend_micros,
    )
    return prompt_trial(config, dataset).buy(trying, approve)


def _id_of(config: RunConfig, dataset: Dataset, teacher: Buyer) -> str:
    """The run that a probe's purchases are counted under."""
    images, asked = (dataset.content, dataset.classes), (dataset.wording, config.method, config.seed)
    told = (*images, *asked, teacher.model.fingerprint)
    return f"probe-{hashlib.sha256(repr(told).encode()).hexdigest()[:16]}"
