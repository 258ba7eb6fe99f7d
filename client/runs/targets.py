"""What a run's student learns from: what its teacher says of the images, bought first where it is sold."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client.buying.queries import Query
from client.buying.teacher import Teacher
from client.data.domains import class_prompts
from client.data.finder import Skipped
from client.errors import BudgetExhausted, ClientError, DataError, FingerprintChanged, UsageError
from client.learning.backbone_names import BUNDLED_TEACHER, OPEN_CLIP
from client.learning.methods import Method, Supervision
from client.learning.student import build_student
from client.progress import Display
from client.results.records import Purchase, RefusedQuery
from client.runs.folder import RunConfig, RunFolder
from client.runs.sources import Sources, describe_plan, describe_views, mention
from client.runs.teacher_queries import Questions, plan_of, questions
from shared.embeddings import ModelCard


@dataclass(frozen=True)
class Lesson:
    """What the student learns from.

    Attributes:
        targets: what the method's loss compares with, a row for each of `Sources.examples`.
        train: positions to train on: the training images, and those further views that were bought.
        text_head: unit class texts that the student predicts by, or starts from, shape (classes, outputs);
            `None` where it has a classifier of its own.
        outputs: how wide the student's outputs are, a tuned classifier's scores aside.
        texts: what the method's loss is given of the texts; `None` where it takes none (`Method`).
    """

    targets: Tensor
    train: list[int]
    text_head: Tensor | None
    outputs: int
    texts: Tensor | None = None


def require_student(method: Method, student: str, backbone: nn.Module, model: ModelCard | None) -> None:
    """Check, before anything is bought, that a student is one that a method can teach.

    Args:
        method: the method.
        student: the backbone's name.
        backbone: of `load_backbone`.
        model: what the vendor sells; `None` where nothing is bought.

    Raises:
        UsageError: the method starts from a CLIP and the student is none, or the method compares the
            student's own embeddings with the vendor's and they are not as wide.
    """
    _local_texts(method, student, ["a photo"])
    if method.projector == "own" and method.buys and model is not None:
        build_student(backbone, outputs=model.dimensions, text_head=None, own_projector=True)


def _local_texts(method: Method, student: str, prompts: Sequence[str]) -> Tensor:
    """The class texts of a teacher that is a model here; empty where it is the vendor's."""
    if method.teacher == "vendor":
        return torch.empty(0, 0)
    model = BUNDLED_TEACHER if method.teacher == "bundled" else student
    if not model.startswith(OPEN_CLIP):
        raise UsageError(
            f"The method {method.name} starts from a CLIP: --student {OPEN_CLIP}MODEL/PRETRAINED, "
            f"not {model!r}."
        )
    from client.learning.clip_backbones import class_texts  # open_clip takes seconds to import

    return class_texts(model, prompts)


class Preparation:
    """Gets a run's lesson ready: plans, buys, and looks up."""

    def __init__(
        self,
        config: RunConfig,
        method: Method,
        run: RunFolder,
        teacher: Teacher | None,
        display: Display,
        *,
        approve: Callable[[int], None],
    ) -> None:
        """Take up a run.

        Args:
            config: what makes it this run.
            method: its method.
            run: its directory.
            teacher: where to buy; `None` for a method that buys nothing.
            display: what a person sees meanwhile.
            approve: called with the price before anything is bought; it raises to stop.
        """
        self._config = config
        self._method = method
        self._run = run
        self._teacher = teacher
        self._display = display
        self._approve = approve

    def lesson(self, sources: Sources, features: NDArray[np.float32] | None = None) -> Lesson:
        """What the method makes of these images and of what the teacher says of them.

        Args:
            sources: the images.
            features: of each training image, shape (n, f), where they are chosen by coverage.

        Raises:
            SpendingStopped: a limit was reached before what the method cannot do without was bought.
            DataError: the vendor refused what the method cannot do without.
            ClientError: something else ended the purchase; what was bought is kept.
        """
        if not self._method.buys:
            self._run.write(self._run.plan, describe_plan(self._config, sources, None, None).to_json())
            return self._lesson_of(sources, self._unbought(sources))
        asked = questions(self._config, sources, features)
        self._buy(sources, asked)
        known, missing = self._known(sources, asked)
        if known is None:
            raise self._nameless(missing, of=len(asked.prompts))
        self._mention_unanswered(asked, missing)
        return self._lesson_of(sources, known)

    def recalled(self, sources: Sources, features: NDArray[np.float32] | None = None) -> Lesson | None:
        """The lesson that `lesson` would give if there is nothing to buy for it; writes nothing, and spends
        nothing.

        `None` where something would be bought, other than what the run was refused before.
        """
        if not self._method.buys:
            return self._lesson_of(sources, self._unbought(sources))
        assert self._teacher is not None
        asked = questions(self._config, sources, features)
        purchase = self._run.read(self._run.purchase) if self._run.purchase.exists() else {}
        refused = {each["name"] for each in purchase.get("refused", [])}
        if any(query.name not in refused for query in plan_of(self._config, asked, self._teacher).to_buy):
            return None
        known, _ = self._known(sources, asked)
        return None if known is None else self._lesson_of(sources, known)

    def _lesson_of(self, sources: Sources, known: Supervision) -> Lesson:
        classes = len(sources.folder.classes)
        by_texts = self._method.head != "linear"
        return Lesson(
            self._method.targets(known),
            [*sources.train, *(view for views in sources.views for view in views if known.bought[view])],
            known.text_head if by_texts else None,
            outputs=known.text_head.shape[1] if by_texts else classes,
            texts=self._method.texts_of_loss(known),
        )

    def _unbought(self, sources: Sources) -> Supervision:
        texts = _local_texts(self._method, self._config.student, class_prompts(sources.folder.classes))
        return self._nothing_bought(sources, texts)

    def _nothing_bought(self, sources: Sources, text_head: Tensor) -> Supervision:
        count = len(sources.examples)
        return Supervision(
            labels=torch.tensor(sources.labels),
            text_head=text_head,
            images=torch.zeros(count, text_head.shape[1]),
            bought=torch.zeros(count, dtype=torch.bool),
            image_weight=self._config.recipe.image_weight,
        )

    def _known(self, sources: Sources, asked: Questions) -> tuple[Supervision | None, list[Query]]:
        """What the cache has of what is asked, and the queries that it lacks.

        Without all class prompts there is no knowledge, and the queries are the prompts that are missing.
        """
        assert self._teacher is not None
        texts, have_texts = self._teacher.lookup(asked.prompts)
        if not have_texts.all():
            return None, [query for query, ok in zip(asked.prompts, have_texts, strict=True) if not ok]
        classes = len(sources.folder.classes)
        text_head, styled = self._method.prompts.class_texts(torch.from_numpy(texts), classes)
        known = replace(self._nothing_bought(sources, text_head), styled_texts=styled)
        missing = self._look_up(known, asked.images, asked.positions)
        return known, missing + self._look_up(known, *asked.further)

    def _mention_unanswered(self, asked: Questions, missing: Sequence[Query]) -> None:
        """Say which of the images and of the further views are taught without an answer, and why."""
        unknown = set(missing)
        if images := [query for query in asked.images if query in unknown]:
            self._display.note(
                f"{len(images)} of {len(asked.images)} training images have no teacher embedding "
                f"({self._why(images)}); they are taught without."
            )
        views, _ = asked.further
        if further := [query for query in views if query in unknown]:
            self._display.note(
                f"{len(further)} of {len(views)} further views were not bought ({self._why(further)})."
            )

    def _look_up(self, known: Supervision, queries: Sequence[Query], positions: Sequence[int]) -> list[Query]:
        """Add what the teacher says of some examples; returns those of which it says nothing."""
        assert self._teacher is not None
        vectors, have = self._teacher.lookup(queries)
        known.images[positions] = torch.from_numpy(vectors)
        known.bought[positions] = torch.from_numpy(have)
        return [query for query, ok in zip(queries, have, strict=True) if not ok]

    def _why(self, unknown: Sequence[Query]) -> str:
        """Why there is no answer to some queries."""
        assert self._teacher is not None
        refused = sum(query in self._teacher.refused for query in unknown)
        if 0 < refused < len(unknown):
            return f"the vendor refused {refused}, and the budget ended before the others"
        return "the vendor refused them" if refused else "the budget ended"

    def _nameless(self, missing: Sequence[Query], *, of: int) -> ClientError:
        """What to say where there are not all the class prompts, of so many."""
        assert self._teacher is not None
        needed = "a student cannot name its classes without them"
        for prompt in missing:
            if reason := self._teacher.refused.get(prompt):
                return DataError(
                    f"The vendor does not embed the class prompt {prompt.name!r} ({reason}), and {needed}: "
                    "rename the class's folder in every domain. What was bought is kept."
                )
        return BudgetExhausted(
            f"{len(missing)} of the {of} class prompts were not bought (e.g. {missing[0].name!r}), and "
            f"{needed}. They come first: start again with a --budget of at least {of}. What was bought is "
            "kept."
        )

    def _buy(self, sources: Sources, asked: Questions) -> None:
        """Buy what the plan names; `purchase.json` says what came of it, also when buying stopped early."""
        run, teacher = self._run, self._teacher
        assert teacher is not None
        plan = plan_of(self._config, asked, teacher)
        began_with = teacher.model.fingerprint
        if run.plan.exists():
            began_with = run.read(run.plan)["model"]["fingerprint"]
        if began_with != teacher.model.fingerprint:
            raise FingerprintChanged(
                f"This run began with the model {began_with}; the vendor now serves "
                f"{teacher.model.fingerprint}, and their embeddings do not mix. What was bought is kept. "
                f"A new run, with another --out, would buy {len(plan.to_buy)} queries for "
                f"{plan.cost_micros} micros."
            )
        run.write(run.plan, describe_plan(self._config, sources, teacher.model, plan).to_json())
        if any(sources.views):
            run.write_text(run.views, "".join(f"{json.dumps(view)}\n" for view in describe_views(sources)))
        self._approve(plan.cost_micros)
        with run.timed("buy"), self._display.track("Buying", len(plan.to_buy)) as advance:
            purchase = teacher.buy(
                plan.to_buy, lambda progress: advance(progress.done, progress.described(cached=plan.cached))
            )
        if plan.budget_left and plan.images and not plan.unaffordable:
            self._display.note(
                f"{plan.budget_left} queries of the budget stay unspent (--views can use them)."
            )
        refused = [Skipped(Path(query.name), reason) for query, reason in purchase.refused.items()]
        mention(refused, sources.folder.root, self._display, listed_in=run.purchase)
        spending, wanted = teacher.spending, dict.fromkeys(asked.all)
        bought = Purchase(
            queries_bought=spending.queries,
            # What the run has and did not pay for, another run that bought it meanwhile included.
            queries_cached=max(0, teacher.quote(list(wanted)).cached - spending.queries),
            cost_micros=spending.cost_micros,
            refused=[
                RefusedQuery(name=query.name, reason=teacher.refused[query])
                for query in wanted
                if query in teacher.refused
            ],
        )
        run.write(run.purchase, bought.to_json())
