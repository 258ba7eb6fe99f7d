"""How a run buys from its teacher: the cache, then the budget, then the vendor."""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from client.cache.cache import EmbeddingCache
from client.errors import UsageError, VendorError
from client.purchase.budget import NOTHING, Budget, price
from client.purchase.checkout import Checkout
from client.purchase.lock import run_lock
from client.purchase.pinning import Pinning
from client.purchase.plan import PurchasePlan, Tranche, affordable, plan_purchase, purchase_order
from client.purchase.purchase import Purchase
from client.purchase.rates import recent_rate
from client.purchase.result import PurchaseProgress, PurchaseResult
from client.vendors.query import Query, Spending, counts_of
from client.vendors.tracing import Traces
from client.vendors.vendor import Vendor
from shared.billing import Quote
from shared.embeddings import ModelCard
from shared.kinds import count_fields


@dataclass(frozen=True)
class PurchaseOutlook:
    """Whether a purchase would succeed now, and how long it would take.

    Attributes:
        quote: the vendor's own estimate, with the quota that is left and whether money and quota suffice;
            `None` where it gives none to this key, or does not answer.
        prices_known: whether prices are known; where they are not, every cost is shown as 0.
        seconds: at the rate of the last comparable purchase of this model (see `recent_rate`), or at the
            vendor's rate limit if that is slower; `None` if there was none.
    """

    quote: Quote | None
    prices_known: bool
    seconds: float | None


@dataclass(frozen=True)
class Bulk:
    """How a run uses the bulk jobs of a vendor.

    Attributes:
        buys: whether the run buys by them, at their prices.
        wait: whether jobs are waited for.
    """

    buys: bool = False
    wait: bool = True


class Offer(NamedTuple):
    """How many queries the cache has, how many would be bought, and for how many micros."""

    cached: int
    to_buy: int
    cost_micros: int


class Buyer:
    """One model of one vendor, bought from for one run.

    Attributes:
        vendor: who sells.
        model: the model, at the prices at which the run buys.
        refused: what could not be embedded of what was bought here, and before `for_run`, with the reason.
    """

    def __init__(
        self,
        vendor: Vendor,
        cache: EmbeddingCache,
        *,
        model: ModelCard,
        run_id: str,
        budget: int | None,
        max_spend_micros: int | None = None,
        traces: Traces | None = None,
        say: Callable[[str], None] = lambda _: None,
        bulk: Bulk | None = None,
    ) -> None:
        """Connect a run to what it buys from and what it keeps.

        Args:
            vendor: where to buy.
            cache: what was bought before, by any run, and where this one stores.
            model: the model to buy from.
            run_id: names the run in receipts and idempotency keys, across its resumptions.
            budget: queries that the run may pay for in all, counting what it has paid; `None` for no limit.
            max_spend_micros: what it may pay in all, in millionths of the vendor's currency unit.
            traces: where the spans of purchases go.
            say: receives messages about purchases for the user.
            bulk: how it uses bulk jobs.

        Raises:
            UsageError: it is to buy by bulk jobs, and the vendor runs none.
        """
        self.vendor = vendor
        self.model = at_bulk_prices(model) if bulk is not None and bulk.buys else model
        self.refused: dict[Query, str] = {}
        self._card = model
        self._cache = cache
        self._run_id = run_id
        self._limits = (budget, max_spend_micros)
        self._traces = traces
        self._say = say
        self._bulk = bulk or Bulk()
        self._released: set[str] = set()
        self._pinning = Pinning(cache, model, say)
        self._said_owed = 0

    def for_run(self, run_id: str, *, budget: int | None, max_spend_micros: int | None = None) -> "Buyer":
        """The same model of the same vendor, with the same cache, for another run.

        It knows what was refused before. What is refused to it, it keeps to itself: this teacher may outlive
        many runs, and is not to hold the images that they asked about.
        """
        other = Buyer(
            self.vendor, self._cache, model=self._card, run_id=run_id, budget=budget,
            max_spend_micros=max_spend_micros, traces=self._traces, say=self._say, bulk=self._bulk,
        )  # fmt: skip
        other.refused = dict(self.refused)
        other._pinning, other._released = self._pinning, self._released
        return other

    def _checkout(self) -> Checkout:
        budget = Budget(*self._limits, spent=self.spending)
        return Checkout(
            self.vendor, self._cache, self._card, self._run_id, budget, self._released, self._traces
        )

    @property
    def budget(self) -> Budget:
        """The run's budget as its receipts leave it, and what it may have paid elsewhere."""
        budget = Budget(*self._limits, spent=self.spending)
        budget.set_aside(self.owed_elsewhere)
        return budget

    @property
    def owed_elsewhere(self) -> Spending:
        """The most that the run may have paid to other vendors, for other models or with other keys.

        It counts in the budget until that vendor is asked with that key.
        """
        payer, fingerprint = self._checkout().payer, self._card.fingerprint
        elsewhere = [
            note
            for note in self._cache.notes.of_run(self._run_id)
            if not note.sent_by(payer) or (note.batch.is_job and note.batch.fingerprint != fingerprint)
        ]
        return sum((self._cache.billed.owed(note, self._card.prices).spending for note in elsewhere), NOTHING)

    @property
    def spending(self) -> Spending:
        """The amount paid by the run so far, over all its resumptions."""
        return self._cache.spending(self._run_id)

    @property
    def awaits_answers(self) -> bool:
        """Whether the run has sent something that may still be answered, and is in no receipt until then."""
        return bool(self._cache.notes.of_run(self._run_id))

    @property
    def buys_by_jobs(self) -> bool:
        """Whether it buys by bulk jobs."""
        return self._bulk.buys

    def plan(self, tranches: Sequence[Tranche], *, directly: Collection[Query] = ()) -> PurchasePlan:
        """The plan to buy these, given the cache and the budget; see `plan_purchase`.

        `directly` are those that are not left to bulk jobs, and cost what a request costs (`buy`).
        """
        cached, direct = self._cache.known(self.model.fingerprint, purchase_order(tranches)), set(directly)

        def cost(queries: Collection[Query]) -> Spending:
            at_once = direct.intersection(queries)
            later = [query for query in queries if query not in at_once]
            return price(later, self.model.prices) + price(at_once, self._card.prices)

        return plan_purchase(tranches, cached=cached, budget=self.budget, cost=cost)

    def quote(self, queries: Sequence[Query]) -> Offer:
        """How many of these the cache has, and the price of the others as far as the budget reaches."""
        known = self._cache.known(self.model.fingerprint, queries)
        missing = [query for query in dict.fromkeys(queries) if query not in known]
        spending = self._price(affordable(missing, self.budget, self._price))
        return Offer(len(known), spending.queries, spending.cost_micros)

    def _price(self, queries: Collection[Query]) -> Spending:
        return price(queries, self.model.prices)

    def left_to_jobs(self, queries: Sequence[Query]) -> int:
        """How many of these bulk jobs of this key are to bring, so that they are not paid for twice."""
        payer, fingerprint = self._checkout().payer, self._card.fingerprint
        jobs = [note for note in self._cache.notes.of_run() if note.batch.is_job and note.sent_by(payer)]
        mine = (note.batch.queries for note in jobs if note.batch.fingerprint == fingerprint)
        return len({query for each in mine for query in each}.intersection(queries))

    def enough_for(self, queries: Sequence[Query], *, counted_by: str = "--budget") -> str:
        """The options with which the run can buy what is missing of these; see `Budget.enough_for`."""
        wanted = [query for query in queries if query not in self.refused]
        rest = self.for_run("quote", budget=None).quote(wanted)
        return self.budget.enough_for(Spending(rest.to_buy, rest.cost_micros), counted_by=counted_by)

    def outlook(self, queries: Sequence[Query]) -> PurchaseOutlook:
        """The vendor's price for these, whether it would sell them now, and how long they would take."""
        counts = counts_of(queries)
        quote: Quote | None = None
        with suppress(VendorError):  # no key yet, or nobody there: a plan can be made all the same
            quote = self.vendor.estimate(**count_fields(counts), model=self.model, batch=self._bulk.buys)
        rate = recent_rate(self._cache.billed.sales(self.model.fingerprint), counts)
        slowest = quote.seconds_at_rate_limit if quote else 0
        seconds = None if rate is None else max(slowest, len(queries) / rate)
        return PurchaseOutlook(quote, self.vendor.knows_prices(self.model.id), seconds)

    def hold_owed(self, images: Sequence[Query]) -> None:
        """Hold those of some images that are in no file whose answers are owed, and let go of others."""
        self._cache.notes.hold(images)

    @property
    def recent_rate(self) -> float | None:
        """Queries a second at which this model was last bought from; `None` where that is not known."""
        return recent_rate(self._cache.billed.sales(self.model.fingerprint))

    def lookup(self, queries: Sequence[Query]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Embeddings (n, dimensions), and which rows the cache has (n,); the others are NaN."""
        return self._cache.rows(self.model.fingerprint, queries, self.model.dimensions)

    def buy(
        self,
        queries: Sequence[Query],
        on_progress: Callable[[PurchaseProgress], None] = lambda _: None,
        *,
        patience: float | None = None,
        used: Collection[Query] | None = None,
        directly: bool = False,
    ) -> PurchaseResult:
        """Buy the queries that the cache lacks, in order, until they, the budget or the quota end.

        Answers that an earlier, interrupted run had paid for are fetched first, free of charge.

        Args:
            queries: what is wanted.
            on_progress: called as it goes on.
            patience: for a budget that several processes spend: how many seconds to wait for another one's
                purchase, before what is left is read. `None` where a run is one process at a time.
            used: all that the run uses together, these and what it has already: a vendor that is new to the
                cache is compared with what is known of it. `None` where these are all.
            directly: whether to buy by requests what is needed at once, even if the run buys by bulk jobs.

        Raises:
            RunBusy: another process is buying for this run.
            QuotaExhausted: the vendor's limit was reached; all that was paid for is stored.
            JobRunning: a bulk job goes on at the vendor, and is not waited for.
            ClientError: something else ended it; all that was answered is stored, the rest noted as pending.
        """
        traced = nullcontext() if self._traces is None else self._traces.buying(len(queries))
        with nullcontext() if patience is None else self._turn(patience), traced:
            purchase = Purchase(
                self._checkout(),
                on_progress,
                self._say,
                by_jobs=self._bulk.buys,
                wait=self._bulk.wait,
                directly=directly,
            )
            result = purchase.run(queries, queries if used is None else used)
        self._say_owed()
        if result.cost_micros:
            self._pinning.pin(self.vendor)
        self.refused.update(result.refused)
        return result

    def _say_owed(self) -> None:
        owed = self.owed_elsewhere.queries
        if owed and owed != self._said_owed:
            self._said_owed = owed
            self._say(
                f"{owed} queries of the budget are set aside: this run sent them to another vendor or model, "
                "or with another key, and was not told whether they are paid for. The same command with that "
                "--vendor and key settles them."
            )

    def _turn(self, patience: float) -> AbstractContextManager[None]:
        return run_lock(self._cache.path, f"a turn in {self._run_id}", patience=patience)


def at_bulk_prices(model: ModelCard) -> ModelCard:
    """The model at the prices of bulk jobs.

    Raises:
        UsageError: the vendor runs none.
    """
    if model.batch_prices is None:
        raise UsageError(f"The vendor runs no bulk jobs of {model.id}: leave --batch out.")
    return model.model_copy(update={"prices": model.batch_prices})
