"""The plan of a run, as files and commands show it."""

from collections import Counter

from client.data.finder import counted
from client.data.names import relative
from client.data.wording import Wording
from client.learning.methods import method_of, steps_of
from client.learning.recipe import Recipe
from client.purchase.buyer import PurchaseOutlook
from client.purchase.plan import PurchasePlan
from client.results.expectations import gains_of
from client.results.plane import measured_plane
from client.results.records import AskedWording, Outlook, Plan, PlannedPurchase, SkippedFile
from client.runs.config import RunConfig
from client.runs.dataset import Dataset, unseen
from client.runs.training_time import training_seconds
from shared.embeddings import ModelCard


def _unlabelled(config: RunConfig, dataset: Dataset, plan: PurchasePlan | None) -> int:
    """How many images without labels a run would learn from, with what the plan gets."""
    if "images" not in method_of(config.method).asks:
        return len(dataset.unlabelled)
    return plan.had("unlabelled") if plan else 0


def _settled(config: RunConfig, dataset: Dataset, plan: PurchasePlan | None) -> Recipe:
    return config.recipe.settled(
        domains=len(dataset.taught_domains),
        labelled=len(dataset.train),
        unlabelled=_unlabelled(config, dataset, plan),
    )


def describe_time(
    config: RunConfig, dataset: Dataset, plan: PurchasePlan | None, device: str
) -> float | None:
    """About how many seconds the run would train on this device; `None` where that cannot be told."""
    unlabelled = _unlabelled(config, dataset, plan)
    recipe = _settled(config, dataset, plan)
    return training_seconds(config, dataset, recipe, unlabelled=unlabelled, device=device)


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
    gains = None
    if outlook is not None:
        gains = gains_of(config.method, config.recipe, held_out=dataset.target is not None)
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
        steps=steps_of(method_of(config.method), _settled(config, dataset, plan)),
        left_out=counted(dataset.left_out),
        skipped=[SkippedFile(path=relative(s.path, base), reason=s.reason) for s in dataset.left_out],
        model=model,
        purchase=None if plan is None else PlannedPurchase.model_validate(plan.to_json()),
        outlook=outlook,
        gains=gains,
        advice=_advice(dataset, plan) if gains is not None and plan is not None else None,
    )


def _advice(dataset: Dataset, plan: PurchasePlan) -> str | None:
    """What the plane of the icons says; of a pool it was measured on a style that is held out."""
    labelled = len(dataset.train) + len(dataset.holdout)
    if not labelled or (dataset.unlabelled and dataset.target is None):
        return None
    return measured_plane().advice(labelled / len(dataset.classes), plan.cached + len(plan.to_buy))


def describe_outlook(outlook: PurchaseOutlook) -> Outlook:
    """Describe a vendor's quote: the price, the limits of quota and money, and the time that it takes."""
    return Outlook(quote=outlook.quote, prices_known=outlook.prices_known, seconds=outlook.seconds)
