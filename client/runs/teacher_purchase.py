"""Buys what a run asks its teacher: texts, labelled images, and the rest if these say that it is worth it."""

from collections.abc import Callable, Sequence
from pathlib import Path

from client.data.finder import Skipped
from client.errors import UsageError
from client.progress import Display
from client.purchase.buyer import Buyer
from client.purchase.plan import PurchasePlan
from client.results.records import Purchase, RefusedQuery
from client.runs.config import RunConfig
from client.runs.dataset import Dataset, unseen
from client.runs.folder import RunFolder
from client.runs.forecast import check_by_labelled, plan_for, worth_asking
from client.runs.mentions import mention_skipped
from client.runs.plans import describe_plan
from client.runs.requirements import require_images, require_prompts, require_same_model
from client.runs.rounds import Rounds
from client.runs.teacher_check import is_guessing
from client.runs.teacher_queries import TeacherQueries
from client.vendors.query import Query

# After so many labelled images it is said if the teacher guesses.
_FIRST_LOOK = 200


class TeacherPurchase:
    """The purchase of one run, of one list of queries."""

    def __init__(
        self,
        config: RunConfig,
        run: RunFolder,
        dataset: Dataset,
        asked: TeacherQueries,
        teacher: Buyer,
        display: Display,
        rounds: Rounds | None = None,
    ) -> None:
        """Take up a purchase: nothing is bought yet; `rounds` choose images where the budget ends first."""
        self._rounds = rounds
        self._config = config
        self._run = run
        self._dataset = dataset
        self._asked = asked
        self._teacher = teacher
        self._display = display
        self._refused: dict[Query, str] = {}

    def make(self, approve: Callable[[int], None]) -> None:
        """Buy what the plan names; `purchase.json` says what came of it, also when buying stopped early.

        Args:
            approve: called with the price before anything is bought; it raises to stop.
        """
        run, dataset, asked, teacher = self._run, self._dataset, self._asked, self._teacher
        if self._rounds is not None and teacher.buys_by_jobs:
            raise UsageError(
                f"--select {self._config.select} buys round by round, and a bulk job may take a day: leave "
                "out --batch, or choose by stratified."
            )
        plan, _ = plan_for(self._config, dataset, asked, teacher, folder=run.path)
        require_same_model(run, plan, teacher)
        run.write(run.plan, describe_plan(self._config, dataset, teacher.model, plan).to_json())
        require_prompts(asked, plan, teacher)
        require_images(dataset, asked, plan, teacher)
        approve(plan.cost_micros)
        with run.timed("buy"):
            self._buy_lots(plan)
        skipped = [Skipped(Path(q.name), why) for q, why in self._refused.items() if q.kind == "image"]
        mention_skipped(skipped, dataset.folder.base, self._display, listed_in=run.purchase)
        run.write(run.purchase, self._record().to_json())

    def _buy_lots(self, plan: PurchasePlan) -> None:
        """Pay for no more texts or images than the plan names: somebody agreed to its price.

        What decides about the rest is bought directly, so that bulk jobs, which take a day, are one round.
        """
        asked = self._asked
        texts, *_ = asked.lots(plan.to_buy)
        _, labelled, further = asked.lots([*plan.to_buy, *plan.beyond])
        first = set(asked.needed_first if self._teacher.buys_by_jobs else labelled)
        deciding, rest = ([q for q in labelled if (q in first) is side] for side in (True, False))
        self._buy_lot("texts", texts, directly=True)
        # An image that is refused by now is of a request that an earlier run had sent.
        if not self._refused.keys().isdisjoint(asked.prompts):
            return  # nothing can be learnt from images
        room = len(plan.to_buy) - len(texts)
        if self._rounds is not None and plan.beyond and room:
            self._buy_in_rounds(self._rounds, room)
            return
        if len(deciding) > _FIRST_LOOK < room:
            look, deciding = deciding[:_FIRST_LOOK], deciding[_FIRST_LOOK:]
            left = self._buy_images("first images", look, len(look), cached=plan.cached, directly=True)
            room -= len(look) - left
            self._mention_guessing()
        room = self._buy_images("images", deciding, room, cached=plan.cached, directly=True)
        if rest and deciding:
            self._mention_guessing()
        is_worth_more = worth_asking(self._config, self._dataset, asked, self._teacher, folder=self._run.path)
        room = self._buy_images("further images", [*rest, *(further if is_worth_more else ())], room)
        if is_worth_more and plan.needed("labelled") and (room or not plan.beyond):
            self._mention_unspent()

    def _buy_in_rounds(self, rounds: Rounds, room: int) -> None:
        """Buy what each round chooses by what the ones before it brought, until there is no room for more.

        What an earlier run of these rounds paid for is in the cache, and takes no room.
        """
        for name in ("labelled", "unlabelled"):
            if name == "unlabelled" and not worth_asking(
                self._config, self._dataset, self._asked, self._teacher, folder=self._run.path
            ):
                return
            for number, lot in enumerate(rounds.lots(name, self._asked, self._teacher), start=1):
                known = self._teacher.lookup(lot)[1]
                wanted = [query for query, ok in zip(lot, known, strict=True) if not ok]
                room = self._buy_images(f"round {number}", wanted, room)
                if number == 1:
                    self._mention_guessing()
                if not room:
                    return

    def _buy_images(
        self, name: str, wanted: Sequence[Query], room: int, *, cached: int = 0, directly: bool = False
    ) -> int:
        """Buy the first of some images; returns for how many more there is room then.

        One that is not paid for after all makes room for the next.
        """
        while room and wanted:
            lot, wanted = wanted[:room], wanted[room:]
            bought = self._buy_lot(name, lot, cached=cached, directly=directly)
            if bought is None:
                return 0
            room -= min(len(lot), bought)
        return room

    def _buy_lot(
        self, name: str, lot: Sequence[Query], *, cached: int = 0, directly: bool = False
    ) -> int | None:
        """Buy some queries; returns how many were paid for, and `None` once the budget has ended.

        `directly` is that of `Buyer.buy`.
        """
        teacher = self._teacher
        with self._display.track(f"Buying {name}", len(lot)) as advance:
            purchase = teacher.buy(
                lot,
                lambda progress: advance(progress.done, progress.described(cached=cached)),
                used=self._asked.all,
                directly=directly,
            )
        purchase.require_compared(teacher.budget)
        self._refused |= purchase.refused
        return None if purchase.out_of_budget else purchase.bought

    def _mention_guessing(self) -> None:
        """Say it before much is spent, where texts and images do not go together."""
        check = check_by_labelled(
            self._config, self._dataset, self._asked, self._teacher, folder=self._run.path
        )
        classes = len(self._dataset.classes)
        if check is not None and is_guessing(check, classes=classes):
            self._display.note(
                f"By the class texts the teacher is right about {check.accuracy:.0%} of the first images, "
                f"which is no better than guessing among {classes} classes: its texts and images may be of "
                "two spaces, or the classes' names tell it nothing. Buying goes on; Ctrl-C ends it, and what "
                "was bought is kept."
            )

    def _mention_unspent(self) -> None:
        left = self._teacher.plan(()).budget_left  # a comparison with what is known costs queries too
        if not left:
            return
        if beyond := unseen(self._config, self._dataset):
            why = (
                f"so few steps would not look at {beyond} of the images without labels. More --steps, or "
                "none, would use them."
            )
        else:
            why = "everything is bought. More images would use them: --unlabelled."
        self._display.note(f"{left} queries of the budget stay unspent: {why}")

    def _record(self) -> Purchase:
        spending, wanted = self._teacher.spending, dict.fromkeys(self._asked.all)
        refused = self._teacher.refused
        return Purchase(
            queries_bought=spending.queries,
            # What the run has and did not pay for, another run that bought it meanwhile included.
            queries_cached=max(0, self._teacher.quote(list(wanted)).cached - spending.queries),
            cost_micros=spending.cost_micros,
            refused=[
                RefusedQuery(name=query.name, reason=refused[query]) for query in wanted if query in refused
            ],
        )
