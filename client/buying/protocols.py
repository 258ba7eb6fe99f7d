"""What the rest of the client asks of a vendor, whatever it speaks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from client.buying.queries import Query
from shared.billing import Quote
from shared.embeddings import ModelCard, Usage
from shared.encoding import Vector


@dataclass(frozen=True)
class Answer:
    """What one embed request brought.

    Attributes:
        vectors: the embedding of each answered query, float32 of shape (dimensions,).
        refused: the queries that the vendor would not embed, with its reason; they were not charged.
        usage: what was charged.
        request_id: the vendor's name for the request.
    """

    vectors: dict[Query, Vector]
    refused: dict[Query, str]
    usage: Usage
    request_id: str


class Vendor(Protocol):
    """One vendor and one key, safe to use from several threads.

    Attributes:
        url: where it is.
        key_id: the public half of the key, to be noted in receipts.
    """

    url: str
    key_id: str | None

    def embed(
        self,
        queries: Sequence[tuple[Query, bytes]],
        *,
        model: ModelCard,
        idempotency_key: str,
        max_cost_micros: int | None,
        on_push_back: Callable[[], None],
    ) -> Answer:
        """Buy the embeddings of some queries in one request; see `VendorClient.embed`."""

    def estimate(self, *, images: int = 0, texts: int = 0) -> Quote:
        """What so many queries would cost, and whether limits allow them; see `VendorClient.estimate`."""

    def stop(self) -> None:
        """Make requests that wait to be tried again give up now."""
