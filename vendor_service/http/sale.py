"""`POST /embed` and `POST /v1/embeddings`: HTTP on one side, `Sales` on the other."""

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Annotated, Any, Literal, cast, get_args

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.embeddings import EmbedOptions, EmbedRequest, EmbedResponse, Encoding
from shared.encoding import ROWS_MEDIA_TYPE, RowDtype
from shared.errors import APIError, ErrorCode
from shared.http import multipart
from shared.http.body import JSON, BodyReader, disconnected, media_type, parse, until_sent
from shared.http.capacity import Capacity, Reservation
from shared.http.errors import invalid, refused
from shared.http.json_body import JsonBody, Shape
from shared.http.multipart import Form, FormBody, FormShape
from shared.kinds import Input
from vendor_service.accounts.callers import Caller
from vendor_service.embed.dialects import (
    EMBED,
    OPENAI,
    Content,
    Dialect,
    OpenAIRequest,
    OpenAIResponse,
    Render,
    as_rows,
    queries_of,
)
from vendor_service.embed.request import EmbedResult, Queries, Terms
from vendor_service.embed.request import Request as SaleRequest
from vendor_service.embed.sales import Sales
from vendor_service.encoder.facts import ModelFacts
from vendor_service.encoder.queries import ImageQuery, Query, TextQuery
from vendor_service.http.authentication import Authentication, buyer_of
from vendor_service.money.orders import Admitted

AnswerForm = Literal["json"] | RowDtype

# An `Accept` header is parsed on the event loop, which takes as long as there are separators.
_MOST_CHARACTERS = 1024
_MOST_SEPARATORS = 32
_JSON_RANGES = ("application/json", "application/*", "*/*")


class QueryReader:
    """Reads the bodies of all requests for embeddings, within what the vendor takes for any model."""

    def __init__(self, max_inputs: int, max_request_bytes: int, max_text_characters: int) -> None:
        self.max_inputs = max_inputs
        self._longest_text = max_text_characters
        self._form = FormShape(frozenset(EmbedOptions.model_fields), max_inputs, max_text_characters)
        self._bodies = BodyReader(max_request_bytes)

    async def read_json(
        self, request: Request, reservation: Reservation, dialect: Dialect
    ) -> tuple[Queries, Render]:
        """Read a JSON body, and how its answer is rendered.

        Raises:
            APIError: the body is too large, too slow, of another media type, or breaks the contract.
        """
        media_type(request, JSON)
        fields = frozenset(dialect.model.model_fields)
        shape = Shape(fields, frozenset(Input.model_fields), dialect.items, self.max_inputs)
        body = JsonBody(shape, self._longest_text)
        queries, encoding = await self._bodies.read(request, reservation, body, dialect.read)
        return queries, dialect.rendering(encoding)

    async def read_embed(self, request: Request, reservation: Reservation) -> tuple[Queries, Render]:
        """Read the JSON or the form of `POST /embed`; raises as `read_json` does."""
        if media_type(request, JSON, multipart.MEDIA_TYPE) == JSON:
            return await self.read_json(request, reservation, EMBED)
        body = FormBody(request.headers["content-type"], self._form)
        queries, encoding = await self._bodies.read(request, reservation, body, _of_form)
        return queries, EMBED.rendering(encoding)


def _of_form(form: Form) -> tuple[Queries, Encoding]:
    options = parse(EmbedOptions, dict(form.fields))
    items: list[Query] = [
        TextQuery(part.content) if isinstance(part.content, str) else ImageQuery(part.content)
        for part in form.items
    ]
    return queries_of(items, options, form.body_hash), options.encoding


def sale_router(
    sales: Sales,
    capacity: Capacity,
    only_model: ModelFacts | None,
    reader: QueryReader,
    authentication: Authentication,
) -> APIRouter:
    """The routes; `only_model` is the one that is served, if there is never another."""
    router = APIRouter(tags=["embeddings"])
    rows = {"schema": {"type": "string", "format": "binary"}}

    async def answer(
        request: Request,
        read: Callable[[Request, Reservation], Awaitable[tuple[Queries, Render]]],
        form_of: Callable[[str], AnswerForm] = lambda _: "json",
    ) -> Response:
        caller = await buyer_of(request, authentication)
        terms = terms_of(request)
        form = form_of(request.headers.get("accept", "*/*"))
        held = capacity.reserve(caller.account_id, caller.view.project_id)
        reservation = until_sent(request).enter_context(held)
        queries, render = await read(request, reservation)
        asked = asked_by(request, caller, queries, reservation, terms)
        result, content = await sales.sell(asked, render if form == "json" else partial(as_rows, dtype=form))
        reservation.keep_bytes(len(content.body))
        return respond(result, content)

    @router.post(
        "/embed",
        responses={200: {"model": EmbedResponse, "content": {ROWS_MEDIA_TYPE: rows}}},
        response_class=Response,
        openapi_extra=terms_description() | _embed_body(only_model, reader.max_inputs),
    )
    async def embed(request: Request) -> Response:
        """Embed texts and images, mixed. Each one answered is a query and is charged, exactly once."""
        return await answer(request, reader.read_embed, answer_form)

    @router.post(
        "/v1/embeddings",
        responses={200: {"model": OpenAIResponse}},
        response_class=Response,
        openapi_extra=terms_description() | _openai_body(only_model, reader.max_inputs),
    )
    async def embeddings(request: Request) -> Response:
        """Embed texts or images as OpenAI's API would. Each one answered is a query and is charged, once."""
        return await answer(request, partial(reader.read_json, dialect=OPENAI))

    return router


class TermsHeaders(BaseModel):
    """The headers in which a request says on which terms it is to be answered."""

    idempotency_key: Annotated[str, Field(min_length=1, max_length=255)] | None = Field(
        None, alias="idempotency-key", title="Idempotency-Key"
    )
    max_cost_micros: Annotated[int, Field(ge=0)] | None = Field(
        None, alias="x-max-cost-micros", title="X-Max-Cost-Micros"
    )
    expect_fingerprint: Annotated[str, Field(max_length=255)] | None = Field(
        None, alias="x-expect-fingerprint", title="X-Expect-Fingerprint"
    )


_HEADERS: tuple[str, ...] = tuple(str(each.alias) for each in TermsHeaders.model_fields.values())
_NO_TERMS = Terms()


def terms_of(request: Request) -> Terms:
    """The terms that the headers of a request name.

    Raises:
        APIError: `invalid_request`.
    """
    given = {name: value for name in _HEADERS if (value := request.headers.get(name)) is not None}
    if not given:
        return _NO_TERMS
    try:
        return Terms(**TermsHeaders.model_validate(given).model_dump())
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = str(problem["loc"][0])
        raise invalid(f"{name}: {problem['msg']}", name) from error


def asked_by(
    request: Request, caller: Caller, queries: Queries, reservation: Reservation, terms: Terms
) -> SaleRequest:
    """An HTTP request as one for embeddings; traces are told where its time goes."""
    asked = SaleRequest(
        request.state.request_id, caller, queries, reservation, partial(disconnected, request), terms
    )
    request.state.timing = asked.timing
    return asked


def answer_form(accept: str) -> AnswerForm:
    """The form that an `Accept` header prefers among those that can be served.

    Raises:
        APIError: `not_acceptable`.
    """
    if len(accept) > _MOST_CHARACTERS or accept.count(",") + accept.count(";") > _MOST_SEPARATORS:
        message = f"up to {_MOST_CHARACTERS:,} characters, and {_MOST_SEPARATORS} commas and semicolons"
        raise _not_acceptable(f"this header may have {message}")
    best: tuple[float, AnswerForm] | None = None
    for choice in accept.split(","):
        media, options = parse_options_header(choice.strip())
        form = _form(media.decode("latin-1"), options.get(b"dtype", b"float32").decode("latin-1"))
        weight = _weight(options.get(b"q", b"1"))
        if form is not None and weight > 0 and (best is None or weight > best[0]):
            best = weight, form
    if best is None:
        forms = f"application/json or {ROWS_MEDIA_TYPE}, with dtype=float32 or dtype=float16"
        raise _not_acceptable(f"the answer is {forms}")
    return best[1]


def _not_acceptable(message: str) -> APIError:
    return APIError(ErrorCode.NOT_ACCEPTABLE, message, param="accept")


def _form(media: str, dtype: str) -> AnswerForm | None:
    if media in _JSON_RANGES:
        return "json"
    if media == ROWS_MEDIA_TYPE:
        return next((each for each in get_args(RowDtype) if each == dtype), None)
    return None


def _weight(quality: bytes) -> float:
    try:
        return float(quality)
    except ValueError:
        return 0.0


def respond(result: EmbedResult, content: Content) -> Response:
    """The response; its headers tell of the model, of money and of time."""
    headers = {"x-model-fingerprint": result.model.fingerprint, "server-timing": str(result.timing)}
    headers |= _money_headers(result.admitted) | content.headers
    return Response(content.body, media_type=content.media_type, headers=headers)


def _money_headers(admitted: Admitted | None) -> dict[str, str]:
    if admitted is None:
        return {"x-cost-micros": "0"}
    headers = {"x-cost-micros": str(admitted.cost_micros)}
    if admitted.replayed:
        headers["idempotent-replayed"] = "true"
    if admitted.quota_left is not None:
        headers["x-quota-remaining-queries"] = str(admitted.quota_left)
    if admitted.rate is not None:
        headers |= admitted.rate.headers
    return headers


def terms_description() -> dict[str, Any]:
    """The security and the headers of a sale, for the OpenAPI document."""
    parameters = [
        {
            "name": name,
            "in": "header",
            "required": False,
            "schema": {key: value for key, value in schema.items() if key != "default"},
        }
        for name, schema in TermsHeaders.model_json_schema()["properties"].items()
    ]
    return {"security": [{"HTTPBearer": []}], "parameters": parameters}


# The routes read bodies themselves, to stop at the limit; these tell the OpenAPI document what they read.


def _embed_body(only_model: ModelFacts | None, max_inputs: int) -> dict[str, Any]:
    schema, form = EmbedRequest.model_json_schema(), EmbedOptions.model_json_schema()
    inputs = schema["properties"]["inputs"]
    inputs |= {"items": schema.pop("$defs")["Input"], "minItems": 1, "maxItems": max_inputs}
    for each in (schema, form):
        each["properties"]["model"] = _model_schema(only_model)
    form["properties"] |= {
        "image": {"type": "array", "items": {"type": "string", "format": "binary"}},
        "text": {"type": "array", "items": {"type": "string"}},
    }
    example = {"inputs": [{"text": "a photo of a cat"}]}
    content = {
        "application/json": {"schema": schema, "example": example},
        "multipart/form-data": {"schema": form},
    }
    return {"requestBody": {"required": True, "content": content}}


def _openai_body(only_model: ModelFacts | None, max_inputs: int) -> dict[str, Any]:
    schema = OpenAIRequest.model_json_schema(mode="validation")
    definition = schema.pop("$defs")["Input"]
    one = {"anyOf": [{"type": "string"}, definition]}
    many = {"type": "array", "items": one, "minItems": 1, "maxItems": max_inputs}
    schema["properties"] |= {
        "input": {"anyOf": [*one["anyOf"], many]},
        "model": _model_schema(only_model),
    }
    if only_model is not None:
        schema["properties"]["dimensions"] = {"const": only_model.dimensions}
    example = {"model": "icon-clip" if only_model is None else only_model.id, "input": ["a photo of a cat"]}
    content = {"schema": schema, "example": example}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def _model_schema(only_model: ModelFacts | None) -> dict[str, Any]:
    if only_model is None:
        return {"type": "string", "description": "as listed by /v1/models"}
    return {"const": only_model.id}


Endpoint = Callable[[Request], Awaitable[Response]]


class DirectRoutes:
    """A layer of the application that answers `POST` on some routes itself, and passes on everything else.

    The endpoints take a request and return its response. The framework has the routes too, for its OpenAPI
    document; to find one, to solve dependencies and to open stacks for them takes it as long as all that the
    vendor does for a text that it knows.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        self._routes = {each.path: each for each in routes if isinstance(each, APIRoute)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI event stream."""
        route = self._routes.get(scope["path"]) if scope["type"] == "http" else None
        if route is None or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        request = Request(scope, receive)
        try:
            response = await cast(Endpoint, route.endpoint)(request)
        except APIError as error:
            response = refused(request, error)
        await response(scope, receive, send)
