"""Which wording of the class texts labelled images prefer: texts are bought, and few images."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from client.data.wording import CLASS_TEMPLATE, Sentences, Wording
from client.errors import BudgetExhausted, DataError, UsageError
from client.learning.supervision import Supervision
from client.learning.teacher_weights import agreement, unnamed
from client.purchase.buyer import Buyer
from client.results.records import TriedWording
from client.runs.config import RunConfig
from client.runs.dataset import Dataset
from client.runs.requirements import require_unrefused
from client.runs.supervision import known_of
from client.runs.teacher_check import FEWEST, right_by_domain
from client.runs.teacher_queries import TeacherQueries, teacher_queries
from client.vendors.query import Query

# What is tried where nobody gives a prompt.
COMMON_TEMPLATES = (CLASS_TEMPLATE, "{}", "a photo of the {}", "a picture of a {}", "a drawing of a {}")
# So many labelled images judge, if there are so many; those that were bought before count among them.
_JUDGES = 100


@dataclass(frozen=True)
class PromptTrial:
    """Wordings of a run's class texts, and the labelled images that judge them."""

    config: RunConfig
    dataset: Dataset
    tried: tuple[Wording, ...]
    asked: tuple[TeacherQueries, ...]

    @property
    def texts(self) -> list[Query]:
        """The queries about the sentences of all wordings."""
        return list(dict.fromkeys(query for each in self.asked for query in each.prompts))

    def wanted(self, teacher: Buyer) -> list[Query]:
        """The texts, and labelled images as far as too few are in the cache."""
        images = self.asked[0].of("labelled").queries
        _, have = teacher.lookup(images)
        missing = [query for query, is_there in zip(images, have, strict=True) if not is_there]
        return [*self.texts, *missing[: max(0, _JUDGES - int(have.sum()))]]

    def buy(self, teacher: Buyer, approve: Callable[[int], None]) -> list[TriedWording]:
        """Buy what is wanted, and judge.

        Returns:
            the wordings, the best first.

        Raises:
            UsageError: the budget does not reach it; nothing is bought then.
            BudgetExhausted: somebody else spent of it meanwhile, or a new vendor was compared.
            DataError: the vendor refused a text, or too many images.
        """
        wanted = self.wanted(teacher)
        whole = teacher.for_run("quote", budget=None).quote(wanted)
        offer = teacher.quote(wanted)
        if offer.to_buy < whole.to_buy:
            raise UsageError(
                f"To try {len(self.tried)} wordings takes {whole.to_buy} queries, {len(self.texts)} texts "
                f"among them. Nothing is bought: it takes {teacher.enough_for(wanted)}, or fewer --prompt."
            )
        approve(offer.cost_micros)
        for lot in (self.texts, wanted):
            purchase = teacher.buy(lot, used=wanted, directly=True)
            purchase.require_compared(teacher.budget)
            require_unrefused(self.texts, teacher)
            if purchase.out_of_budget:
                raise BudgetExhausted(
                    "The limits do not reach what is left to try. What was bought is kept: continue with "
                    f"{teacher.enough_for(wanted)}."
                )
        return self._judged(teacher)

    def _judged(self, teacher: Buyer) -> list[TriedWording]:
        known = [self._known(asked, teacher) for asked in self.asked]
        agreed = [agreement(unnamed(each)) for each in known]
        usual, found = agreed[0].right, list[TriedWording]()
        if len(usual) < FEWEST:
            raise DataError(f"The vendor embedded {len(usual)} labelled images, and {FEWEST} judge at least.")
        for wording, asked, judged in zip(self.tried, self.asked, agreed, strict=True):
            found.append(
                TriedWording(
                    templates=list(wording.templates),
                    prompts_of_classes=len(wording.prompts),
                    texts=len(asked.prompts),
                    by_domain=right_by_domain(self.dataset, judged),
                    gained=int((judged.right & ~usual).sum()),
                    lost=int((usual & ~judged.right).sum()),
                )
            )
        return sorted(found, key=lambda each: -each.accuracy)

    def _known(self, asked: TeacherQueries, teacher: Buyer) -> Supervision:
        known, missing = known_of(self.config, self.dataset, asked, teacher)
        assert known is not None, missing
        return known


def prompt_trial(config: RunConfig, dataset: Dataset) -> PromptTrial:
    """The trial of the wordings that somebody gives, or else of common ones, beside the usual prompt.

    Raises:
        UsageError: too few labelled images could judge, or the method asks no texts of a vendor.
    """
    asked = teacher_queries(config.changed(use_at_most=None, select="stratified"), dataset)
    labelled = asked.of("labelled")
    if len(labelled.queries) < FEWEST:
        raise UsageError(
            f"--try-prompts judges by {FEWEST} labelled images or more, and the run asks about "
            f"{len(labelled.queries)}. Nothing is bought."
        )
    tried = {wording.sentences(dataset.classes): wording for wording in _wordings(dataset.wording)}
    sentences = [Sentences(plain, tuple(() for _ in plain)) for plain in tried]
    queries = tuple(TeacherQueries(each, (labelled,)) for each in sentences)
    return PromptTrial(config, dataset, tuple(tried.values()), queries)


def _wordings(given: Wording) -> Iterator[Wording]:
    """The usual prompt, each that is given, and all of these together."""
    templates = given.templates or (() if given.prompts else COMMON_TEMPLATES)
    yield replace(given, templates=(CLASS_TEMPLATE,), prompts={})
    for template in templates:
        yield replace(given, templates=(template,), prompts={})
    if len(templates) > 1:
        yield replace(given, templates=tuple(templates), prompts={})
    if given.prompts:
        yield given
