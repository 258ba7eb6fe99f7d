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
    """Asks a vendor after requests in doubt and bulk jobs, free of charge, for one purchase.

    Attributes:
        checkout: what is bought, by which run.
        requests: the run's requests.
        jobs: its bulk jobs, where the vendor runs any.
        by_jobs: whether the run buys by them.
        tally: where answers are counted.
        pause: waits for so many seconds.
        say: told what a person should know.
        wanted: the queries of the purchase, whose files are where they are now.
        undecided: queries that may have been paid for, and why the vendor does not tell: to buy them might
            pay twice.
    """

    checkout: Checkout
    requests: Requests
    jobs: Jobs | None
    by_jobs: bool
    tally: Tally
    pause: Callable[[float], object]
    say: Callable[[str], None]
    wanted: Mapping[Query, Query] = field(default_factory=dict)
    undecided: dict[Query, ClientError] = field(default_factory=dict)
    _elsewhere: dict[str, Requests] = field(default_factory=dict)  # those of other models, by fingerprint
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def recover(self, missing: Collection[Query], *, only_past: bool = False) -> None:
        """Store what killed runs were charged for some of what is missing. Thread-safe.

        It would otherwise be paid for a second time, by this run. The receipts are those of the runs that
        paid. What the vendor has not charged is free once it cannot be answering it any more.

        Args:
            missing: what the cache lacks.
            only_past: whether to leave alone what the vendor may still be answering.

        Raises:
            KeyRefused, VendorError: the vendor does not answer, or answered what cannot be taken.
            CacheError: the cache cannot be written.
        """
        if not (missing and self.checkout.vendor.repeats_are_free):
            return
        cache = self.checkout.cache
        with self._lock:
            notes = self._requests_of_others(None, missing, only_past=only_past)
            for run_id in dict.fromkeys(note.batch.run_id for note in notes):
                with suppress(RunBusy), notes_lock(cache.path, run_id):  # who is busy is not dead
                    for note in self._requests_of_others(run_id, missing, only_past=only_past):
                        self._recover(Order.found(note), missing)

    def _requests_of_others(
        self, run_id: str | None, missing: Collection[Query], *, only_past: bool
    ) -> list[Note]:
        """Requests of another run, or any, that this vendor was sent and that ask what is missing here."""
        return [
            note
            for note in self.checkout.cache.notes.of_run(run_id)
            if not note.batch.is_job
            and note.batch.run_id != self.checkout.run_id
            and self._is_here(note)
            and note.batch.idempotency_key not in self.checkout.released
            and any(query in missing and query not in self.undecided for query in note.batch.queries)
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
        """Fetch what a request of this run was charged for; whether it was not charged.

        What nobody can tell of stays set aside.
        """
        if not (order.note.sent_to(self.checkout.payer.vendor) or self._is_wanted(order)):
            return False  # what it asked is no business of this vendor
        if self.requests.restored(order, self.wanted):
            return self._is_uncharged(order)
        if order.note.is_expired:
            self.give_up(order)
        return False

    def settle_jobs(self, own: Mapping[str, Order]) -> list[Order]:
        """Store what bulk jobs brought; returns those that the vendor has not begun.

        Args:
            own: the noted batches of this run, by their keys.

        Raises:
            JobRunning: one goes on, and is not waited for.
            VendorError: one was cancelled or expired, or did not bring all that it should; what it brought is
                stored. Or the vendor runs no jobs at present.
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
        """The jobs that have some of these, and all `own` ones of this run, for they count in its budget."""
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
        """Drop a batch that was not charged, once the vendor cannot be answering it any more.

        Where some of it is missing, and so about to be bought, that is waited for.
        """
        if order.note.seconds_left:
            if missing.isdisjoint(order.queries):
                return  # nobody waits for it, and it may be charged yet
            self._wait_for(order.note)
            if not self._is_uncharged(order):
                return
        self.checkout.apply(order, Event.UNCHARGED)

    def give_up(self, order: Order) -> None:
        """Count a batch as paid whose answer is not to be had; it is bought anew under another key."""
        if order.batch.is_job:
            self._give_up_job(order)
            return
        counts_already = self.checkout.cache.billed.is_answered(order.note)
        self.checkout.apply(order, Event.GONE)
        if counts_already or order.batch.run_id != self.checkout.run_id:
            return
        self.tally.lose(len(order.queries))
        self.say(
            f"{len(order.queries)} queries may have been paid for before, and the vendor no longer answers "
            "them under the key of that time. They count as paid, and are bought again as far as the budget "
            "reaches."
        )

    def require_told(self) -> None:
        """Raise where the vendor does not tell of something that may have been paid for.

        Raises:
            VendorError: what it is; SpendingStopped: the account may spend nothing.
        """
        if not self.undecided:
            return
        error = next(iter(self.undecided.values()))
        if isinstance(error, SpendingStopped):
            raise error
        raise VendorError(
            f"{len(self.undecided)} queries were sent before and never answered, and the vendor does not "
            f"tell whether it charged them: {error} They are not bought again, lest they are paid for twice; "
            "everything else was. Repeat the command once the vendor tells; what it has not told within "
            "three days counts as paid, and is then bought again within the budget."
        ) from error

    def _is_uncharged(self, order: Order) -> bool:
        """Have the answer of a batch in doubt stored, if it was charged; whether it was not.

        Another account is not told whether it was charged, so its word proves nothing.
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
            else:  # it is spent here, and whoever sent it may be answered yet
                self._release(order)
        except (KeyRefused, JobRunning, NotOffered):
            raise
        except (RequestRefused, SpendingStopped) as error:
            if is_here and note.is_expired:
                self.give_up(order)
                return False
            self.checkout.apply(order, Event.UNTOLD)
            if is_here:
                self.undecided.update(dict.fromkeys(order.queries, error))
        return False

    def _channel_of(self, order: Order) -> Channel:
        """Where to ask after a batch: a request at the model that it was sent to, if that is sold as well."""
        if order.batch.is_job and self.jobs is not None:
            return self.jobs
        checkout, fingerprint = self.checkout, order.batch.fingerprint
        if fingerprint == checkout.model.fingerprint or not checkout.vendor.repeats_are_free:
            return self.requests
        if fingerprint not in self._elsewhere:
            model = identify(checkout.vendor, checkout.cache, fingerprint=fingerprint)
            uncounted = Tally(lambda _: None)  # what was bought of it is none of this purchase
            other = replace(self.requests, checkout=replace(checkout, model=model), tally=uncounted)
            self._elsewhere[fingerprint] = other if model.fingerprint == fingerprint else self.requests
        return self._elsewhere[fingerprint]

    def _is_here(self, note: Note) -> bool:
        """Whether it asked the present model of this vendor."""
        mine = note.batch.fingerprint == self.checkout.model.fingerprint
        return mine and note.sent_to(self.checkout.payer.vendor)

    def _is_wanted(self, order: Order) -> bool:
        """Whether it asked the present model about what this run asks as well."""
        mine = order.batch.fingerprint == self.checkout.model.fingerprint
        return mine and all(query in self.wanted for query in order.queries)

    def _release(self, order: Order) -> None:
        """Leave a batch to the key that it was sent with, and buy what it may bring."""
        self.checkout.released.add(order.batch.idempotency_key)
        if order.batch.is_job:
            self.say(
                "This key's account has no such bulk job as was begun with another key before. What it was "
                "to bring is bought."
            )

    def _give_up_job(self, order: Order) -> None:
        assert self.jobs is not None
        lost = self.jobs.lose(order)
        self.say(f"{described(order, lost)} are bought again as far as the budget reaches.")

    def _wait_for(self, note: Note) -> None:
        self.say(
            f"Waiting {note.seconds_left:.0f} s: some of what is wanted was sent in another request a moment "
            "ago, and if the vendor answers that only now, it must not be bought again."
        )
        self.pause(note.seconds_left)
