"""The checkout of one run: the only place that records what happens to a batch."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import BinaryIO, Self, TypedDict, Unpack

from client.cache.cache import EmbeddingCache
from client.cache.notes import Batch, Note, Payer
from client.cache.origins import origin_of
from client.cache.receipts import NOT_PAID, Owed, Paid
from client.errors import AnswerRejected, Bill, EmbeddingsDiffer
from client.purchase.budget import NOTHING, Budget
from client.purchase.lifecycle import ENDS, TRANSITIONS, Event, Record, State
from client.purchase.lock import is_locked
from client.vendors.query import Query, Spending
from client.vendors.tracing import Traces
from client.vendors.vendor import EmbedResult, Vendor
from client.vendors.wire import rejected
from shared.embeddings import ModelCard


@dataclass
class Order:
    """A batch in hand.

    Attributes:
        note: the batch, its prices, and who sends it.
        state: where it is.
        reserved: what is set aside for it in the budget.
        contents: of a request, the bytes of its queries, in order.
        file: of a bulk job, what is sent.
        is_doubtful: whether it was sent before, and the vendor may be answering that only now.
    """

    note: Note
    state: State = State.PLANNED
    reserved: Spending = NOTHING
    contents: Sequence[bytes] = ()
    file: BinaryIO | None = None
    is_doubtful: bool = False

    @classmethod
    def found(cls, note: Note) -> Self:
        """A batch that was noted before."""
        state = State.IN_DOUBT if note.job is None else State.SENT
        return cls(note, state, is_doubtful=note.seconds_left > 0)

    def close(self) -> None:
        """Delete its file, if it has one."""
        if self.file is not None:
            self.file.close()

    @property
    def batch(self) -> Batch:
        """The batch."""
        return self.note.batch

    @property
    def queries(self) -> tuple[Query, ...]:
        """The queries in the order sent."""
        return self.note.batch.queries


class Details(TypedDict, total=False):
    """Details of an event, where it has any."""

    answer: EmbedResult
    part: Batch  # of a bulk job
    bill: Bill
    fault: str
    request_id: str | None
    job: str
    lost: Owed  # of a bulk job


@dataclass(frozen=True)
class Checkout:
    """One model of one vendor, bought by one run. Thread-safe.

    Attributes:
        vendor: who sells.
        cache: where batches are noted, and answers stored.
        model: what is bought, at the prices of requests.
        run_id: who pays.
        budget: of the run.
        released: keys of other runs' notes that no longer hold queries back from this run.
        traces: where the spans of batches go.
    """

    vendor: Vendor
    cache: EmbeddingCache
    model: ModelCard
    run_id: str
    budget: Budget
    released: set[str] = field(default_factory=set)
    traces: Traces | None = None

    def __post_init__(self) -> None:
        self.vendor.pin_keys = partial(self.cache.keys.pin, origin_of(self.vendor.url))

    @property
    def payer(self) -> Payer:
        """The vendor and the key, as notes and receipts name them."""
        return Payer(origin_of(self.vendor.url), self.vendor.key_id)

    def note(self, order: Order, *, again: bool = False) -> set[Query]:
        """Note a batch before it is sent, unless another run has some of it: those queries.

        Args:
            order: the batch.
            again: whether it is bought although the cache has it, to be compared with that.
        """
        held = self.cache.begin(
            order.batch,
            payer=self.payer,
            prices=order.note.prices,
            again=again,
            alive=partial(is_locked, self.cache.path),
            released=self.released if self.vendor.declares.repeats_are_free else None,
        )
        self._move(order, Event.HELD if held else Event.NOTE, NOT_PAID)
        return held

    def apply(self, order: Order, event: Event, **details: Unpack[Details]) -> Spending:
        """Record an event of a batch; returns the amount paid.

        Raises:
            KeyError: it cannot happen to a batch in that state.
            AnswerRejected: an answer differs from what the cache has; its bill is stored instead.
        """
        _, record = TRANSITIONS[order.state, event]
        try:
            paid = self._record(record, order, details)
        except EmbeddingsDiffer as error:
            raise self.reject(
                order, details["answer"], self._difference(error), details.get("part")
            ) from error
        self._move(order, event, paid)
        return paid.amount

    def reject(
        self, order: Order, answer: EmbedResult, fault: str, part: Batch | None = None
    ) -> AnswerRejected:
        """Store the bill of an answer that cannot be taken, and no more; the error to raise."""
        bill = Bill(answer.request_id, order.batch.fingerprint, answer.usage)
        self.apply(order, Event.BILL, bill=bill, fault=fault, part=part or order.batch)
        return rejected(bill, fault)

    def _move(self, order: Order, event: Event, paid: Paid) -> None:
        """Have state and budget follow what was recorded."""
        order.state, _ = TRANSITIONS[order.state, event]
        if order.batch.run_id == self.run_id:
            reserved = order.reserved if order.state in ENDS else order.reserved.at_most(paid.added)
            self.budget.settle(reserved, paid=paid.added)
            order.reserved -= reserved

    def _record(self, record: Record, order: Order, given: Details) -> Paid:
        cache, note, batch = self.cache, order.note, order.batch
        match record:
            case Record.RENEW:
                cache.notes.renew(batch)
            case Record.NAME:
                order.note = cache.name_job(note, given["job"])
            case Record.STORE:
                answer, part = given["answer"], given.get("part", batch)
                return cache.commit(
                    part, answer.vectors, answer.usage, answer.request_id, self.payer,
                    tolerance=self.model.tolerance, proof=answer.proof,
                )  # fmt: skip
            case Record.BILL:
                return cache.reject(given.get("part", batch), given["bill"], given["fault"], self.payer)
            case Record.DISPUTE:
                proof, bill = given["answer"].proof, given["bill"]
                return cache.reject(batch, bill, given["fault"], self.payer, proof=proof, for_good=True)
            case Record.REFUSE:
                cache.abandon(batch, given["request_id"])
            case Record.LOSE | Record.LOSE_TRY:
                lost = given.get("lost") or cache.billed.owed(note, self.model.prices)
                return cache.lose(note, lost, sent_again=record is Record.LOSE_TRY)
            case Record.DROP:
                cache.abandon(batch)
        return NOT_PAID

    def _difference(self, error: EmbeddingsDiffer) -> str:
        return (
            f"at {self.vendor.url} says that it sells {self.model.fingerprint}, of which the cache "
            f"{self.cache.path} has other embeddings: they differ {error}. One of the vendors does not "
            "sell what it says, and they are never mixed. Name another --cache for this one, or delete "
            "what is there with `client cache prune` if that is what is wrong"
        )

    def of_model(self, model: ModelCard) -> Self:
        """The same for another model of the vendor's."""
        return replace(self, model=model)
