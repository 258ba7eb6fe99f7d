"""A vendor: how it is asked, whatever API it speaks, and what it promises.

Each API is a module of `teachers/` with one subclass, whose `declares` says how its vendors are asked and
what they promise; `client.vendors.teacher` finds it by the module's name.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import httpx

from client.errors import ClientError, VendorError
from client.vendors.bulk_api import BulkApi
from client.vendors.declaration import Declaration
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
    """One vendor and one key. Thread-safe; a context manager, which lets go of what it holds.

    Attributes:
        declares: how it is asked, and what it promises.
        url: where it is; of one in this process, a name that no address has.
        key_id: the public half of the key, to be noted in receipts.
        bulk: its bulk jobs; `None` where it runs none.
        pin_keys: remembers the keys that it publishes at a moment, in seconds since 1970, and tells how they
            differ from those of before; `None` where nothing does.
    """

    declares: Declaration
    url: str
    key_id: str | None = None
    bulk: BulkApi | None = None
    pin_keys: Callable[[SignedKeys | None, float], KeyChanges] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:  # noqa: B027 (many hold nothing)
        """Let go of what it holds."""

    def stop(self) -> None:  # noqa: B027 (many never wait)
        """Make requests that wait to be tried again give up now."""

    def knows_prices(self, model: str | None = None) -> bool:  # noqa: ARG002 (some have lists)
        """Whether the prices of a model, or of the default one, are known; if not, everything costs 0."""
        return self.declares.states_prices

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
            idempotency_key: at most 255 characters; where repeats are free, it is charged once at most.
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
            VendorError: it gives no estimates.
        """
        raise VendorError(f"{self.url} gives no estimates.")

    def head(self, *, within: float | None = None) -> SignedHead | None:  # noqa: ARG002
        """The end of the account's ledger, signed; `None` of a vendor that signs none.

        Asked once, and waited for as many seconds as are given.
        """
        return None

    def signed_card(self, name: str, *, within: float | None = None) -> PinnedCard | None:  # noqa: ARG002
        """The signed card of a model; `None` from a vendor that signs none; `within` as in `head`."""
        return None


class HttpVendor(Vendor):
    """A vendor that is asked over HTTP, by httpx."""

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
            doubt_lasts=self.declares.repeats_are_free,
            trace_headers=trace_headers,
            auth=self._auth(api_key),
        )
        self.url = self._http.url
        self._say = on_wait
        self._prepare(api_key)

    def _prepare(self, api_key: str | None) -> None:
        """Set up what one API has beside embeddings; ask nothing yet."""

    def _auth(self, api_key: str | None) -> httpx.Auth | None:  # noqa: ARG002
        """How requests are signed; `None` where the key is sent as it is, or there is none."""
        return None

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def stop(self) -> None:
        """Make requests that wait to be tried again give up now."""
        self._http.stop()

    @abstractmethod
    def _error_of(self, response: httpx.Response, url: str) -> ClientError:
        """An answer that is no success, as one of the client's errors.

        Its `unsure` says whether the request may have been served, and charged, all the same.
        """
