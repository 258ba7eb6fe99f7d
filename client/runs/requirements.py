"""Reasons to refuse a run before anything is bought."""

from collections.abc import Sequence

from torch import nn

from client.errors import BudgetExhausted, DataError, FingerprintChanged, UsageError
from client.learning.backbones import OPEN_CLIP
from client.learning.backbones.timm_backbones import thawed
from client.learning.methods import Method
from client.learning.recipe import Recipe
from client.learning.student import build_student
from client.purchase.buyer import Buyer
from client.purchase.plan import PurchasePlan
from client.runs.dataset import Dataset
from client.runs.folder import RunFolder
from client.runs.teacher_queries import TeacherQueries
from client.vendors.query import Query
from shared.embeddings import ModelCard


def require_student(method: Method, student: str, backbone: nn.Module, model: ModelCard | None) -> None:
    """Check that a student is one that a method can teach.

    Raises:
        UsageError: the method starts from a CLIP and the student is none, or the method compares the
            student's own embeddings with the vendor's and they are not as wide.
    """
    if method.teacher == "twin" and not student.startswith(OPEN_CLIP):
        raise UsageError(
            f"The method {method.name} starts from a CLIP: --student {OPEN_CLIP}MODEL/PRETRAINED, "
            f"not {student!r}."
        )
    if method.projector == "own" and method.buys and model is not None:
        build_student(backbone, outputs=model.dimensions, text_head=None, own_projector=True)


def require_layers(method: Method, recipe: Recipe, student: str, backbone: nn.Module) -> None:
    """Check that a recipe leaves layers to train where a method trains no others.

    Raises:
        UsageError: it freezes all of them.
    """
    if method.trains == {"backbone"} and not thawed(backbone, frozen=recipe.frozen):
        raise UsageError(
            f"The recipe's frozen is {recipe.frozen}, which freezes all layers of {student}: nothing is left "
            f"for {method.name} to train. Nothing is bought: lower it."
        )


def require_same_model(run: RunFolder, plan: PurchasePlan, teacher: Buyer) -> None:
    """Check that the vendor still serves the model that a run began with.

    Raises:
        FingerprintChanged: it serves another one.
    """
    before = run.began_with
    if before is not None and before.fingerprint != teacher.model.fingerprint:
        raise FingerprintChanged(
            f"This run began with the model {before.fingerprint}; the vendor now serves "
            f"{teacher.model.fingerprint}, and their embeddings do not mix. What was bought is kept. "
            f"A new run, with another --out, would buy {len(plan.to_buy)} queries for "
            f"{plan.cost_micros} micros."
        )


def require_prompts(asked: TeacherQueries, plan: PurchasePlan, teacher: Buyer) -> None:
    """Check that the budget reaches every class prompt.

    Prompts that were refused cost nothing, and answers to what was sent before may bring some: buying tells.

    Raises:
        BudgetExhausted: it does not.
    """
    if not plan.texts_beyond_budget or teacher.awaits_answers or teacher.refused.keys() & asked.prompts:
        return
    raise BudgetExhausted(
        f"{plan.texts_beyond_budget} of the {len(asked.prompts)} class prompts are beyond the budget, and a "
        f"student cannot name its classes without them. Nothing is bought: start again with "
        f"{teacher.enough_for(asked.prompts)}."
    )


def require_images(dataset: Dataset, asked: TeacherQueries, plan: PurchasePlan, teacher: Buyer) -> None:
    """Check that the budget reaches an image where none has a label to train on.

    As with prompts (`require_prompts`), what was refused or may still be answered is left to buying.

    Raises:
        BudgetExhausted: it does not.
    """
    images = asked.of("unlabelled").queries
    if dataset.train or plan.had("unlabelled") or teacher.awaits_answers or teacher.refused.keys() & images:
        return
    raise BudgetExhausted(
        f"The budget reaches the class prompts and none of the {len(images)} unlabelled images, and there is "
        "no image with a label to train on. Nothing is bought: start again with "
        f"{teacher.enough_for([*asked.prompts, *images[:1]])}."
    )


def require_unrefused(prompts: Sequence[Query], teacher: Buyer) -> None:
    """Check that the vendor refused none of these class prompts.

    Raises:
        DataError: it did.
    """
    for prompt in prompts:
        if reason := teacher.refused.get(prompt):
            raise DataError(
                f"The vendor does not embed the class prompt {prompt.name!r} ({reason}), and a student "
                "cannot name its classes without it: give the class another name. What was bought is kept."
            )
