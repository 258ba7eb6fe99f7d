"""Try it: two images and a text, embedded and charged like any request, and how similar they are."""

import asyncio
from dataclasses import dataclass
from functools import partial

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from shared.errors import APIError, ErrorCode
from shared.http import multipart
from shared.http.body import BodyReader, media_type, until_sent
from shared.http.capacity import Capacity, Reservation
from shared.http.multipart import Form, FormBody, FormShape, Part
from vendor_service.accounts.callers import Caller
from vendor_service.console.customers.pages import CustomerPages
from vendor_service.console.customers.visitor import SignedInCustomer, payers, require_acting
from vendor_service.console.forms import Fields
from vendor_service.console.site import SignedOut, Site, check_origin
from vendor_service.embed.dialects import as_json
from vendor_service.embed.request import EmbedResult, Queries, Terms
from vendor_service.embed.sales import Sales
from vendor_service.encoder.queries import ImageQuery, Query, TextQuery
from vendor_service.errors import OperatorError
from vendor_service.http.sale import asked_by
from vendor_service.terms import money

_INPUTS = 3
_FIELDS = frozenset({"csrf", "model", "key", "most", "once"})
_AFTER_CHARGE = "From the same page, the same inputs are not charged again. From a new page they are."


@dataclass(frozen=True)
class Pair:
    """Two inputs and the cosine of their vectors."""

    one: str
    other: str
    similarity: float


@dataclass(frozen=True)
class Trial:
    """What came of it: the pairs, the price, and the request's id."""

    pairs: list[Pair]
    cost_micros: int
    request_id: str
    milliseconds: float


class TryIt:
    """The form's other end."""

    def __init__(
        self,
        site: Site[SignedInCustomer],
        pages: CustomerPages,
        sales: Sales,
        capacity: Capacity,
        max_request_bytes: int,
        max_text_characters: int,
    ) -> None:
        self._site = site
        self._pages = pages
        self._sales = sales
        self._capacity = capacity
        self._bodies = BodyReader(max_request_bytes)
        self._shape = FormShape(_FIELDS, _INPUTS, max_text_characters)

    async def answer(self, request: Request) -> Response:
        """Answer the form with the page of the models and what came of it."""
        who: SignedInCustomer | None = None
        try:
            check_origin(request)
            who = visitor = await self._site.enter(request)
            self._site.limit(visitor, 1)
            # The account is known before anything is read; who pays, by the form.
            held = self._capacity.reserve(visitor.account_id, visitor.view.project_id)
            reservation = until_sent(request).enter_context(held)
            form = await self._form(request, reservation)
            self._site.check_form(request, visitor, form.fields.get("csrf", ""))
            caller = await self._site.threads.read(visitor, partial(self._caller, visitor, form))
            trial = await self._embed(request, caller, form, reservation)
            return await self._site.threads.read(visitor, partial(self._page, request, visitor, trial))
        except SignedOut:
            return self._site.answers.to_sign_in(request)
        except (APIError, OperatorError) as error:
            return await asyncio.to_thread(self._site.answers.failed, request, error, who, "/models")

    async def _form(self, request: Request, reservation: Reservation) -> Form:
        media_type(request, multipart.MEDIA_TYPE)
        body = FormBody(request.headers["content-type"], self._shape)
        return await self._bodies.read(request, reservation, body, lambda form: form)

    def _caller(self, who: SignedInCustomer, form: Form) -> Caller:
        """The key that pays, as a caller."""
        if who.key is None or form.fields.get("key") != who.key.id:
            require_acting(who)
        with self._site.database.read() as session:
            found = payers(session, who, self._site.clock(), form.fields.get("key", ""))
        if not found:
            message = "choose a key of this account that may embed, and has not ended"
            raise APIError(ErrorCode.INSUFFICIENT_SCOPE, message, param="key")
        (key,) = found
        return Caller(who.account_id, key.id, who.account, key, key.secret_hash)

    async def _embed(self, request: Request, caller: Caller, form: Form, reservation: Reservation) -> Trial:
        items: list[Query] = [
            TextQuery(part.content) if isinstance(part.content, str) else ImageQuery(part.content)
            for part in form.items
            if part.content
        ]
        if len(items) < 2:
            message = "choose two images, or an image and a text: similarity takes two"
            raise APIError(ErrorCode.EMPTY_INPUT, message)
        if caller.account.status != "active":
            raise APIError(ErrorCode.ACCOUNT_SUSPENDED, "this account is suspended; ask the vendor why")
        fields = Fields(tuple(form.fields.items()))
        fields.required("once")
        # The hash is of `once` too, so the same inputs from the same page are charged once.
        terms = Terms(f"console {form.body_hash}", fields.number("most"))
        queries = Queries(items, form.body_hash, form.fields.get("model") or None)
        asked = asked_by(request, caller, queries, reservation, terms)
        loop = asyncio.get_running_loop()
        began = loop.time()
        result, content = await self._sales.sell(asked, lambda result: as_json(result, "base64"))
        reservation.keep_bytes(len(content.body))
        names = _names([part for part in form.items if part.content])
        took = 1000 * (loop.time() - began)
        return Trial(_pairs(result, names), result.usage.cost_micros, result.id, took)

    def _page(self, request: Request, who: SignedInCustomer, trial: Trial) -> Response:
        try:
            with self._site.database.read() as session:
                asked = self._site.asked(request, who, Fields())
                values = dict(self._pages.models_page(asked, session)) | {"result": trial}
        except (APIError, OperatorError) as error:  # it was charged, whatever the database does by now
            failed = APIError(error.code, _charged(request, trial))
            return self._site.answers.failed(request, failed, who, "/models", _AFTER_CHARGE)
        return self._site.answers.shown(request, "customers/models.html", "Models", values, who)


def _charged(request: Request, trial: Trial) -> str:
    cost = f"{money(trial.cost_micros)} {request.state.currency or 'units'}"
    return (
        f"this was charged ({cost}, request {trial.request_id}), but what came of it cannot be shown now: "
        "look at the ledger"
    )


def _names(parts: list[Part]) -> list[str]:
    """What the parts are called: a file's name, or the text itself."""
    return [
        f"“{part.content[:60]}”" if isinstance(part.content, str) else part.name or "image" for part in parts
    ]


def _pairs(result: EmbedResult, names: list[str]) -> list[Pair]:
    rows = result.rows.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = rows @ rows.T
    return [
        Pair(names[one], names[other], float(cosines[one, other]))
        for one in range(len(rows))
        for other in range(one + 1, len(rows))
    ]
