"""The targets of a run: what its teacher says of the images, bought first where it is sold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client.data.domains import class_prompts
from client.data.finder import Skipped
from client.errors import BudgetExhausted, DataError, FingerprintChanged, UsageError
from client.learning.backbones import BUNDLED_TEACHER, OPEN_CLIP
from client.learning.backbones.timm_backbones import thawed
from client.learning.image_names import names_to_json
from client.learning.methods import Method, class_directions
from client.learning.prompts import ONE_PROMPT
from client.learning.recipe import LOGIT_SCALE, Recipe
from client.learning.rejection import Rejection
from client.learning.student import build_student
from client.learning.student_metadata import StudentMetadata
from client.learning.supervision import ROWS_AT_ONCE, Supervision
from client.learning.teacher_weights import Named, labels_alone, pseudo_labelled, weighed
from client.learning.temperature import evenly, fitted_temperature
from client.progress import Display
from client.purchase.plan import PurchasePlan, TrancheName
from client.purchase.result import PurchaseResult
from client.purchase.teacher import Teacher
from client.results.records import Purchase, RefusedQuery, TeacherCheck, described_check
from client.runs.config import RunConfig
from client.runs.dataset import Dataset, unseen
from client.runs.digest import StageInputs, digest_of
from client.runs.folder import RunFolder
from client.runs.forecast import check_teacher
from client.runs.mapped import mapped_zeros
from client.runs.mentions import mention_skipped
from client.runs.plans import describe_plan
from client.runs.supervision import known_of, nothing_bought
from client.runs.teacher_queries import TeacherQueries, require_unrefused, teacher_queries
from client.vendors.query import Query
from shared.embeddings import ModelCard

# What is said of images that the teacher was to be asked about, and was not, by tranche.
_WITHOUT_ANSWER: dict[TrancheName, str] = {
    "labelled": "training images have no teacher embedding ({why}); they are taught without.",
    "unlabelled": "unlabelled images were not bought ({why}).",
}


@dataclass(frozen=True)
class TaughtBy:
    """The vendor's model that a student learns from, as the student's file tells it to whoever asks it again.

    Attributes:
        fingerprint: of the model.
        temperature: divides its scores of the labelled images that were bought, so that they fit the labels
            (`fitted_temperature`); 1 where the class texts are not those that are asked about a single image.
        accuracy: the share of these that it names right, by the names that it is asked by: the mean over
            domains; `None` where there are too few, or the class texts are others.
        rejection: by how near (cosine) these are to the nearest class text or name; `None` where there are
            none, or the class texts are others.
        names: what stands for the text of a class that is named by its images, by the class's number.
    """

    fingerprint: str
    temperature: float
    accuracy: float | None
    rejection: Rejection | None = None
    names: Mapping[int, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def described(self) -> StudentMetadata:
        """As the student's file says it."""
        return StudentMetadata(
            taught_by=self.fingerprint,
            teacher_temperature=self.temperature,
            teacher_accuracy=self.accuracy,
            teacher_rejection=None if self.rejection is None else self.rejection.to_json(),
            teacher_names=names_to_json(self.names) if self.names else None,
        )


@dataclass(frozen=True)
class TargetInputs(StageInputs):
    """What targets are made of: what is known, bought and decided, and nothing that is computed of it.

    The last digits of what is computed differ with the processor and the number of threads.

    Attributes:
        labels: class of each image, shape (n,), where there is no label the teacher's sure answer.
        counted: of which images the embedding counts, shape (n,), bool.
        named_by_images: the numbers of the classes that are named by their images.
        texts: the embeddings of the class prompts, shape (prompts, d); `None` where nothing is learnt of a
            vendor.
        images: those of the images, shape (n, d), with zeros where it was not bought; `None` as before.
    """

    labels: NDArray[np.generic]
    counted: NDArray[np.generic]
    named_by_images: tuple[int, ...]
    texts: NDArray[np.generic] | None
    images: NDArray[np.generic] | None


@dataclass(frozen=True)
class Targets:
    """What the student learns from.

    Attributes:
        rows: what the method's loss compares with, a row for each of `Dataset.examples`.
        train: positions to train on: the labelled training images, and those unlabelled images that were
            bought.
        text_head: unit class texts that the student predicts by, or starts from, shape (classes, outputs);
            `None` where it has a classifier of its own.
        outputs: how wide the student's outputs are, a tuned classifier's scores aside.
        content: the digest of what they are made of.
        texts: what the method's loss is given of the texts; `None` where it takes none (`Method`).
        teacher: whose answers they are; `None` where nothing is bought.
    """

    rows: Tensor
    train: list[int]
    text_head: Tensor | None
    outputs: int
    content: str
    texts: Tensor | None = None
    teacher: TaughtBy | None = None


def _temperature_of(named: Named) -> float:
    """Fits the teacher's answers about the labelled images that were bought to the labels."""
    known = named.known
    rows = evenly(known.judged_by)
    if not len(rows):
        return 1.0
    return fitted_temperature(LOGIT_SCALE * named.cosines(rows), known.labels[rows])


def _rejection_of(named: Named, dataset: Dataset, method: Method) -> Rejection | None:
    """How near the labelled images that were bought, as they are, come to a class text or name."""
    train = torch.tensor(dataset.train, dtype=torch.long)
    rows = train[named.known.bought[train]]
    if method.prompts != ONE_PROMPT or not len(rows):
        return None
    nearest = [named.cosines(some).amax(dim=1) for some in torch.split(rows, ROWS_AT_ONCE)]
    return Rejection.of(torch.cat(nearest).numpy())


def _content_of(
    known: Supervision, renamed: Sequence[int] = (), texts: NDArray[np.float32] | None = None
) -> str:
    """The digest of what targets are made of.

    Args:
        known: what they are made of in the end.
        renamed: the numbers of the classes that are named by their images.
        texts: the embeddings of the class prompts; `None` where nothing is learnt of a vendor.
    """
    inputs = TargetInputs(
        labels=known.labels.numpy(),
        counted=known.bought.numpy(),
        named_by_images=tuple(renamed),
        texts=texts,
        images=None if texts is None else known.images.numpy(),
    )
    return digest_of(inputs)


def _target_rows(known: Supervision, method: Method, folder: Path) -> Tensor:
    """What the method's loss compares with, a row for each image: made some at a time, in a file there."""
    count = len(known.labels)
    parts = (
        method.targets(known.of(slice(start, start + ROWS_AT_ONCE)))
        for start in range(0, count, ROWS_AT_ONCE)
    )
    first = next(parts)
    rows = mapped_zeros(count, *first.shape[1:], folder=folder, dtype=first.dtype)
    for place, part in zip(torch.split(rows, ROWS_AT_ONCE), chain([first], parts), strict=True):
        place.copy_(part)
    return rows


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


def require_layers(method: Method, recipe: Recipe, student: str, backbone: nn.Module) -> None:
    """Check, before anything is bought, that a recipe leaves layers to train where a method trains no others.

    Raises:
        UsageError: it freezes all of them.
    """
    if method.trains == {"backbone"} and not thawed(backbone, frozen=recipe.frozen):
        raise UsageError(
            f"The recipe's frozen is {recipe.frozen}, which freezes all layers of {student}: nothing is left "
            f"for {method.name} to train. Nothing is bought: lower it."
        )


def require_prompts(asked: TeacherQueries, plan: PurchasePlan, teacher: Teacher) -> None:
    """Check, before anything is bought, that the budget reaches every class prompt.

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


def require_images(dataset: Dataset, asked: TeacherQueries, plan: PurchasePlan, teacher: Teacher) -> None:
    """Check, before anything is bought, that the budget reaches an image where none has a label to train on.

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


def _local_texts(method: Method, student: str, prompts: Sequence[str]) -> Tensor:
    """The class texts of a teacher that is a model here, or what stands for them; empty of a vendor's."""
    if method.buys:
        return torch.empty(0, 0)
    if method.teacher == "nobody":
        return class_directions(len(prompts))
    model = BUNDLED_TEACHER if method.teacher == "bundled" else student
    if not model.startswith(OPEN_CLIP):
        raise UsageError(
            f"The method {method.name} starts from a CLIP: --student {OPEN_CLIP}MODEL/PRETRAINED, "
            f"not {model!r}."
        )
    from client.learning.backbones.open_clip_backbones import class_texts  # open_clip takes seconds to import

    return class_texts(model, prompts)


def worth_asking(
    config: RunConfig, dataset: Dataset, asked: TeacherQueries, teacher: Teacher, *, folder: Path
) -> bool:
    """Whether, by what was bought of the labelled images, anything will be learnt of the teacher.

    Args:
        config: the run.
        dataset: its images.
        asked: what it asks.
        teacher: whose cache it is.
        folder: where the images' embeddings may lie in a file (`mapped_zeros`).
    """
    check = _check_by_labelled(config, dataset, asked, teacher, folder=folder)
    return check is None or check.learnt_from


def plan_for(
    config: RunConfig,
    dataset: Dataset,
    asked: TeacherQueries,
    teacher: Teacher,
    *,
    folder: Path | None = None,
) -> tuple[PurchasePlan, TeacherCheck | None]:
    """What the run would buy.

    Where only images that come after the labelled ones are left to buy, and nothing will be learnt of the
    teacher, the plan is without them, and what was checked of the teacher comes with it.

    Args:
        config: the run.
        dataset: its images.
        asked: what it asks.
        teacher: whose cache it is.
        folder: as of `worth_asking`.
    """
    plan = teacher.plan(asked.tranches(dataset))
    texts, labelled, further = asked.lots(plan.to_buy)
    if texts or labelled or not further:
        return plan, None
    check = _check_by_labelled(config, dataset, asked, teacher, folder=folder)
    if check is None or check.learnt_from:
        return plan, None
    left_out = {*plan.to_buy, *plan.beyond}
    kept = asked.only([query for query in asked.all if query not in left_out])
    return teacher.plan(kept.tranches(dataset)), check


def _check_by_labelled(
    config: RunConfig, dataset: Dataset, asked: TeacherQueries, teacher: Teacher, *, folder: Path | None
) -> TeacherCheck | None:
    labelled = TeacherQueries(asked.prompts, (asked.of("labelled"),))
    known, _ = known_of(config, dataset, labelled, teacher, folder=folder)
    return None if known is None else check_teacher(config, dataset, known).check


class TargetBuilder:
    """Makes a run's targets: plans, buys, and looks up.

    Attributes:
        check: what the labels say of the teacher, once targets are made.
    """

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
        self.check: TeacherCheck | None = None
        self._taught_by: TaughtBy | None = None
        self._content = ""

    def build(self, dataset: Dataset) -> Targets:
        """What the method makes of these images and of what the teacher says of them; buys what is missing.

        Args:
            dataset: the images.

        Raises:
            SpendingStopped: a limit was reached before what the method cannot do without was bought.
            DataError: the vendor refused what the method cannot do without, or all that is to train on.
            ClientError: something else ended the purchase; what was bought is kept.
        """
        if not self._method.buys:
            self._run.write(self._run.plan, describe_plan(self._config, dataset, None, None).to_json())
            return self._targets_of(dataset, self._unbought(dataset))
        asked = teacher_queries(self._config, dataset)
        self._buy(dataset, asked)
        known, missing = self._known(dataset, asked)
        if known is None:
            assert self._teacher is not None
            require_unrefused(missing, self._teacher)
            raise self._nameless(missing, of=len(asked.prompts))
        self._mention_unanswered(asked, missing)
        if self.check is not None and self.check.doubts and self._config.recipe.weigh_teacher:
            self._display.note(described_check(self.check))
        return self._targets_of(dataset, known)

    def recall(self, dataset: Dataset) -> Targets | None:
        """What `build` would give if there is nothing to buy for it; writes nothing, and spends nothing.

        `None` where something would be bought, other than what the run was refused before.
        """
        if not self._method.buys:
            return self._targets_of(dataset, self._unbought(dataset))
        assert self._teacher is not None
        asked = teacher_queries(self._config, dataset)
        run = self._run
        before = run.record(Purchase, run.purchase) if run.purchase.exists() else Purchase()
        refused = {each.name for each in before.refused}
        wanted = [query for query in asked.all if query.name not in refused]
        texts, labelled, _ = asked.lots(wanted)
        first, everything = (self._teacher.quote(queries) for queries in ([*texts, *labelled], wanted))
        if first.to_buy or (everything.to_buy and self._worth_asking(dataset, asked)):
            return None
        known, _ = self._known(dataset, asked)
        return None if known is None else self._targets_of(dataset, known)

    def _targets_of(self, dataset: Dataset, known: Supervision) -> Targets:
        classes = len(dataset.classes)
        by_texts = self._method.head != "linear"
        train = [*dataset.train, *(i for i in dataset.unlabelled if known.bought[i])]
        if not train:
            raise DataError(
                f"There is no image to train on: none has a label, and none of the {len(dataset.unlabelled)} "
                "without was bought. Give others with --unlabelled. What was bought is kept."
            )
        return Targets(
            _target_rows(known, self._method, self._run.path),
            train,
            known.text_head if by_texts else None,
            outputs=known.text_head.shape[1] if by_texts else classes,
            content=self._content,
            texts=self._method.texts_of_loss(known),
            teacher=self._taught_by,
        )

    def _unbought(self, dataset: Dataset) -> Supervision:
        texts = _local_texts(self._method, self._config.student, class_prompts(dataset.classes))
        known = nothing_bought(self._config, dataset, texts)
        self._content = _content_of(known)
        return known

    def _known(self, dataset: Dataset, asked: TeacherQueries) -> tuple[Supervision | None, list[Query]]:
        """What the cache has of what is asked, and the queries that it lacks.

        Without all class prompts there is no knowledge, and the queries are the prompts that are missing.
        """
        assert self._teacher is not None
        known, missing = known_of(self._config, dataset, asked, self._teacher, folder=self._run.path)
        if known is None:
            return None, missing
        checked = check_teacher(self._config, dataset, known)
        self.check, known = checked.check, checked.named.known
        recipe, temperature = self._config.recipe, _temperature_of(checked.named)
        renamed = torch.nonzero(checked.named.classes).flatten().tolist()
        asked_alike = self._method.prompts == ONE_PROMPT  # as about a single image later
        self._taught_by = TaughtBy(
            self._teacher.model.fingerprint,
            temperature if asked_alike else 1.0,
            checked.accuracy if asked_alike else None,
            _rejection_of(checked.named, dataset, self._method),
            {number: known.text_head[number].numpy() for number in renamed},
        )
        texts, _ = self._teacher.lookup(asked.prompts)
        if self.check is not None:
            if not self.check.learnt_from:
                known = labels_alone(known)
                self._content = _content_of(known)
                return known, missing
            if recipe.weigh_teacher:
                known = weighed(known, checked.doubtful, trusted=self.check.trusted)
            known = pseudo_labelled(known, temperature=temperature, confidence=recipe.pseudo_labels)
        self._content = _content_of(known, renamed, texts)
        return known, missing

    def _worth_asking(self, dataset: Dataset, asked: TeacherQueries) -> bool:
        assert self._teacher is not None
        return worth_asking(self._config, dataset, asked, self._teacher, folder=self._run.path)

    def _mention_unanswered(self, asked: TeacherQueries, missing: Sequence[Query]) -> None:
        """Say which of the images are taught without an answer, and why."""
        unknown = set(missing)
        for tranche in asked.images:
            if without := [query for query in tranche.queries if query in unknown]:
                words = _WITHOUT_ANSWER[tranche.name].format(why=self._why(tranche.name, without))
                self._display.note(f"{len(without)} of {len(tranche.queries)} {words}")

    def _why(self, tranche: TrancheName, unknown: Sequence[Query]) -> str:
        """Why there is no answer to some queries of a tranche."""
        assert self._teacher is not None
        if tranche != "labelled" and self.check is not None and not self.check.learnt_from:
            return "nothing is learnt of this teacher"
        refused = sum(query in self._teacher.refused for query in unknown)
        if 0 < refused < len(unknown):
            return f"the vendor refused {refused}, and the budget ended before the others"
        return "the vendor refused them" if refused else "the budget ended"

    def _buy_lots(self, dataset: Dataset, asked: TeacherQueries, plan: PurchasePlan) -> dict[Query, str]:
        """Buy texts, labelled images, and the rest if these say that it is worth it; returns refusals.

        It pays for no more texts or images than the plan names, for somebody agreed to its price.
        """
        texts, *_ = asked.lots(plan.to_buy)
        _, labelled, further = asked.lots([*plan.to_buy, *plan.beyond])
        room = len(plan.to_buy) - len(texts)
        assert self._teacher is not None
        used = asked.all
        refused = self._buy_lot("texts", texts, used).refused
        # An image that is refused by now is of a request that an earlier run had sent.
        if not refused.keys().isdisjoint(asked.prompts):
            return refused  # nothing can be learnt from images
        room = self._buy_images("images", labelled, room, used, refused, cached=plan.cached)
        if not self._worth_asking(dataset, asked):
            return refused
        room = self._buy_images("further images", further, room, used, refused)
        left = self._teacher.plan(()).budget_left  # a comparison with what is known costs queries too
        if left and plan.needed("labelled") and (room or not plan.beyond):
            beyond = unseen(self._config, dataset)
            self._display.note(
                f"{left} queries of the budget stay unspent: "
                + (
                    f"so few steps would not look at {beyond} of the images without labels. More --steps, or "
                    "none, would use them."
                    if beyond
                    else "everything is bought. More images would use them: --unlabelled."
                )
            )
        return refused

    def _buy_images(
        self,
        name: str,
        wanted: Sequence[Query],
        room: int,
        used: Sequence[Query],
        refused: dict[Query, str],
        *,
        cached: int = 0,
    ) -> int:
        """Buy the first of some images, and add to what was `refused`; for how many more there is room then.

        One that is not paid for after all makes room for the next.
        """
        while room and wanted:
            lot, wanted = wanted[:room], wanted[room:]
            purchase = self._buy_lot(name, lot, used, cached=cached)
            refused |= purchase.refused
            if purchase.out_of_budget:
                return 0
            room -= min(len(lot), purchase.bought)
        return room

    def _buy_lot(
        self, name: str, lot: Sequence[Query], used: Sequence[Query], *, cached: int = 0
    ) -> PurchaseResult:
        assert self._teacher is not None
        with self._display.track(f"Buying {name}", len(lot)) as advance:
            purchase = self._teacher.buy(
                lot, lambda progress: advance(progress.done, progress.described(cached=cached)), used=used
            )
        purchase.require_compared(self._teacher.budget)
        return purchase

    def _nameless(self, missing: Sequence[Query], *, of: int) -> BudgetExhausted:
        """What to say where there are not all the class prompts, of so many."""
        assert self._teacher is not None
        return BudgetExhausted(
            f"{len(missing)} of the {of} class prompts were not bought (e.g. {missing[0].name!r}), and a "
            "student cannot name its classes without them. They come first: start again with "
            f"{self._teacher.enough_for(missing)}. What was bought is kept."
        )

    def _buy(self, dataset: Dataset, asked: TeacherQueries) -> None:
        """Buy what the plan names; `purchase.json` says what came of it, also when buying stopped early."""
        run, teacher = self._run, self._teacher
        assert teacher is not None
        plan, _ = plan_for(self._config, dataset, asked, teacher, folder=run.path)
        before = run.began_with
        if before is not None and before.fingerprint != teacher.model.fingerprint:
            raise FingerprintChanged(
                f"This run began with the model {before.fingerprint}; the vendor now serves "
                f"{teacher.model.fingerprint}, and their embeddings do not mix. What was bought is kept. "
                f"A new run, with another --out, would buy {len(plan.to_buy)} queries for "
                f"{plan.cost_micros} micros."
            )
        run.write(run.plan, describe_plan(self._config, dataset, teacher.model, plan).to_json())
        require_prompts(asked, plan, teacher)
        require_images(dataset, asked, plan, teacher)
        self._approve(plan.cost_micros)
        with run.timed("buy"):
            refused = self._buy_lots(dataset, asked, plan)
        skipped = [Skipped(Path(q.name), reason) for q, reason in refused.items() if q.kind == "image"]
        mention_skipped(skipped, dataset.folder.base, self._display, listed_in=run.purchase)
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
