"""The queries of many runs, bought together before any run begins: each image once."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from client.errors import BudgetExhausted, FingerprintChanged
from client.purchase.buyer import Buyer, Offer
from client.results.records import Begun
from client.runs.connection import Connection
from client.runs.folder import RunFolder
from client.runs.requirements import require_unrefused
from client.vendors.query import Query


@dataclass(frozen=True)
class Asked:
    """The queries of one of the runs.

    Attributes:
        first: what it asks of any teacher: texts, labelled images, images that students are tested on.
        further: what it asks besides of a teacher from which it learns.
        is_worth_more: whether it learns from the teacher, by what was bought of `first`.
    """

    first: Sequence[Query]
    further: Sequence[Query] = ()
    is_worth_more: Callable[[Buyer], bool] = lambda _: True


class JointOffer(NamedTuple):
    """Of what runs ask together: how many queries the cache has, and what would be bought.

    Attributes:
        cached: distinct queries that the cache answers.
        to_buy: queries that would be bought, as far as the money reaches.
        cost_micros: their price.
        unaffordable: queries that the money does not reach.
        enough_micros: the least `max_spend_micros` that reaches them all; `None` where this one does.
    """

    cached: int
    to_buy: int
    cost_micros: int
    unaffordable: int = 0
    enough_micros: int | None = None


class JointPurchase:
    """The purchase of a comparison, under a run id of the comparison's own.

    Args:
        folder: the comparison's, which has what was bought.
        connection: where to buy, and the one cache.
        max_spend_micros: what may be paid in all, in millionths of the vendor's currency unit.
        approve: called with the price of everything before anything is bought; it raises to stop.
    """

    def __init__(
        self,
        folder: RunFolder,
        connection: Connection,
        max_spend_micros: int | None,
        approve: Callable[[int], None],
    ) -> None:
        self._folder = folder
        self._connection = connection
        self._display = connection.display
        self._max_spend_micros = max_spend_micros
        self._approve = approve

    @contextmanager
    def teacher(self, run_id: str) -> Iterator[Buyer]:
        """The teacher, who has not been asked anything yet."""
        with self._connection.teacher(run_id=run_id, budget=None, run=self._folder) as teacher:
            yield teacher

    @contextmanager
    def begun(self, run_id: str) -> Iterator[Buyer]:
        """The teacher of all runs, the same one that the comparison began with.

        Raises:
            FingerprintChanged: the vendor serves another model by now.
        """
        folder = self._folder
        with self.teacher(run_id) as teacher:
            before = folder.began_with
            if before is None:
                folder.write(folder.plan, Begun(model=teacher.model).to_json())
            elif before.fingerprint != teacher.model.fingerprint:
                raise FingerprintChanged(
                    f"This comparison began with the model {before.fingerprint}; the vendor now serves "
                    f"{teacher.model.fingerprint}, and runs by different teachers do not compare. Choose "
                    "another --out. What was bought is kept."
                )
            yield teacher

    def quote(self, teacher: Buyer, asked: Sequence[Asked]) -> JointOffer:
        """Quote the purchase of these runs, at the most; spends nothing."""
        first = _first(asked)
        wanted = _wanted(teacher, asked, first, has_first=_has_all(teacher, first))
        offer, whole = teacher.quote(wanted), _quote_without_limit(teacher, wanted)
        unaffordable = whole.to_buy - offer.to_buy
        enough = teacher.budget.committed.cost_micros + whole.cost_micros
        return JointOffer(*offer, unaffordable, enough if unaffordable else None)

    def buy(self, teacher: Buyer, asked: Sequence[Asked]) -> None:
        """Buy what all of these runs ask first; then what those ask besides that learn from the teacher.

        Raises:
            BudgetExhausted: the money reaches for a part of it, which is kept.
            DataError: the vendor refused a class text, and no image is bought.
        """
        first = _first(asked)
        used = _with_further(first, asked)
        has_first = _has_all(teacher, first)
        lot = wanted = _wanted(teacher, asked, first, has_first=has_first)
        self._approve(teacher.quote(wanted).cost_micros)
        if not has_first:
            texts = [query for query in first if query.kind == "text"]
            self._buy_lot(teacher, texts, wanted, used)
            require_unrefused(texts, teacher)
            self._buy_lot(teacher, first[len(texts) :], wanted, used)
            wanted = _wanted(teacher, asked, first, has_first=True)
            lot = wanted[len(first) :]
        if lot:
            self._buy_lot(teacher, lot, wanted, used)

    def _buy_lot(
        self, teacher: Buyer, lot: Sequence[Query], wanted: Sequence[Query], used: Sequence[Query]
    ) -> None:
        """Buy some of what is wanted; `used` is what the runs look at, if the cache has it."""
        folder, offer = self._folder, teacher.quote(lot)
        with self._display.track("Buying", offer.to_buy) as advance:
            purchase = teacher.buy(
                lot,
                lambda progress: advance(progress.done, progress.described(cached=offer.cached)),
                used=used,
            )
        spent = teacher.spending
        folder.write(folder.purchase, {"queries_bought": spent.queries, "cost_micros": spent.cost_micros})
        purchase.require_compared(teacher.budget)
        if purchase.out_of_budget:
            raise self._stopped_short(teacher, [query for query in wanted if query not in teacher.refused])

    def _stopped_short(self, teacher: Buyer, wanted: Sequence[Query]) -> BudgetExhausted:
        """The error where the money does not reach all queries: runs on a part of them do not compare."""
        spent, rest = teacher.spending, _quote_without_limit(teacher, wanted)
        return BudgetExhausted(
            f"--max-spend {self._max_spend_micros} does not reach {rest.to_buy} of the {len(wanted)} "
            "queries that these runs ask, and runs that learn from some of them would not compare, so none "
            f"was started. The {spent.queries} that were bought, for {spent.cost_micros} micros, are kept: "
            f"the same command with {teacher.enough_for(wanted)} continues from here. "
            "Or choose another --out, with a --budget for each run."
        )


def _first(asked: Sequence[Asked]) -> list[Query]:
    """The queries that these runs ask in any case, each once, texts before images."""
    unique = dict.fromkeys(chain.from_iterable(each.first for each in asked))
    return sorted(unique, key=lambda query: query.kind != "text")


def _with_further(first: Sequence[Query], asked: Sequence[Asked]) -> list[Query]:
    """These, and behind them what the runs ask besides, each query once."""
    return list(dict.fromkeys(chain(first, *(each.further for each in asked))))


def _has_all(teacher: Buyer, first: Sequence[Query]) -> bool:
    return teacher.quote(first).cached == len(first)


def _quote_without_limit(teacher: Buyer, queries: Sequence[Query]) -> Offer:
    return teacher.for_run("quote", budget=None).quote(queries)


def _wanted(
    teacher: Buyer, asked: Sequence[Asked], first: Sequence[Query], *, has_first: bool
) -> list[Query]:
    """All that is to be bought, as far as is known: before the first queries are, every run may learn."""
    if has_first:
        asked = [each for each in asked if each.further and each.is_worth_more(teacher)]
    return _with_further(first, asked)
