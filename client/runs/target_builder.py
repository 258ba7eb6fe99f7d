"""How a run makes its targets: of the labels, and of the teacher's answers, which it buys."""

from collections.abc import Callable, Sequence

import torch

from client.data.wording import THEIR_OWN_NAMES
from client.errors import BudgetExhausted, DataError
from client.learning.backbones import BUNDLED_TEACHER
from client.learning.methods import Method, class_directions
from client.learning.recipe import LOGIT_SCALE
from client.learning.rejection import Rejection
from client.learning.student_metadata import StudentMetadata
from client.learning.supervision import ROWS_AT_ONCE
from client.learning.teacher_weights import Named, labels_alone, pseudo_labelled, weighed
from client.learning.temperature import evenly, fitted_temperature
from client.progress import Display
from client.purchase.buyer import Buyer
from client.purchase.plan import TrancheName
from client.results.records import Purchase, TeacherCheck, described_check
from client.runs.config import RunConfig
from client.runs.dataset import Dataset
from client.runs.digest import digest_of
from client.runs.folder import RunFolder
from client.runs.forecast import worth_asking
from client.runs.plans import describe_plan
from client.runs.requirements import require_unrefused
from client.runs.rounds import Rounds
from client.runs.supervision import known_of, nothing_bought
from client.runs.targets import Learnt, TargetInputs, Targets, target_rows
from client.runs.teacher_check import Checked, check_teacher
from client.runs.teacher_purchase import TeacherPurchase
from client.runs.teacher_queries import TeacherQueries, sentences_of, teacher_queries
from client.vendors.query import Query

# What is said of images that the teacher was to be asked about, and was not, by tranche.
_WITHOUT_ANSWER: dict[TrancheName, str] = {
    "labelled": "training images have no teacher embedding ({why}); they are taught without.",
    "unlabelled": "unlabelled images were not bought ({why}).",
}


class TargetBuilder:
    """Makes a run's targets: buys what its teacher is to say, and looks it up."""

    def __init__(
        self,
        config: RunConfig,
        method: Method,
        run: RunFolder,
        teacher: Buyer | None,
        display: Display,
        rounds: Callable[[Dataset], Rounds | None] = lambda _: None,
    ) -> None:
        """Take up a run; a method that buys nothing needs no teacher.

        Args:
            config: the run.
            method: its method.
            run: its folder.
            teacher: where to buy.
            display: what a person sees meanwhile.
            rounds: those in which images are chosen; `None` where they are bought in a fixed order.
        """
        self._rounds = rounds
        self._config = config
        self._method = method
        self._run = run
        self._teacher = teacher if method.buys else None
        self._display = display

    def build(self, dataset: Dataset, approve: Callable[[int], None]) -> Targets:
        """Buy what is missing, and make the method's targets of the teacher's answers.

        Args:
            dataset: the images.
            approve: called with the price before anything is bought; it raises to stop.

        Raises:
            SpendingStopped: a limit was reached before what the method cannot do without was bought.
            DataError: the vendor refused what the method cannot do without, or all that is to train on.
            ClientError: something else ended the purchase; what was bought is kept.
        """
        if self._teacher is None:
            self._run.write(self._run.plan, describe_plan(self._config, dataset, None, None).to_json())
            return self._targets_of(dataset, self._unbought(dataset))
        asked = teacher_queries(self._config, dataset)
        TeacherPurchase(
            self._config, self._run, dataset, asked, self._teacher, self._display, self._rounds(dataset)
        ).make(approve)
        learnt = self._learnt(dataset, asked, self._teacher)
        if learnt.known is None:
            require_unrefused(learnt.missing, self._teacher)
            raise _nameless(learnt.missing, self._teacher, of=len(asked.prompts))
        self._mention_unanswered(asked, learnt, self._teacher)
        if learnt.check is not None and learnt.check.doubts and self._config.recipe.weigh_teacher:
            self._display.note(described_check(learnt.check))
        return self._targets_of(dataset, learnt)

    def recall(self, dataset: Dataset) -> Targets | None:
        """The targets of `build` if there is nothing to buy for them; writes and spends nothing.

        `None` where something would be bought, other than what the run was refused before.
        """
        teacher, run = self._teacher, self._run
        if teacher is None:
            return self._targets_of(dataset, self._unbought(dataset))
        asked = teacher_queries(self._config, dataset)
        before = run.record(Purchase, run.purchase) if run.purchase.exists() else Purchase()
        refused = {each.name for each in before.refused}
        wanted = [query for query in asked.all if query.name not in refused]
        texts, labelled, _ = asked.lots(wanted)
        if teacher.quote([*texts, *labelled]).to_buy:
            return None
        if teacher.quote(wanted).to_buy and worth_asking(
            self._config, dataset, asked, teacher, folder=run.path
        ):
            return None
        learnt = self._learnt(dataset, asked, teacher)
        return None if learnt.known is None else self._targets_of(dataset, learnt)

    def _unbought(self, dataset: Dataset) -> Learnt:
        """The knowledge of a method that buys nothing: a local teacher's class texts, or none."""
        sentences = sentences_of(self._config, dataset)
        if self._method.head == "linear":
            texts = torch.empty(0, 0)
        elif self._method.teacher in ("nobody", "average"):
            texts = class_directions(len(dataset.classes))
        else:
            from client.learning.backbones.open_clip_backbones import (
                class_texts,  # it takes seconds to import
            )

            bundled = self._method.teacher == "bundled"
            told = class_texts(BUNDLED_TEACHER if bundled else self._config.student, sentences.all)
            texts = torch.from_numpy(sentences.class_texts(told.numpy())[0])
        known = nothing_bought(self._config, dataset, texts)
        return Learnt(known, digest_of(TargetInputs.of(known)))

    def _learnt(self, dataset: Dataset, asked: TeacherQueries, teacher: Buyer) -> Learnt:
        """The cache's answers to what is asked, as far as the labels let them count."""
        known, missing = known_of(self._config, dataset, asked, teacher, folder=self._run.path)
        if known is None:
            return Learnt(None, missing=missing)
        checked = check_teacher(self._config, dataset, known)
        check, known, recipe = checked.check, checked.named.known, self._config.recipe
        named = torch.nonzero(checked.named.classes).flatten().tolist()
        temperature = _temperature_of(checked.named)
        described = _described(dataset, asked, checked, temperature, teacher)
        if check is not None and not check.learnt_from:
            known = labels_alone(known)
            return Learnt(known, digest_of(TargetInputs.of(known)), missing, check, described)
        if check is not None:
            if recipe.weigh_teacher:
                known = weighed(known, checked.doubtful, trusted=check.trusted)
            known = pseudo_labelled(
                known,
                temperature=temperature,
                confidence=recipe.pseudo_labels,
            )
        texts, _ = teacher.lookup(asked.prompts)
        return Learnt(known, digest_of(TargetInputs.of(known, named, texts)), missing, check, described)

    def _targets_of(self, dataset: Dataset, learnt: Learnt) -> Targets:
        known, by_texts = learnt.known, self._method.head != "linear"
        assert known is not None
        free = "images" not in self._method.asks
        train = [*dataset.train, *(i for i in dataset.unlabelled if free or known.bought[i])]
        if not train:
            raise DataError(
                f"There is no image to train on: none has a label, and none of the {len(dataset.unlabelled)} "
                "without was bought. Give others with --unlabelled. What was bought is kept."
            )
        return Targets(
            target_rows(known, self._method, self._run.path),
            train,
            known.text_head if by_texts else None,
            outputs=known.text_head.shape[1] if by_texts else len(dataset.classes),
            content=learnt.content,
            texts=self._method.texts_of_loss(known),
            check=learnt.check,
            teacher=learnt.teacher,
        )

    def _mention_unanswered(self, asked: TeacherQueries, learnt: Learnt, teacher: Buyer) -> None:
        """Say which of the images are taught without an answer, and why."""
        unknown = set(learnt.missing)
        for tranche in asked.images:
            if without := [query for query in tranche.queries if query in unknown]:
                why = _why(tranche.name, without, learnt.check, teacher)
                words = _WITHOUT_ANSWER[tranche.name].format(why=why)
                self._display.note(f"{len(without)} of {len(tranche.queries)} {words}")


def _described(
    dataset: Dataset, asked: TeacherQueries, checked: Checked, temperature: float, teacher: Buyer
) -> StudentMetadata:
    """The vendor's model, as the student's file tells it to whoever asks it again about a single image.

    The file has what stands for the classes that are not named by the one prompt that it would take.
    """
    texts, usual = checked.named.known.text_head, THEIR_OWN_NAMES.sentences(dataset.classes)
    named = [
        number
        for number, (sentences, prompt) in enumerate(zip(asked.sentences.plain, usual, strict=True))
        if sentences != prompt or checked.named.classes[number]
    ]
    return StudentMetadata(
        taught_by=teacher.model.fingerprint,
        teacher_temperature=temperature,
        teacher_accuracy=checked.accuracy,
        teacher_rejection=_rejection_of(checked.named, dataset),
        teacher_names={number: texts[number].numpy() for number in named} or None,
    )


def _temperature_of(named: Named) -> float:
    """Fits the teacher's answers about the labelled images that were bought to the labels."""
    rows = evenly(named.known.judged_by)
    if not len(rows):
        return 1.0
    return fitted_temperature(LOGIT_SCALE * named.cosines(rows), named.known.labels[rows])


def _rejection_of(named: Named, dataset: Dataset) -> Rejection | None:
    """How near the labelled images that were bought, as they are, come to a class text or name."""
    train = torch.tensor(dataset.train, dtype=torch.long)
    rows = train[named.known.bought[train]]
    if not len(rows):
        return None
    nearest = [named.cosines(some).amax(dim=1) for some in torch.split(rows, ROWS_AT_ONCE)]
    return Rejection.of(torch.cat(nearest).numpy())


def _nameless(missing: Sequence[Query], teacher: Buyer, *, of: int) -> BudgetExhausted:
    """The error where some of the class prompts are missing."""
    return BudgetExhausted(
        f"{len(missing)} of the {of} class prompts were not bought (e.g. {missing[0].name!r}), and a "
        "student cannot name its classes without them. They come first: start again with "
        f"{teacher.enough_for(missing)}. What was bought is kept."
    )


def _why(tranche: TrancheName, unknown: Sequence[Query], check: TeacherCheck | None, teacher: Buyer) -> str:
    """Why there is no answer to some queries of a tranche."""
    if tranche != "labelled" and check is not None and not check.learnt_from:
        return "nothing is learnt of this teacher"
    refused = sum(query in teacher.refused for query in unknown)
    if 0 < refused < len(unknown):
        return f"the vendor refused {refused}, and the budget ended before the others"
    return "the vendor refused them" if refused else "the budget ended"
