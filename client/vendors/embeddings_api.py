"""APIs that turn inputs into vectors, and do nothing else: all but Tuition's own.

Such an API knows no idempotency, keeps to no price and names no fingerprint. The client makes up for that:
what may have been served counts as paid, at the prices of its list or of the user, and a model is recognised
by its answers (`client/purchase/identification.py`). A model that is exchanged in the middle of a run is
noticed only by the name or the dimensions that it answers with.
"""

import base64
import json
import secrets
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import httpx

from client.errors import (
    ClientError,
    InputRefused,
    KeyRefused,
    QuotaExhausted,
    RequestRefused,
    RequestTooLarge,
    UsageError,
    VendorError,
)
from client.vendors import transport
from client.vendors.query import Query, counts_of
from client.vendors.reduction import as_taken, media_type
from client.vendors.transport import NO_HOOKS, Hooks
from client.vendors.vectors import MOST_DIMENSIONS, served, unit_vectors
from client.vendors.vendor import EmbedResult, HttpVendor
from client.vendors.wire import most_bytes
from shared.billing import Quote
from shared.embeddings import Kind, ModelCard, Prices
from shared.kinds import AskedFields, Usage
from shared.kinds import queries as queries_of
from shared.text import visible

# Queries in a request, as the client makes them.
_AT_ONCE = 32
# For so many minutes from the first refusal a request is tried again.
_MINUTES = 3
# After these the request may have been served, and charged, all the same.
_UNSURE = frozenset({408, 500, 502, 504})


class EmbeddingsApi(HttpVendor):
    """One vendor with such an API, and one key. A subclass says how it is asked, and how it answers.

    Attributes:
        path: of the requests, behind the address.
    """

    path: ClassVar[str] = "/embeddings"

    def __init__(
        self,
        url: str,
        api_key: str | None,
        *,
        prices: Prices | None = None,
        **connection: Any,  # noqa: ANN401
    ) -> None:
        """Connect to nothing yet.

        Args:
            url: where it is.
            api_key: the key; `None` for what needs none.
            prices: of a query of each kind, where the list's are not right.
            connection: see `HttpVendor`.

        Raises:
            UsageError: this is no URL, or no key.
        """
        self._prices = prices
        self._is_keyless = api_key is None
        super().__init__(url, api_key, **connection)

    @abstractmethod
    def body(self, model: str, kind: Kind, contents: Sequence[bytes]) -> Mapping[str, Any]:
        """The JSON of a request: texts in UTF-8, or image files, to be embedded by a model."""

    @abstractmethod
    def rows(self, answer: Any, kind: Kind) -> Sequence[list[float] | str]:  # noqa: ANN401 (JSON)
        """The vectors of an answer, in the order of the request, as numbers or base64 of float32.

        Raises:
            LookupError, TypeError, ValueError: it is no such answer.
        """

    def path_of(self, model: str) -> str:  # noqa: ARG002 (few have the model there)
        """The path of requests to a model."""
        return self.path

    def answered_by(self, answer: Any) -> str | None:  # noqa: ANN401, ARG002 (JSON)
        """The name of the model that an answer names; `None` where it names none."""
        return None

    def status(self, response: httpx.Response) -> int:
        """The status of a refusal, as others mean it: 402 where the account may spend no more."""
        return response.status_code

    def only_model(self) -> str:
        """The model for those who name none.

        Raises:
            UsageError: one has to be named.
        """
        if self.declares.default_model is None:
            known = ", ".join(self.declares.models) or "MODEL"
            raise UsageError(f"Name a model: --teacher {self.declares.name}:MODEL, such as {known}.")
        return self.declares.default_model

    def knows_prices(self, model: str | None = None) -> bool:
        """Whether the list or the user has prices of a model, or of the default one."""
        listed = self.declares.listed(model or self.declares.default_model or "")
        return self._prices is not None or listed is not None

    def model(self, name: str | None = None, *, fingerprint: str | None = None) -> ModelCard:  # noqa: ARG002
        """The model of a name, or the only one for sale; the API says no more of it.

        Raises:
            UsageError, VendorError: there are several models and no name.
        """
        chosen = name or self.only_model()
        return ModelCard(
            id=chosen,
            owned_by=self.declares.name,
            dimensions=0,
            fingerprint="",
            tolerance=0.0,
            dtype="unknown",
            image_size=0,
            prices=self._prices or self.declares.listed(chosen) or Prices(image_micros=0, text_micros=0),
            currency=self.declares.currency,
            limits=self.declares.limits,
        )

    def estimate(self, *, model: ModelCard | None = None, batch: bool = False, **counts: int) -> Quote:  # noqa: ARG002
        """The price by list, and how long the API's rate limit makes it take; its quota is not known."""
        if model is None or not self.knows_prices(model.id):
            raise VendorError(f"{self.url} gives no estimates.")
        asked, limit = AskedFields(**counts).counts, self.declares.requests_a_minute
        at_once = min(self.declares.batch_queries or _AT_ONCE, model.limits.max_inputs)
        seconds = 0 if limit is None else -(-queries_of(asked) // at_once) * 60 // limit
        return Quote(
            cost_micros=model.prices.cost_of(asked),
            quota_left=None,
            fits_quota=True,
            fits_money=True,
            seconds_at_rate_limit=seconds,
            currency=self.declares.currency,
        )

    def embed(
        self,
        queries: Sequence[tuple[Query, bytes]],
        *,
        model: ModelCard,
        idempotency_key: str,
        max_cost_micros: int | None = None,  # noqa: ARG002 (nobody here would keep to it)
        hooks: Hooks = NO_HOOKS,
    ) -> EmbedResult:
        """Buy the embeddings of some queries, all of one kind, in one request; see `Vendor.embed`.

        Raises:
            FingerprintChanged, InputRefused, KeyRefused, QuotaExhausted, RequestTooLarge, VendorUnreachable,
            VendorError.
            UsageError: there is no key.
        """
        self._require_key()
        asked = [query for query, _ in queries]
        kind = asked[0].kind
        contents = [content for _, content in queries]
        if kind == "image":
            contents = [as_taken(content, self.declares) for content in contents]
        response = self._http.send(
            "POST",
            self.path_of(model.id),
            json=self.body(model.id, kind, contents),
            # It does no harm, and some gateways in front of such vendors do keep it.
            headers={"idempotency-key": idempotency_key},
            most_bytes=most_bytes(len(queries), model.dimensions or MOST_DIMENSIONS),
            patience=self._patience if model.dimensions else 0.0,  # nothing was bought of it yet
            hooks=hooks,
        )
        vectors = self._read(response, kind, len(asked), model)
        counts = counts_of(asked)
        return EmbedResult(
            dict(zip(asked, vectors, strict=True)),
            {},
            Usage.of(counts, model.prices.cost_of(counts)),
            f"{self.declares.name}-{secrets.token_hex(8)}",
        )

    def _require_key(self) -> None:
        """Refuse to ask the API itself without a key; a server of one's own may need none."""
        declared = self.declares
        if self._is_keyless and declared.key_variable and not declared.needs and self.url == declared.url:
            raise UsageError(
                f"{declared.title} takes a key: set {declared.key_variable}, or give a file with "
                "--api-key-file."
            )

    @property
    def _patience(self) -> float:
        """For how many seconds a request is tried again: a rate limit a minute passes meanwhile."""
        return (1 if self.declares.requests_a_minute is None else _MINUTES) * transport.PATIENCE

    def _read(self, response: httpx.Response, kind: Kind, asked: int, model: ModelCard) -> list[Any]:
        try:
            answer = json.loads(response.content)
            name, rows = self.answered_by(answer), self.rows(answer, kind)
        except (LookupError, TypeError, ValueError, ArithmeticError, RecursionError, AttributeError) as error:
            raise VendorError(
                f"{response.url} does not answer as {self.declares.title} does ({type(error).__name__})."
            ) from error
        if name not in (None, model.id):
            raise served(f"{self.url} answered by {str(name)[:64]!r}, not by {model.id}.")
        return unit_vectors(rows, asked=asked, dimensions=model.dimensions, who=self.url)

    def _error_of(self, response: httpx.Response, url: str) -> ClientError:
        """The status as one of our errors, with the beginning of what the vendor says of it."""
        said = visible(response.text[:300])
        kind, advice = _ERRORS.get(self.status(response), (VendorError, ""))
        if kind is KeyRefused:
            variable = self.declares.key_variable
            advice = f" Give the right key{f' in {variable}, or' if variable else ''} with --api-key-file."
        error = kind(f"{url} answered with status {response.status_code}: {said}{advice}")
        error.unsure = response.status_code in _UNSURE
        return error


def as_base64(content: bytes) -> str:
    """Bytes in base64."""
    return base64.b64encode(content).decode("ascii")


def as_data_uri(content: bytes) -> str:
    """An image file as a data URI."""
    return f"data:{media_type(content)};base64,{as_base64(content)}"


def ordered(rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The embeddings of rows that say which input each is about, in the order of the inputs.

    Raises:
        LookupError, TypeError, ValueError: they are no such rows, or not all of them.
    """
    found = sorted(rows, key=lambda row: int(row["index"]))
    if [row["index"] for row in found] != list(range(len(found))):
        raise ValueError("not a row an input")
    return [row["embedding"] for row in found]


_ERRORS: dict[int, tuple[type[ClientError], str]] = {
    400: (InputRefused, ""),
    401: (KeyRefused, ""),
    402: (QuotaExhausted, " What was bought is kept; the same command continues from here."),
    403: (KeyRefused, ""),
    404: (RequestRefused, " Is the address right, and does it sell this model?"),
    413: (RequestTooLarge, ""),
    422: (InputRefused, ""),
}
