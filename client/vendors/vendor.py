"""The interface of a vendor, whatever protocol it speaks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from client.vendors.heads import SignedHead
from client.vendors.model_cards import PinnedCard
from client.vendors.proofs import Proof
from client.vendors.query import Query
from shared.billing import Quote
from shared.embeddings import ModelCard, Usage
from shared.encoding import Vector

ProtocolName = Literal["tuition", "infinity", "jina"]


@dataclass(frozen=True)
class EmbedResult:
    """What one embed request brought.

    Attributes:
        vectors: the embedding of each answered query, float32 of shape (dimensions,).
        refused: the queries that the vendor would not embed, with its reason; they were not charged.
        usage: what was charged.
        request_id: the vendor's name for the request.
        proof: its signed receipt, where the vendor signs.
    """

    vectors: dict[Query, Vector]
    refused: dict[Query, str]
    usage: Usage
    request_id: str
    proof: Proof | None = None


class Vendor(Protocol):
    """One vendor and one key, safe to use from several threads.

    Attributes:
        url: where it is.
        key_id: the public half of the key, to be noted in receipts.
        repeats_are_free: whether a request that is sent again under its idempotency key is charged once.
            Where it is not, an answer that is lost counts as paid, and what it held is bought anew.
        states_prices: whether the prices of its models are known; where they are not, everything costs 0.
    """

    url: str
    key_id: str | None
    repeats_are_free: bool
    states_prices: bool

    def model(self, name: str | None = None, *, fingerprint: str | None = None) -> ModelCard:
        """The model of a name; without one that of the `fingerprint`, if it is sold, or the vendor's choice.

        A vendor that states no fingerprints leaves it empty, and the dimensions 0: see
        `client/purchase/identification.py`.
        """

    def embed(
        self,
        queries: Sequence[tuple[Query, bytes]],
        *,
        model: ModelCard,
        idempotency_key: str,
        max_cost_micros: int | None = None,
        on_try: Callable[[], None] = lambda: None,
        on_push_back: Callable[[], None] = lambda: None,
        on_unsure: Callable[[], None] = lambda: None,
    ) -> EmbedResult:
        """Buy the embeddings of some queries, all of one kind, in one request; see `VendorClient.embed`.

        `on_unsure` is called before a request that may have been charged without an answer is sent again,
        where that is not free; it raises to stop.
        """

    def estimate(self, *, images: int = 0, texts: int = 0, model: ModelCard | None = None) -> Quote:
        """What so many queries of a model would cost, and whether limits allow them.

        See `VendorClient.estimate`.
        """

    def head(self, *, within: float | None = None) -> SignedHead | None:
        """The end of the account's ledger, signed; `None` of a vendor that signs none.

        Asked once, and waited for so many seconds, if they are given.
        """

    def signed_card(self, name: str, *, within: float | None = None) -> PinnedCard | None:
        """What is sold under a name, signed; `None` of a vendor that signs none.

        Asked once, and waited for so many seconds, if they are given.
        """

    def stop(self) -> None:
        """Make requests that wait to be tried again give up now."""
