"""The settlement of batches that a run sent before and that were never answered."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from client.cache.pending import PendingBatch
from client.errors import (
    ClientError,
    IdempotencyKeySpent,
    KeyRefused,
    PriceRaised,
    RequestRefused,
    SpendingStopped,
    VendorError,
)
from client.purchase.budget import Budget
from client.purchase.checkout import Checkout, Request
from client.purchase.recovery import Undecided, may_cost, restore
from client.vendors.query import Query
from client.vendors.vendor import EmbedResult


class Settlement:
    """The notes of a run, settled before it buys.

    Attributes:
        undecided: queries that may have been paid for, and of which the vendor does not tell.
    """

    def __init__(
        self,
        checkout: Checkout,
        budget: Budget,
        *,
        store: Callable[[Request, EmbedResult], None],
        give_up: Callable[[PendingBatch], None],
        wait: Callable[[float], object],
        say: Callable[[str], None],
    ) -> None:
        """Ask nothing yet.

        Args:
            checkout: where to ask.
            budget: where what may have been paid counts.
            store: stores an answer and counts it.
            give_up: counts a batch as paid whose answer is no longer to be had.
            wait: waits for so many seconds.
            say: told why.
        """
        self._checkout = checkout
        self._cache, self._model = checkout.cache, checkout.model
        self._budget = budget
        self._store = store
        self._give_up = give_up
        self._wait = wait
        self._say = say
        self._others: dict[str, Checkout | None] = {}  # by fingerprint
        self.undecided: Undecided = {}

    def settle(self, run_id: str, at_hand: Mapping[Query, Query]) -> list[tuple[Request, PendingBatch]]:
        """Fetch what was charged; returns what was not. What nobody can tell of counts as paid.

        What was sent to another model that the vendor sells as well stays noted, if that has not charged it.
        So does what was sent to another vendor or with another key, unless it is answered here all the same:
        whoever charged it may be asked again.
        """
        uncharged: list[tuple[Request, PendingBatch]] = []
        for note in self._cache.pending_batches.of_run(run_id):
            if not (note.sent_to(self._checkout.origin) or self._is_wanted(note, at_hand)):
                self.count_as_paid(note)  # what it asked is no business of this vendor
                continue
            request = restore(note, at_hand)
            if request is None and note.is_expired:
                self._give_up(note)
            elif request is None:
                self.count_as_paid(note)
            elif (other := self._other_model(note.batch.fingerprint)) is not None:
                self._settle_with(other, request, note)
            elif self._is_uncharged(request, note, patient=self._is_wanted(note, at_hand)):
                uncharged.append((request, note))
        return uncharged

    def _is_wanted(self, note: PendingBatch, at_hand: Mapping[Query, Query]) -> bool:
        """Whether it asked the present model about what this run asks as well."""
        mine = note.batch.fingerprint == self._model.fingerprint
        return mine and all(query in at_hand for query in note.batch.queries)

    def forget(self, request: Request, note: PendingBatch, missing: set[Query]) -> None:
        """Drop the note of a batch that was not charged, once the vendor cannot be answering it any more.

        Where some of it is missing, and so about to be bought, that is waited for.
        """
        seconds = note.seconds_left
        if seconds and not missing.isdisjoint(request.batch.queries):
            self._wait_for(note)
            if not self._is_uncharged(request, note):
                return
            seconds = note.seconds_left
        if seconds:
            self.count_as_paid(note)  # nobody waits for it, and it may be charged yet
        else:
            self._cache.abandon(request.batch)

    def _wait_for(self, note: PendingBatch) -> None:
        self._say(
            f"Waiting {note.seconds_left:.0f} s: some of what is wanted was sent in another request a moment "
            "ago, and if the vendor answers that only now, it must not be bought again."
        )
        self._wait(note.seconds_left)

    def not_told(self) -> ClientError:
        """Why some queries were left out."""
        error = next(iter(self.undecided.values()))
        if isinstance(error, SpendingStopped):
            return error
        told = VendorError(
            f"{len(self.undecided)} queries were sent before and never answered, and the vendor does not "
            f"tell whether it charged them: {error} They are not bought again, lest they are paid for twice; "
            "everything else was. Repeat the command once the vendor tells; what it has not told within "
            "three days counts as paid, and is then bought again within the budget."
        )
        told.__cause__ = error
        return told

    def _other_model(self, fingerprint: str) -> Checkout | None:
        """Where to ask for what another model than the present one was sent, if it is sold as well."""
        if fingerprint == self._model.fingerprint:
            return None
        if fingerprint not in self._others:
            self._others[fingerprint] = self._checkout.of_model(fingerprint)
        return self._others[fingerprint]

    def _settle_with(self, checkout: Checkout, request: Request, note: PendingBatch) -> None:
        """Store the answer of another model's batch, if it was charged; it was paid for by this run."""
        try:
            answer = checkout.fetch_charged(request)
        except PriceRaised:
            if note.seconds_left or not note.sent_by(self._checkout.payer):
                self.count_as_paid(note)
            return
        except KeyRefused:
            raise
        except (RequestRefused, SpendingStopped):
            self.count_as_paid(note)
            return
        checkout.store(request.batch, answer)
        self._budget.catch_up(self._cache.spending(note.batch.run_id))  # its bill may count already

    def _is_uncharged(self, request: Request, note: PendingBatch, *, patient: bool = False) -> bool:
        """Fetch the answer of a noted batch, unless it was not charged; True if it was not.

        Who is `patient` waits for what another key of the same vendor may still be charged for.
        """
        batch = request.batch
        try:
            answer = self._checkout.fetch_charged(request)
        except PriceRaised:
            if note.sent_by(self._checkout.payer):
                return True
            if patient and note.seconds_left and note.sent_to(self._checkout.origin):
                self._wait_for(note)
                return self._is_uncharged(request, note)
            self.count_as_paid(note)  # another vendor or account may have charged it
            return False
        except IdempotencyKeySpent:
            if note.sent_by(self._checkout.payer):
                self._give_up(note)
            else:  # it is spent here, and whoever sent the batch may be answered yet
                self.count_as_paid(note)
            return False
        except KeyRefused:
            raise
        except (RequestRefused, SpendingStopped) as error:
            mine = batch.fingerprint == self._model.fingerprint and note.sent_to(self._checkout.origin)
            if mine and note.is_expired:
                self._give_up(note)
                return False
            self.count_as_paid(note)
            self.undecided |= dict.fromkeys(batch.queries if mine else (), error)
            return False
        # What is answered is the present model's, whichever the batch was meant for.
        self._store(replace(request, batch=replace(batch, fingerprint=self._model.fingerprint)), answer)
        return False

    def count_as_paid(self, note: PendingBatch) -> None:
        """It may have been paid for, so it counts, for as long as nobody knows."""
        self._budget.set_aside(may_cost(note, self._model.prices, self._cache.billed))
