"""What many runs ask, bought at once: each image once, and nothing unless all of it can be paid."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from client.buying.queries import Query
from client.buying.teacher import Teacher
from client.errors import BudgetExhausted, FingerprintChanged
from client.results.records import Begun
from client.runs.connection import Connection
from client.runs.folder import RunFolder


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
    def teacher(self, run_id: str) -> Iterator[Teacher]:
        """The teacher, who has not been asked anything yet."""
        with self._connection.teacher(
            run_id=run_id, budget=None, max_spend_micros=self._max_spend_micros, run=self._folder
        ) as teacher:
            yield teacher

    @contextmanager
    def begun(self, run_id: str) -> Iterator[Teacher]:
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

    def buy(self, teacher: Teacher, queries: Sequence[Query]) -> None:
        """Buy all of these queries.

        Raises:
            BudgetExhausted: the money reaches for a part of them, which is kept.
        """
        folder = self._folder
        offer = teacher.quote(queries)
        self._approve(offer.cost_micros)
        with self._display.track("Buying", offer.to_buy) as advance:
            purchase = teacher.buy(
                queries, lambda progress: advance(progress.done, progress.described(cached=offer.cached))
            )
        spent = teacher.spending
        folder.write(folder.purchase, {"queries_bought": spent.queries, "cost_micros": spent.cost_micros})
        purchase.require_compared(teacher.budget)
        if purchase.out_of_budget:
            raise self._stopped_short(teacher, [query for query in queries if query not in purchase.refused])

    def _stopped_short(self, teacher: Teacher, wanted: Sequence[Query]) -> BudgetExhausted:
        """What to say where the money did not reach for all that is wanted: runs on a part do not compare."""
        spent, rest = teacher.spending, teacher.for_run("quote", budget=None).quote(wanted)
        enough = teacher.budget.committed.cost_micros + rest.cost_micros  # what is set aside counts
        return BudgetExhausted(
            f"--max-spend {self._max_spend_micros} does not reach {rest.to_buy} of the {len(wanted)} "
            "queries that these runs ask, and runs that learn from some of them would not compare, so none "
            f"was started. The {spent.queries} that were bought, for {spent.cost_micros} micros, are kept: "
            f"the same command with --max-spend {enough} goes on from here. "
            "Or choose another --out, with a --budget for each run."
        )
