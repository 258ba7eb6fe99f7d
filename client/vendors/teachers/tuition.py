"""A Tuition vendor over HTTP: what a customer may ask, and the vendor's errors as the client's."""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from client.errors import (
    ClientError,
    FingerprintChanged,
    IdempotencyKeySpent,
    KeyRefused,
    NotFound,
    NotOffered,
    PriceRaised,
    QuotaExhausted,
    RequestRefused,
    RequestTooLarge,
    UsageError,
    VendorError,
    VendorUnreachable,
)
from client.vendors import transport
from client.vendors.bulk_api import BulkApi
from client.vendors.declaration import Declaration
from client.vendors.query import Query
from client.vendors.signatures import BadSignature, KeyChanges, KeyRing, SignedKeys
from client.vendors.statements import PinnedCard, SignedHead, read_head
from client.vendors.transport import NO_HOOKS, AnswerTooLong, Hooks, parse
from client.vendors.vendor import EmbedResult, HttpVendor
from client.vendors.wire import ACCEPT, check_card, embed_form, most_bytes, read_answer, too_long
from shared.billing import (
    AccountStatus,
    Entry,
    EntryPage,
    EstimateRequest,
    GroupBy,
    Invoice,
    Quote,
    UsageReport,
)
from shared.embeddings import ModelCard, ModelList
from shared.errors import ErrorBody, ErrorCode, ErrorDetail
from shared.keys import KeyInfo, KeyList, NewSecret
from shared.projects import ProjectInfo, ProjectList
from shared.receipts import KEYS_PATH, KeySet, LedgerHead, SignedCard
from shared.text import visible


class VendorClient(HttpVendor):
    """One Tuition vendor and one key. Thread-safe; a context manager, which closes the connections.

    Connection errors and the statuses 408, 409, 429, 500, 502, 503 and 504 are tried again: five times, and a
    purchase for a minute if that is longer, so that a vendor may be restarted meanwhile. Everything else is
    raised at once. Every method may raise VendorUnreachable, KeyRefused and VendorError.
    """

    declares = Declaration(
        name="tuition",
        title="Tuition",
        url=transport.DEFAULT_URL,
        key_variable="TUITION_API_KEY",
        repeats_are_free=True,
        states_prices=True,
        states_fingerprints=True,
        unit_length=True,
    )
    bulk: BulkApi

    def _prepare(self, api_key: str | None) -> None:
        if api_key and not re.fullmatch(r"tk_\w+", api_key, re.ASCII):  # it may be another secret
            raise UsageError(
                f"This is not a key of a Tuition vendor, which begins with tk_. It was not sent.{_KEY}"
            )
        self.key_id = _key_id(api_key)
        self.signing_keys = KeyRing(self._fetch_keys, self.key_id)
        self.bulk = BulkApi(self._http, self.signing_keys)
        self._told_unsigned = False

    def models(self) -> list[ModelCard]:
        """The models for sale, at the prices of the key's account; without a key, at the standard ones."""
        cards = parse(ModelList, self._http.send("GET", "/v1/models")).data
        for card in cards:
            check_card(card, self.url)
        return cards

    def model(self, name: str | None = None, *, fingerprint: str | None = None) -> ModelCard:
        """One model: of that name; without one of that fingerprint, if it is sold; otherwise the default.

        A vendor that names no default has to sell a single one.

        Raises:
            VendorError: there is none of that name, or several without a default and no name.
        """
        cards = self.models()
        chosen = [card for card in cards if name in (None, card.id)]
        if name is None:
            known = [card for card in cards if card.fingerprint == fingerprint]
            chosen = known[:1] or (chosen if len(chosen) == 1 else [card for card in chosen if card.default])
        if len(chosen) != 1:
            sold = ", ".join(visible(card.id) for card in cards)
            raise VendorError(f"{self.url} sells {sold}; name one of them with --teacher tuition:MODEL.")
        self._tell_of_deprecation(chosen[0])
        return chosen[0]

    def _tell_of_deprecation(self, card: ModelCard) -> None:
        if card.deprecated_at is not None:
            until = "" if card.sunset_at is None else f", and sold until {card.sunset_at:%Y-%m-%d}"
            self._say(
                f"The vendor's model {visible(card.id)} is deprecated as of {card.deprecated_at:%Y-%m-%d}"
                f"{until}. See what else it sells with: client models"
            )

    def signed_card(self, name: str, *, within: float | None = None) -> PinnedCard | None:
        """The signed card of a model; `None` from a vendor that signs no cards.

        Args:
            name: the model's.
            within: ask once, and wait this many seconds for the answer.

        Raises:
            VendorError: its signature is not right.
        """
        if not self.signing_keys.signs:
            return None
        try:
            tries = None if within is None else 1
            path = f"/v1/models/{quote(name)}/signed-card"
            answer = parse(SignedCard, self._http.send("GET", path, tries=tries, timeout=within))
        except RequestRefused:
            return None
        with self._signed_rightly():
            card = PinnedCard.read(answer.signed, self.signing_keys.find)
            self.signing_keys.require_possible(card.claims)
            return card

    def account(self) -> AccountStatus:
        """Quota, limits and spending of the key's account."""
        return parse(AccountStatus, self._http.send("GET", "/v1/account"))

    def estimate(self, *, model: ModelCard | None = None, batch: bool = False, **counts: int) -> Quote:
        """The price of queries for the key's account now, and whether its limits allow them; free.

        `counts` says how many `images` and `texts` there are. They are of a `model`, or of the vendor's
        default one; and of a bulk job, if they are a `batch`.
        """
        # A vendor that has never heard of several models has no default one, and prices its only one.
        name = model.id if model is not None and "default" in model.model_fields_set else None
        asked = EstimateRequest(**counts, model=name, batch=batch)
        # One that has never heard of bulk jobs is not to hear of them here.
        content = asked.model_dump(exclude_none=True, exclude=set() if batch else {"batch"})
        return parse(Quote, self._http.send("POST", "/v1/estimate", json=content))

    def usage(
        self, group_by: GroupBy = "day", *, since: datetime | None = None, until: datetime | None = None
    ) -> UsageReport:
        """Usage and bills of the account, from `since` and before `until` (both optional)."""
        limits = {name: moment.isoformat() for name, moment in (("from", since), ("to", until)) if moment}
        return parse(
            UsageReport, self._http.send("GET", "/v1/usage", params={"group_by": group_by, **limits})
        )

    def ledger(self, after: int = 0) -> Iterator[Entry]:
        """The entries of the account's ledger behind a `seq`, oldest first; without it, all."""
        while True:
            params = {"after": after, "limit": 1000}
            page = parse(EntryPage, self._http.send("GET", "/v1/ledger", params=params))
            if not page.data:
                return
            if page.next_after <= after:
                raise VendorError(f"{self.url} gives the same page of its ledger again and again.")
            yield from page.data
            after = page.next_after

    def head(self, *, within: float | None = None) -> SignedHead | None:
        """The end of the account's ledger, as the vendor has signed it; `None` of one that does not sign.

        Asked once and not again: it is a precaution.

        Args:
            within: seconds to wait for the answer.

        Raises:
            VendorError: its signature is not right.
        """
        if not self.signing_keys.signs:
            return None
        answer = parse(LedgerHead, self._http.send("GET", "/v1/ledger/head", tries=1, timeout=within))
        with self._signed_rightly():
            return read_head(answer, self.signing_keys)

    @contextmanager
    def _signed_rightly(self) -> Iterator[None]:
        try:
            yield
        except BadSignature as error:
            raise VendorError(f"{self.url} {error}.") from error

    def invoice(self, month: str) -> Invoice:
        """The invoice of a month, "YYYY-MM" (UTC); it is `final` once the month is over."""
        return parse(Invoice, self._http.send("GET", f"/v1/invoices/{month}"))

    def keys(self) -> list[KeyInfo]:
        """The account's keys, for a key that administers them, the oldest first."""
        found: dict[str, KeyInfo] = {}
        params: dict[str, str] = {}
        while True:
            page = parse(KeyList, self._http.send("GET", "/v1/keys", params=params))
            known = len(found)
            found |= {key.key_id: key for key in page.data}
            if not page.has_more:
                return list(found.values())
            if len(found) == known:
                raise VendorError(f"{self.url} gives the same page of its keys again and again.")
            params = {"after": page.data[-1].key_id}

    def projects(self) -> list[ProjectInfo]:
        """The account's projects beside the default one, as far as the key sees them."""
        found: dict[str, ProjectInfo] = {}
        params: dict[str, str] = {}
        while True:
            page = parse(ProjectList, self._http.send("GET", "/v1/projects", params=params))
            known = len(found)
            found |= {each.project_id: each for each in page.data}
            if not page.has_more:
                return list(found.values())
            if len(found) == known:
                raise VendorError(f"{self.url} gives the same page of its projects again and again.")
            params = {"after": page.data[-1].project_id}

    def rotate_key(self, key_id: str, *, grace_seconds: int = 0) -> NewSecret:
        """Give a key another secret; the present one is good for `grace_seconds` more.

        Asked once and not again: a second rotation would end the secret that the first one gave.
        """
        params = {"grace_seconds": grace_seconds}
        return parse(NewSecret, self._http.send("POST", f"/v1/keys/{key_id}/rotate", params=params, tries=1))

    def revoke_key(self, key_id: str) -> KeyInfo:
        """End a key at once."""
        return parse(KeyInfo, self._http.send("POST", f"/v1/keys/{key_id}/revoke"))

    def embed(
        self,
        queries: Sequence[tuple[Query, bytes]],
        *,
        model: ModelCard,
        idempotency_key: str,
        max_cost_micros: int | None = None,
        hooks: Hooks = NO_HOOKS,
    ) -> EmbedResult:
        """Buy the embeddings of some queries, in one request that is charged once however often it is sent.

        Args:
            queries: what to embed, with its bytes; its order is part of what `idempotency_key` stands for.
            model: what to embed it with; the vendor refuses, free of charge, if its fingerprint has changed.
            idempotency_key: at most 255 characters.
            max_cost_micros: the vendor refuses rather than charge more; what was paid for before is free.
            hooks: what to call meanwhile.

        Raises:
            AnswerRejected, FingerprintChanged, IdempotencyKeySpent, KeyRefused, PriceRaised, QuotaExhausted,
            RequestTooLarge, VendorUnreachable, VendorError.
        """
        self._look_for_keys()
        headers = {"idempotency-key": idempotency_key, "x-expect-fingerprint": model.fingerprint}
        if max_cost_micros is not None:
            headers["x-max-cost-micros"] = str(max_cost_micros)
        response = self._post(queries, model, headers, hooks)
        asked = [query for query, _ in queries]
        try:
            return read_answer(response, asked, model, max_cost_micros, self.signing_keys)
        except ClientError as error:
            error.unsure = True  # whatever is wrong with it, it was answered
            raise

    def _post(
        self, queries: Sequence[tuple[Query, bytes]], model: ModelCard, headers: dict[str, str], hooks: Hooks
    ) -> httpx.Response:
        form = embed_form(queries, model.id)
        try:
            return self._http.send(
                "POST",
                "/embed",
                content=form.body,
                headers={"accept": ACCEPT, "content-type": form.content_type, **headers},
                patience=transport.PATIENCE,
                most_bytes=most_bytes(len(queries), model.dimensions),
                hooks=hooks,
            )
        except AnswerTooLong as error:
            raise too_long(error) from error

    def _look_for_keys(self) -> None:
        """Ask for the keys of receipts before anything is paid, and say once if there are none."""
        try:
            signs = self.signing_keys.signs
        except ClientError as error:
            error.unsure = False  # nothing was asked for
            raise
        if not signs and not self._told_unsigned:
            self._told_unsigned = True
            self._say(
                f"{self.url} does not sign its receipts: what is bought there cannot be proved to others."
            )

    def _fetch_keys(self) -> SignedKeys | None:
        """The keys of its receipts, once they are found to be its own, and to have been so before."""
        asked_at = time.time()
        try:
            answer = parse(KeySet, self._http.send("GET", KEYS_PATH, patience=transport.PATIENCE))
        except RequestRefused:  # it knows no such path
            answer = None
        except VendorUnreachable:
            raise
        except ClientError as error:
            raise VendorError(f"{self.url} does not publish the keys of its receipts: {error}") from error
        with self._signed_rightly():
            keys = SignedKeys.of(answer)
        signed_as = None if keys is None else keys.claims.iss
        if signed_as is not None and not self._http.is_at(signed_as):
            raise VendorError(
                f"{self.url} signs its receipts as {visible(signed_as)}: they would not prove what was "
                "bought here. Ask it at that address with --vendor, if you trust that."
            )
        if self.pin_keys is not None:
            self._compare_with_pins(self.pin_keys(keys, asked_at))
        return keys

    def _compare_with_pins(self, changes: KeyChanges) -> None:
        """Say which keys the vendor disowns.

        Raises:
            VendorError: it hides some that it had published.
        """
        if changes.hidden:
            raise VendorError(
                f"{self.url} hides keys that it has published before, and by which it has signed: "
                f"{', '.join(changes.hidden)}. It could deny what it sold, so nothing is bought there. "
                "`client receipts verify` shows when it published them, and `client receipts export` writes "
                "its signed statements for others. Ask the vendor. To buy all the same, name another --cache."
            )
        for kid in changes.withdrawn:
            self._say(f"{self.url} says that its key {kid} was stolen: what it signed is no longer proof.")

    def _error_of(self, response: httpx.Response, url: str) -> ClientError:
        """The vendor's error body as one of ours; other bodies come from a proxy or from no vendor at all."""
        try:
            detail = ErrorBody.model_validate_json(response.content).error
        except ValidationError:
            if response.status_code == 413:  # a proxy may take less than the vendor behind it does
                return RequestTooLarge(f"{url} accepts no request of this size (status 413, from a proxy).")
            return VendorError(f"{url} answered with status {response.status_code}. Is it a Tuition vendor?")
        retried = response.is_server_error or response.status_code in transport.RETRIED
        kind, advice = _ERRORS.get(detail.code, (VendorError if retried else RequestRefused, ""))
        if detail.code == ErrorCode.NOT_FOUND:
            kind = NotOffered if detail.param is None else NotFound
        error = kind(f"The vendor says: {_clean(detail)}{advice}")
        if detail.code == ErrorCode.RATE_LIMITED:
            error.unsure = False
        error.request_id = detail.request_id[:64]
        return error


def _key_id(api_key: str | None) -> str | None:
    """The public half of a key, `tk_<id>_<secret>`."""
    parts = (api_key or "").split("_")
    return parts[1] if len(parts) == 3 else None


def _clean(detail: ErrorDetail) -> str:
    """The vendor's message without what a terminal would obey."""
    message = visible(detail.message[:500])
    return f"{message} ({detail.code[:64]}, request {detail.request_id[:64]})."


_KEY = " Give the right key in TUITION_API_KEY or with --api-key-file."
_OTHER_KEY = " Give another key in TUITION_API_KEY or with --api-key-file."
_QUOTA = " What was bought is kept. Once the vendor has raised the limit, the same command continues."
_MODEL = (
    " What was bought from the former model is kept, but the two do not mix: start a new run for the new one."
)
_PRICE = " Its price has risen. What was bought is kept; the same command continues at the new price."
_ERRORS: dict[str, tuple[type[ClientError], str]] = {
    ErrorCode.INVALID_API_KEY: (KeyRefused, _KEY),
    ErrorCode.KEY_EXPIRED: (KeyRefused, _OTHER_KEY),
    ErrorCode.KEY_REVOKED: (KeyRefused, _KEY),
    ErrorCode.PROJECT_ARCHIVED: (KeyRefused, _OTHER_KEY),
    ErrorCode.ACCOUNT_SUSPENDED: (KeyRefused, ""),
    ErrorCode.INSUFFICIENT_SCOPE: (KeyRefused, _KEY),
    ErrorCode.QUOTA_EXHAUSTED: (QuotaExhausted, _QUOTA),
    ErrorCode.SPEND_LIMIT_REACHED: (QuotaExhausted, _QUOTA),
    ErrorCode.INSUFFICIENT_CREDIT: (QuotaExhausted, _QUOTA),
    ErrorCode.COVERAGE_LIMIT_REACHED: (QuotaExhausted, _QUOTA),
    ErrorCode.MAX_COST_EXCEEDED: (PriceRaised, _PRICE),
    ErrorCode.FINGERPRINT_MISMATCH: (FingerprintChanged, _MODEL),
    ErrorCode.REQUEST_TOO_LARGE: (RequestTooLarge, ""),
    ErrorCode.IDEMPOTENCY_KEY_EXPIRED: (IdempotencyKeySpent, ""),
    ErrorCode.REPLAYS_EXHAUSTED: (IdempotencyKeySpent, ""),
    ErrorCode.CHARGE_REFUNDED: (IdempotencyKeySpent, ""),
    ErrorCode.IDEMPOTENCY_KEY_REUSED: (IdempotencyKeySpent, ""),
}

TEACHER = VendorClient
