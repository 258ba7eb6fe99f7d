"""A vendor: how it is asked, whatever API it speaks, and what it promises.

Each API is a module in `teachers/` with one subclass, which declares there how its vendors are asked and
what they promise; `registry.connect` finds it by the module's name.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import httpx

from client.errors import ClientError, VendorError
from client.vendors.bulk_api import BulkApi
from client.vendors.query import Query
from client.vendors.signatures import KeyChanges, SignedKeys
from client.vendors.statements import PinnedCard, Proof, SignedHead
from client.vendors.transport import NO_HOOKS, Hooks, HttpTransport
from shared.billing import Quote
from shared.embeddings import ModelCard
from shared.encoding import Vector
from shared.kinds import Usage


@dataclass(frozen=True)
class EmbedResult:
    """The answer to one embed request.

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


class Vendor(ABC):
    """One vendor and one key. Thread-safe; a context manager, which closes the connections.

    Attributes:
        repeats_are_free: whether a request that is sent again under its idempotency key is charged once.
            Where it is not, an answer that is lost counts as paid, and what it held is bought anew.
        states_prices: whether the prices of its models are known; where they are not, everything costs 0.
        states_fingerprints: whether it says which model is sold under a name. Where it does not, the model is
            recognised by its answers to two queries, which are paid for.
        url: where it is.
        key_id: the public half of the key, to be noted in receipts.
        bulk: its bulk jobs; `None` where it runs none.
        pin_keys: remembers the keys that it publishes at a moment, in seconds since 1970, and tells how they
            differ from those of before; `None` where nothing does.
    """

    repeats_are_free: ClassVar[bool]
    states_prices: ClassVar[bool]
    states_fingerprints: ClassVar[bool]
    key_id: str | None = None
    bulk: BulkApi | None = None
    pin_keys: Callable[[SignedKeys | None, float], KeyChanges] | None = None

    def __init__(
        self,
        url: str,
        api_key: str | None,
        *,
        transport: httpx.BaseTransport | None = None,
        timeout: float = 120.0,
        on_wait: Callable[[str], None] = lambda _: None,
        trace_headers: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """Connect to nothing yet.

        Args:
            url: where the vendor is, e.g. http://127.0.0.1:8000.
            api_key: the key; `None` for what needs none.
            transport: replaces the network.
            timeout: seconds to wait for an answer.
            on_wait: told why, now and then, while requests are tried again; and what else a person should
                know of the vendor.
            trace_headers: asked for each request what to send along, such as a `traceparent`.

        Raises:
            UsageError: this is no URL, or no key.
        """
        self._http = HttpTransport(
            url,
            api_key,
            as_error=self._error_of,
            transport=transport,
            timeout=timeout,
            on_wait=on_wait,
            doubt_lasts=self.repeats_are_free,
            trace_headers=trace_headers,
        )
        self.url = self._http.url
        self._say = on_wait
        self._prepare(api_key)

    def _prepare(self, api_key: str | None) -> None:  # noqa: B027 (most have nothing to prepare)
        """Set up what one protocol has beside embeddings; ask nothing yet."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def stop(self) -> None:
        """Make requests that wait to be tried again give up now."""
        self._http.stop()

    @staticmethod
    @abstractmethod
    def _error_of(response: httpx.Response, url: str) -> ClientError:
        """An answer that is no success, as one of the client's errors.

        Its `unsure` says whether the request may have been served, and charged, all the same.
        """

    @abstractmethod
    def model(self, name: str | None = None, *, fingerprint: str | None = None) -> ModelCard:
        """The model of a name; without a name, the one with the `fingerprint` if it is sold, or the default.

        A vendor that states no fingerprints leaves it empty, and the dimensions 0; see
        `client/purchase/identification.py`.
        """

    @abstractmethod
    def embed(
        self,
        queries: Sequence[tuple[Query, bytes]],
        *,
        model: ModelCard,
        idempotency_key: str,
        max_cost_micros: int | None = None,
        hooks: Hooks = NO_HOOKS,
    ) -> EmbedResult:
        """Buy the embeddings of some queries, all of one kind, in one request.

        Args:
            queries: what to embed, with its bytes; its order is part of what `idempotency_key` stands for.
            model: what to embed it with.
            idempotency_key: at most 255 characters; where `repeats_are_free`, it is charged once at most.
            max_cost_micros: the vendor refuses rather than charge more, where it states prices.
            hooks: what to call meanwhile.
        """

    def estimate(
        self,
        *,
        model: ModelCard | None = None,  # noqa: ARG002
        batch: bool = False,  # noqa: ARG002
        **counts: int,  # noqa: ARG002
    ) -> Quote:
        """The price of queries, as a bulk job if `batch`, and whether limits allow it.

        `counts` says how many `images` and `texts` there are; they are of a `model`, or of the default one.

        Raises:
            VendorError: it states no prices.
        """
        raise VendorError(f"{self.url} states no prices.")

    def head(self, *, within: float | None = None) -> SignedHead | None:  # noqa: ARG002
        """The end of the account's ledger, signed; `None` of a vendor that signs none.

        Asked once, and waited for as many seconds as are given.
        """
        return None

    def signed_card(self, name: str, *, within: float | None = None) -> PinnedCard | None:  # noqa: ARG002
        """The signed card of a model; `None` from a vendor that signs none; `within` as in `head`."""
        return None
