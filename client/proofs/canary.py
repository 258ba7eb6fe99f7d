"""The canary: known inputs, asked again, show whether a fingerprint still stands for the model that it did.

A vendor that sells another model under the same fingerprint contradicts itself: its signed receipts of the
same input, or its signed cards, name different answers. Anybody who sees both can check that.
"""

import random
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from client.cache.cache import EmbeddingCache
from client.errors import Bill, ClientError, RequestTooLarge, SpendingStopped, UsageError, VendorError
from client.proofs.swap import Contradiction, SignedAnswer, SwapEvidence
from client.purchase.budget import Budget
from client.purchase.checkout import Checkout, Order
from client.purchase.lifecycle import Event
from client.purchase.queue import BuyingQueue
from client.purchase.requests import Requests
from client.purchase.result import Tally
from client.vendors.query import Query
from client.vendors.statements import PinnedCard, Proof
from client.vendors.teachers.tuition import VendorClient
from client.vendors.transport import NO_HOOKS
from client.vendors.vendor import EmbedResult
from shared.embeddings import ModelCard
from shared.encoding import Vector
from shared.receipts import PublicKey, vector_digest

_dice = random.SystemRandom()


@dataclass(frozen=True)
class Difference:
    """A known input to which the vendor answered something else this time.

    Attributes:
        name: the text, or the image's path; or a canary of the vendor's own card.
        difference: the largest of one component.
        proven: whether the vendor has signed both answers.
    """

    name: str
    difference: float
    proven: bool


@dataclass
class CanaryResult:
    """The findings of the canary.

    Attributes:
        fingerprint: the model that the vendor says it sells.
        asked: inputs that were asked again, and paid for.
        own: those of them that were bought before; the others are of the vendor's card.
        cost_micros: what they cost.
        differences: those that were answered otherwise than before.
        contradiction: how the vendor's signed cards of this fingerprint differ, if they do.
        bought: embeddings in the cache that were sold under the fingerprint.
        evidence: for others to check: both signed statements and both answers; `None` where nothing differs.
        stopped: the error at which the asking ended early, once a swap was found; `None` if there was none.
    """

    fingerprint: str
    asked: int = 0
    own: int = 0
    cost_micros: int = 0
    differences: list[Difference] = field(default_factory=list)
    contradiction: str | None = None
    bought: int = 0
    evidence: SwapEvidence | None = None
    stopped: str | None = None

    @property
    def swapped(self) -> bool:
        """Whether another model is sold under the fingerprint than before."""
        return bool(self.differences) or self.contradiction is not None

    def to_json(self) -> dict[str, Any]:
        """The result for `json.dumps`."""
        found = {name: value for name, value in vars(self).items() if name != "evidence"}
        return found | {
            "differences": [asdict(each) for each in self.differences],
            "evidence": None if self.evidence is None else self.evidence.model_dump(mode="json"),
        }


class Canary:
    """Known inputs, of one model of one vendor."""

    def __init__(self, vendor: VendorClient, cache: EmbeddingCache, model: ModelCard) -> None:
        """Ask the vendor for its signed card, which is free, and nothing else yet."""
        self._vendor = vendor
        self._cache = cache
        self._model = model
        # A run of its own each time: an answer that was paid for before might only be repeated.
        self._checkout = Checkout(vendor, cache, model, f"canary-{secrets.token_hex(8)}", Budget(None))
        self._requests = Requests(self._checkout, Tally(lambda _: None), lambda: None)
        self._card = vendor.signed_card(model.id)
        self._result = CanaryResult(model.fingerprint)
        self._is_proven = False
        if self._card is not None:
            self._result.contradiction = self._contradiction(self._card)
        self._cards = cache.cards.of(model.fingerprint)
        self._pairs: list[Contradiction] = []
        self._keys: dict[str, PublicKey] = {}

    @property
    def is_contradicted(self) -> bool:
        """Whether the vendor's signed card contradicts an earlier one, or what the vendor says unsigned."""
        return self._result.contradiction is not None

    @property
    def is_proven(self) -> bool:
        """Whether the vendor's signed cards contradict each other: then nothing need be asked."""
        return self._is_proven

    def choose(self, inputs: Sequence[Query], most: int) -> list[Query]:
        """The inputs to ask again, up to a limit: first those bought before, then those of the card."""
        known = sorted(self._cache.known(self._model.fingerprint, inputs), key=lambda query: query.digest)
        chosen = _dice.sample(known, min(most, len(known)))
        promised = [query for query in self._promised() if query not in known]
        return [*chosen, *_dice.sample(promised, min(most - len(chosen), len(promised)))]

    def ask(self, chosen: Sequence[Query]) -> CanaryResult:
        """Buy these once more, and compare the answers; an error ends this early once a swap is found.

        Raises:
            ClientError: what buying raises before anything is found.
        """
        receipts = self._receipts_of(chosen)
        before = self._cache.lookup(self._model.fingerprint, chosen)
        for query, vector in self._promised().items():
            if query not in before or (query.digest, vector_digest(before[query])) not in receipts:
                before[query] = vector  # rather what the vendor has signed
        bought = self._cache.known(self._model.fingerprint, chosen)
        queue = BuyingQueue(self._checkout, self._model.prices, _cannot_ask, lambda _: set())
        queue.line_up(sorted(chosen, key=lambda query: query.kind == "image"))
        try:
            while (order := self._requests.pack(queue)) is not None:
                self._checkout.note(order, again=True)
                try:
                    self._ask_some(order, before, receipts)
                except RequestTooLarge:
                    if len(order.queries) == 1:
                        raise
                    queue.put_ready(self._requests.halves(order))
                else:
                    self._result.own += sum(query in bought for query in order.queries)
        except ClientError as error:
            if not self._result.swapped:
                raise
            self._result.stopped = str(error)
        contents = self._cache.holdings()
        self._result.bought = sum(
            each.embeddings for each in contents if each.fingerprint == self._model.fingerprint
        )
        if self._result.swapped:
            self._result.evidence = self._evidence()
        return self._result

    def _promised(self) -> dict[Query, Vector]:
        """The inputs of the oldest card that was pinned, with what it promises."""
        return self._cards[0].canaries() if self._cards else {}

    def _contradiction(self, card: PinnedCard) -> str | None:
        claims, model = card.claims, self._model
        for name, signed, said in (
            ("fingerprint", claims.model_fingerprint, model.fingerprint),
            ("dimensions", claims.dimensions, model.dimensions),
            ("tolerance", claims.tolerance, model.tolerance),
        ):
            if signed != said:
                return f"{name} {signed!r} in the signed card and {said!r} in /v1/models"
        contradiction = self._cache.cards.pin(card)
        self._is_proven = contradiction is not None
        return contradiction

    def _receipts_of(self, queries: Sequence[Query]) -> dict[tuple[str, str], Proof]:
        """Signed receipts of these queries, by what was asked and what was answered."""
        wanted = {query.digest for query in queries}
        found: dict[tuple[str, str], Proof] = {}
        for receipt, proof in self._cache.billed.signed():
            if proof is not None and receipt.fingerprint == self._model.fingerprint:
                found |= {(sold.asked, sold.answered): proof for sold in proof.sold if sold.asked in wanted}
        return found

    def _ask_some(
        self, order: Order, before: Mapping[Query, Vector], receipts: Mapping[tuple[str, str], Proof]
    ) -> None:
        try:
            answer = self._requests.send(order, order.reserved.cost_micros, NO_HOOKS)
        except (VendorError, SpendingStopped) as error:
            if not error.unsure:  # nothing of it was served
                self._checkout.apply(order, Event.REFUSE, request_id=error.request_id)
            raise
        self._result.asked += answer.usage.billed_queries
        self._result.cost_micros += answer.usage.cost_micros
        differing = list(self._differing(answer, before, receipts))
        if not differing:
            self._checkout.apply(order, Event.ANSWER, answer=answer)
            return
        self._result.differences += differing
        bill = Bill(answer.request_id, self._model.fingerprint, answer.usage)
        fault = f"answered otherwise than before about {len(differing)} of {len(order.queries)} known inputs"
        self._checkout.apply(order, Event.DISPUTE, answer=answer, bill=bill, fault=fault)

    def _differing(
        self, answer: EmbedResult, before: Mapping[Query, Vector], receipts: Mapping[tuple[str, str], Proof]
    ) -> Iterator[Difference]:
        # A cache of float16 holds what was rounded by at most half of its last place.
        rounded = 0.0 if self._cache.dtype.itemsize == 4 else 2.0**-11
        for query, vector in answer.vectors.items():
            former = before.get(query)
            if former is None:
                continue
            difference = float(np.abs(vector - former).max())
            if difference <= self._model.tolerance + rounded:
                continue
            receipt = receipts.get((query.digest, vector_digest(former)))
            proven = answer.proof is not None and (receipt is not None or query in self._promised())
            if proven:
                self._add_pair(query, SignedAnswer.of(former, receipt), SignedAnswer.of(vector, answer.proof))
                self._keys |= {proof.key.kid: proof.key for proof in (receipt, answer.proof) if proof}
            yield Difference(query.name, difference, proven)

    def _add_pair(self, query: Query, before: SignedAnswer, after: SignedAnswer) -> None:
        self._pairs.append(Contradiction(kind=query.kind, asked=query.digest, before=before, after=after))

    def _evidence(self) -> SwapEvidence:
        cards = [*self._cards, *([] if self._card is None else [self._card])]
        self._keys |= {card.key.kid: card.key for card in cards}
        return SwapEvidence(
            model_fingerprint=self._model.fingerprint,
            tolerance=self._model.tolerance,
            keys=list(self._keys.values()),
            cards=list(dict.fromkeys(card.token for card in cards)),
            pairs=self._pairs,
        )


def _cannot_ask(query: Query, why: str) -> None:
    raise UsageError(f"{query.name} cannot be asked about again: {why}.")
