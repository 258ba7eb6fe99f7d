"""The plan of a run, as files and commands show it."""

from collections import Counter

from client.data.finder import counted
from client.data.names import relative
from client.data.wording import Wording
from client.learning.methods import method_of, steps_of
from client.purchase.buyer import PurchaseOutlook
from client.purchase.plan import PurchasePlan
from client.results.expectations import gains_of
from client.results.records import AskedWording, Outlook, Plan, PlannedPurchase, SkippedFile
from client.runs.config import RunConfig
from client.runs.dataset import Dataset, unseen
from shared.embeddings import ModelCard


def _steps(config: RunConfig, dataset: Dataset, plan: PurchasePlan | None) -> int:
    """How many steps the last stage would take, with what the plan gets."""
    method = method_of(config.method)
    free = 0 if "images" in method.asks else len(dataset.unlabelled)
    settled = config.recipe.settled(
        domains=len(dataset.taught_domains),
        labelled=len(dataset.train),
        unlabelled=plan.had("unlabelled") if plan and not free else free,
    )
    return steps_of(method, settled)


def _asked_wording(config: RunConfig, wording: Wording) -> AskedWording:
    return AskedWording(
        templates=list(wording.templates or method_of(config.method).prompts.templates),
        words=dict(wording.words),
        prompts={name: list(prompts) for name, prompts in wording.prompts.items()},
    )


def describe_plan(
    config: RunConfig,
    dataset: Dataset,
    model: ModelCard | None,
    plan: PurchasePlan | None,
    outlook: Outlook | None = None,
) -> Plan:
    """Describe the plan of a run as `plan.json` holds it and `client plan --json` prints it."""
    base = dataset.folder.base
    return Plan(
        method=config.method,
        target_domain=dataset.target,
        source_domains=list(dataset.domains),
        classes=list(dataset.classes),
        wording=_asked_wording(config, dataset.wording),
        train_images=len(dataset.train),
        holdout_images=len(dataset.holdout),
        images_by_domain=dict(
            Counter(dataset.examples[position].domain for position in (*dataset.train, *dataset.holdout))
        ),
        unlabelled_images=len(dataset.unlabelled),
        unseen_images=unseen(config, dataset),
        steps=_steps(config, dataset, plan),
        left_out=counted(dataset.left_out),
        skipped=[SkippedFile(path=relative(s.path, base), reason=s.reason) for s in dataset.left_out],
        model=model,
        purchase=None if plan is None else PlannedPurchase.model_validate(plan.to_json()),
        outlook=outlook,
        gains=None
        if outlook is None
        else gains_of(config.method, config.recipe, held_out=dataset.target is not None),
    )


def describe_outlook(outlook: PurchaseOutlook) -> Outlook:
    """Describe a vendor's quote: the price, the limits of quota and money, and the time that it takes."""
    return Outlook(quote=outlook.quote, prices_known=outlook.prices_known, seconds=outlook.seconds)
