"""The settlement of what was sent before, by this run or another, and was never answered."""

import threading
from collections.abc import Callable, Collection, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace

from client.cache.notes import Note
from client.errors import (
    ClientError,
    JobRunning,
    KeyRefused,
    NotOffered,
    RequestRefused,
    RunBusy,
    SpendingStopped,
    VendorError,
)
from client.purchase.checkout import Checkout, Order
from client.purchase.identification import identify
from client.purchase.jobs import Jobs, described
from client.purchase.lifecycle import Event
from client.purchase.lock import notes_lock
from client.purchase.queue import Channel, Gone, NotCharged
from client.purchase.requests import Requests
from client.purchase.result import Tally
from client.vendors.query import Query


@dataclass
class Settlement:
    """Asks a vendor, free of charge, about requests in doubt and bulk jobs, for one purchase.

    Attributes:
        checkout: what is bought, by which run.
        requests: the run's requests.
        jobs: its bulk jobs, where the vendor runs any.
        by_jobs: whether the run buys by them.
        tally: where answers are counted.
        pause: waits for a number of seconds.
        say: receives messages for the user.
        wanted: the queries of the purchase, whose files are where they are now.
        untold: queries that may be paid for, with the reason why the vendor does not tell; buying them
            again might pay twice.
    """

    checkout: Checkout
    requests: Requests
    jobs: Jobs | None
    by_jobs: bool
    tally: Tally
    pause: Callable[[float], object]
    say: Callable[[str], None]
    wanted: Mapping[Query, Query] = field(default_factory=dict)
    untold: dict[Query, ClientError] = field(default_factory=dict)
    _elsewhere: dict[str, Requests] = field(default_factory=dict)  # those of other models, by fingerprint
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def recover(self, missing: Collection[Query], *, only_past: bool = False) -> None:
        """Store the answers to missing queries that killed runs had paid for. Thread-safe.

        Without this, this run would pay for them a second time. The receipts stay with the runs that paid.
        A batch that the vendor has not charged is dropped once the vendor cannot be answering it any more.

        Args:
            missing: queries that the cache lacks.
            only_past: whether to skip batches that the vendor may still be answering.

        Raises:
            KeyRefused, VendorError: the vendor does not answer, or answered what cannot be taken.
            CacheError: the cache cannot be written.
        """
        if not (missing and self.checkout.vendor.declares.repeats_are_free):
            return
        cache = self.checkout.cache
        with self._lock:
            notes = self._requests_of_others(None, missing, only_past=only_past)
            for run_id in dict.fromkeys(note.batch.run_id for note in notes):
                with suppress(RunBusy), notes_lock(cache.path, run_id):  # a run that is busy was not killed
                    for note in self._requests_of_others(run_id, missing, only_past=only_past):
                        self._recover(Order.found(note), missing)

    def _requests_of_others(
        self, run_id: str | None, missing: Collection[Query], *, only_past: bool
    ) -> list[Note]:
        """Noted requests of another run, or of any, to this vendor that contain missing queries."""
        return [
            note
            for note in self.checkout.cache.notes.of_run(run_id)
            if not note.batch.is_job
            and note.batch.run_id != self.checkout.run_id
            and self._is_here(note)
            and note.batch.idempotency_key not in self.checkout.released
            and any(query in missing and query not in self.untold for query in note.batch.queries)
            and not (only_past and note.seconds_left)
        ]

    def _recover(self, order: Order, missing: Collection[Query]) -> None:
        if self.requests.restored(order, self.wanted):
            if self._is_uncharged(order) and not order.note.seconds_left:
                self.checkout.apply(order, Event.UNCHARGED)
        elif not order.note.seconds_left:
            self.checkout.released.add(order.batch.idempotency_key)
            self.say(
                f"Another run was killed as it bought {sum(q in missing for q in order.queries)} of "
                "these queries. They may be paid for, and cannot be asked after, for a file that was sent "
                "with them has changed or is gone. They are bought again."
            )

    def settle_request(self, order: Order) -> bool:
        """Fetch the answer that a request of this run paid for; True if it was not charged.

        A request that cannot be settled now stays set aside.
        """
        if not (order.note.sent_to(self.checkout.payer.vendor) or self._is_wanted(order)):
            return False  # this vendor was not asked, and its queries are not wanted
        if self.requests.restored(order, self.wanted):
            return self._is_uncharged(order)
        if order.note.is_expired:
            self.give_up(order)
        return False

    def settle_jobs(self, own: Mapping[str, Order]) -> list[Order]:
        """Store the results of bulk jobs; returns the jobs that the vendor has not begun.

        Args:
            own: the noted batches of this run, by their keys.

        Raises:
            JobRunning: a job still runs, and the purchase does not wait for it.
            VendorError: a job was cancelled, expired or is incomplete (its results are stored), or the vendor
                runs no jobs at present.
        """
        running: list[tuple[str, JobRunning]] = []
        not_begun: list[Order] = []
        for note in self.noted_jobs(self.wanted):
            order = own.get(note.batch.idempotency_key) or Order.found(note)
            try:
                if self._is_uncharged(order):
                    not_begun.append(order)
            except JobRunning as error:
                running.append((order.note.job or "", error))
        if running and self.by_jobs:
            raise running[0][1]
        if running:
            names = ", ".join(name for name, _ in running if name)
            raise JobRunning(
                "Some of these queries, or others that this run has asked, are being bought by "
                f"{f'the bulk job {names}' if names else 'a bulk job'}. Give the command with --batch, which "
                "waits for it; or cancel it with `client batches --cancel ID`, and what it has not done is "
                "bought now."
            )
        return not_begun

    def noted_jobs(self, queries: Collection[Query], *, own: bool = True) -> list[Note]:
        """Noted jobs with some of the queries; with `own` all of this run too, which count in its budget."""
        checkout, wanted = self.checkout, set(queries)
        return [
            note
            for note in (checkout.cache.notes.of_run() if self.jobs is not None else ())
            if note.batch.is_job
            and self._is_here(note)
            and note.batch.idempotency_key not in checkout.released
            and ((own and note.batch.run_id == checkout.run_id) or not wanted.isdisjoint(note.batch.queries))
        ]

    def forget(self, order: Order, missing: Set[Query]) -> None:
        """Drop an uncharged batch once the vendor cannot be answering it any more.

        Waits for that if some of its queries are missing, and so about to be bought.
        """
        if order.note.seconds_left:
            if missing.isdisjoint(order.queries):
                return  # nobody waits for it, and it may be charged yet
            self._wait_for(order.note)
            if not self._is_uncharged(order):
                return
        self.checkout.apply(order, Event.UNCHARGED)

    def give_up(self, order: Order) -> None:
        """Count a batch as paid whose answer is lost; it is bought again under another key."""
        if order.batch.is_job:
            self._give_up_job(order)
            return
        counts_already = self.checkout.cache.billed.is_answered(order.note)
        self.checkout.apply(order, Event.GONE)
        if counts_already or order.batch.run_id != self.checkout.run_id:
            return
        self.tally.lose(len(order.queries))
        lost = (
            "the vendor no longer answers them under the key of that time"
            if self.checkout.vendor.declares.repeats_are_free
            else "their answers are lost"
        )
        self.say(
            f"{len(order.queries)} queries may have been paid for before, and {lost}. They count as paid, "
            "and are bought again as far as the budget reaches."
        )

    def require_told(self) -> None:
        """Raise if the vendor did not tell whether some queries were charged.

        Raises:
            VendorError: how many, and why; SpendingStopped: the account may spend nothing.
        """
        if not self.untold:
            return
        error = next(iter(self.untold.values()))
        if isinstance(error, SpendingStopped):
            raise error
        raise VendorError(
            f"{len(self.untold)} queries were sent before and never answered, and the vendor does not "
            f"tell whether it charged them: {error} They are not bought again, so that they are not paid "
            "for twice; "
            "everything else was. Repeat the command once the vendor tells; what it has not told within "
            "three days counts as paid, and is then bought again within the budget."
        ) from error

    def _is_uncharged(self, order: Order) -> bool:
        """Store the answer of a batch in doubt if it was charged; True if it was not.

        The vendor tells only the account that sent the batch; what it tells another account proves nothing.
        """
        note, is_told, is_here = (
            order.note,
            order.note.sent_by(self.checkout.payer),
            self._is_here(order.note),
        )
        try:
            self._channel_of(order).ask(order)
        except NotCharged:
            if is_told:
                return True
            is_own = order.batch.run_id == self.checkout.run_id
            if is_own and is_here and self._is_wanted(order) and note.seconds_left:
                self._wait_for(note)  # another key of the same account may be answered yet
                return self._is_uncharged(order)
            self._release(order)
        except Gone:
            if is_told:
                self.give_up(order)
            else:  # its key is spent here, and the sender may be answered yet
                self._release(order)
        except (KeyRefused, JobRunning, NotOffered):
            raise
        except (RequestRefused, SpendingStopped) as error:
            if is_here and note.is_expired:
                self.give_up(order)
                return False
            self.checkout.apply(order, Event.UNTOLD)
            if is_here:
                self.untold.update(dict.fromkeys(order.queries, error))
        return False

    def _channel_of(self, order: Order) -> Channel:
        """The channel to ask about a batch; for a request, that of the model it asked, if that is sold."""
        if order.batch.is_job and self.jobs is not None:
            return self.jobs
        checkout, fingerprint = self.checkout, order.batch.fingerprint
        if fingerprint == checkout.model.fingerprint or not checkout.vendor.declares.repeats_are_free:
            return self.requests
        if fingerprint not in self._elsewhere:
            model = identify(checkout.vendor, checkout.cache, fingerprint=fingerprint)
            uncounted = Tally(lambda _: None)  # what it brings is not part of this purchase
            other = replace(self.requests, checkout=replace(checkout, model=model), tally=uncounted)
            self._elsewhere[fingerprint] = other if model.fingerprint == fingerprint else self.requests
        return self._elsewhere[fingerprint]

    def _is_here(self, note: Note) -> bool:
        """Whether it asked the present model of this vendor."""
        mine = note.batch.fingerprint == self.checkout.model.fingerprint
        return mine and note.sent_to(self.checkout.payer.vendor)

    def _is_wanted(self, order: Order) -> bool:
        """Whether it asked the present model only queries that this run wants too."""
        mine = order.batch.fingerprint == self.checkout.model.fingerprint
        return mine and all(query in self.wanted for query in order.queries)

    def _release(self, order: Order) -> None:
        """Leave a batch to the key that sent it, and buy its queries with this one."""
        self.checkout.released.add(order.batch.idempotency_key)
        if order.batch.is_job:
            self.say(
                "This key's account has no such bulk job as was begun with another key before. What it was "
                "to bring is bought."
            )

    def _give_up_job(self, order: Order) -> None:
        assert self.jobs is not None
        lost = self.jobs.lose(order)
        self.say(f"{described(order, lost)} What is not stored is bought again as far as the budget reaches.")

    def _wait_for(self, note: Note) -> None:
        self.say(
            f"Waiting {note.seconds_left:.0f} s: some of what is wanted was sent in another request a moment "
            "ago, and if the vendor answers that only now, it must not be bought again."
        )
        self.pause(note.seconds_left)
