"""One request at one vendor: its bill compared with what was agreed, its answer or its bill stored."""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from client.cache.cache import EmbeddingCache
from client.cache.origins import origin_of
from client.cache.pending import Payer, RequestBatch
from client.errors import Bill, EmbeddingsDiffer, VendorError
from client.purchase.identification import identify
from client.vendors.query import Query, Spending
from client.vendors.tracing import Traces
from client.vendors.transport import Hooks
from client.vendors.vendor import EmbedResult, Vendor
from client.vendors.wire import rejected
from shared.embeddings import ModelCard

# What is sent so soon after it was noted need not be noted once more.
_JUST_NOTED_SECONDS = 1.0


@dataclass(frozen=True)
class Request:
    """A batch with the bytes of its queries.

    Attributes:
        batch: the batch.
        contents: the bytes, in order.
        price: what is set aside for it in the budget.
        agreed_micros: the most that it may cost, whenever it is charged; `None` where that was not noted.
        doubtful: whether it was sent before, and the vendor may be answering that only now.
    """

    batch: RequestBatch
    contents: Sequence[bytes]
    price: Spending
    agreed_micros: int | None
    doubtful: bool = False

    @property
    def asked(self) -> list[tuple[Query, bytes]]:
        """The queries with their bytes, as a vendor takes them."""
        return list(zip(self.batch.queries, self.contents, strict=True))


class Checkout:
    """Where requests for one model are paid. Thread-safe.

    Attributes:
        vendor: who sells.
        cache: where requests are noted, and answers stored.
        model: what is bought, at its prices.
        origin: the vendor, as the cache names it.
        payer: the vendor and the key, as notes and receipts name them.
    """

    def __init__(
        self, vendor: Vendor, cache: EmbeddingCache, model: ModelCard, traces: Traces | None = None
    ) -> None:
        self.vendor = vendor
        self.cache = cache
        self.model = model
        self._traces = traces
        self.origin = origin_of(vendor.url)
        self.payer = Payer(self.origin, vendor.key_id)

    def of_model(self, fingerprint: str) -> "Checkout | None":
        """The same for another model of the vendor's; `None` of one that it does not sell."""
        model = identify(self.vendor, self.cache, fingerprint=fingerprint)
        return (
            Checkout(self.vendor, self.cache, model, self._traces)
            if model.fingerprint == fingerprint
            else None
        )

    def buy(
        self, request: Request, *, on_push_back: Callable[[], None], on_unsure: Callable[[], None]
    ) -> EmbedResult:
        """Send a request that was noted just now, at its price; nothing is stored of the answer yet.

        Raises:
            AnswerRejected: the vendor billed more; the bill is stored.
            ClientError: what `Vendor.embed` raises; a bill that comes with it is stored.
        """
        noted_at = time.time()  # as notes have it, which a computer that sleeps does not stop

        def note_again() -> None:
            if abs(time.time() - noted_at) > _JUST_NOTED_SECONDS:
                self.cache.pending_batches.refresh(request.batch)

        cost = request.price.cost_micros
        answer = self._embed(request, cost, on_push_back, on_unsure, on_try=note_again)
        usage = answer.usage
        agreed = max(
            request.agreed_micros if request.doubtful and request.agreed_micros else 0,
            self.model.prices.cost_micros(images=usage.images, texts=usage.texts),
        )
        self._check(request, answer, agreed)
        return answer

    def fetch_charged(
        self, request: Request, *, on_push_back: Callable[[], None] = lambda: None
    ) -> EmbedResult:
        """Fetch the answer of a request that may have been charged; nothing is stored of it yet.

        It is asked for at a cost of nothing: had the vendor charged it, the answer is free; had it not, the
        vendor refuses.

        Raises:
            PriceRaised: it was not charged.
            AnswerRejected: it was charged at more than was agreed.
            ClientError: what `Vendor.embed` raises; a bill that comes with it is stored.
        """
        answer = self._embed(request, 0, on_push_back, lambda: None)
        if request.agreed_micros is not None:
            self._check(request, answer, request.agreed_micros)
        return answer

    def store(self, batch: RequestBatch, answer: EmbedResult) -> bool:
        """Store an answer and its receipt, and clear the note; False where its receipt was stored before.

        Raises:
            AnswerRejected: it differs from what the cache has; the bill is stored.
        """
        try:
            return self.cache.commit(
                batch,
                answer.vectors,
                answer.usage,
                answer.request_id,
                self.vendor.key_id,
                origin=self.origin,
                tolerance=self.model.tolerance,
                proof=answer.proof,
            )
        except EmbeddingsDiffer as error:
            fault = (
                f"at {self.vendor.url} says that it sells {batch.fingerprint}, of which the cache "
                f"{self.cache.path} has other embeddings: they differ {error}. One of the vendors does not "
                "sell what it says, and they are never mixed. Name another --cache for this one, or delete "
                "what is there with `client cache prune` if that is what is wrong"
            )
            raise self._rejected(batch, answer, fault) from error

    def _embed(
        self,
        request: Request,
        max_cost_micros: int,
        on_push_back: Callable[[], None],
        on_unsure: Callable[[], None],
        on_try: Callable[[], None] = lambda: None,
    ) -> EmbedResult:
        traced = nullcontext() if self._traces is None else self._traces.batch(len(request.contents))
        try:
            with traced:
                return self.vendor.embed(
                    request.asked,
                    model=self.model,
                    idempotency_key=request.batch.idempotency_key,
                    max_cost_micros=max_cost_micros,
                    hooks=Hooks(on_try, on_push_back, on_unsure),
                )
        except VendorError as error:
            if error.bill is not None:
                self.cache.reject(request.batch, error.bill, error.fault or str(error), self.payer)
            raise

    def _check(self, request: Request, answer: EmbedResult, agreed_micros: int) -> None:
        cost = answer.usage.cost_micros
        if cost > agreed_micros:
            fault = f"billed {cost} micros, where at most {agreed_micros} were agreed"
            raise self._rejected(request.batch, answer, fault)

    def _rejected(self, batch: RequestBatch, answer: EmbedResult, fault: str) -> VendorError:
        bill = Bill(answer.request_id, self.model.fingerprint, answer.usage)
        error = rejected(bill, fault)
        self.cache.reject(batch, bill, fault, self.payer)
        return error
