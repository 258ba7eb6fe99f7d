"""The headers of all routes that sell embeddings: those of requests and of responses."""

from typing import Annotated, Any

from fastapi import Request, Response
from pydantic import BaseModel, Field, ValidationError

from shared.http.parsing import invalid
from vendor_service.accounts.authentication import Authentication
from vendor_service.embed.request import Call
from vendor_service.embed.results import Content, EmbedResult
from vendor_service.embed.timing import Timing
from vendor_service.encoder.encoder import ModelFacts
from vendor_service.http.authentication import buyer_of


class RequestHeaders(BaseModel):
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


_HEADERS: tuple[str, ...] = tuple(str(each.alias) for each in RequestHeaders.model_fields.values())
_NO_HEADERS = RequestHeaders.model_validate({})


def call_description() -> dict[str, Any]:
    """What the OpenAPI document says of who may call, and on which terms."""
    properties = RequestHeaders.model_json_schema()["properties"]
    schemas = {
        name: {key: value for key, value in schema.items() if key != "default"}
        for name, schema in properties.items()
    }
    parameters = [
        {"name": name, "in": "header", "required": False, "schema": schema}
        for name, schema in schemas.items()
    ]
    return {"security": [{"HTTPBearer": []}], "parameters": parameters}


def model_schema(only_model: ModelFacts | None) -> dict[str, Any]:
    """What the OpenAPI document says of a field `model`; `only_model` is all that it can be."""
    if only_model is None:
        return {"type": "string", "description": "as listed by /v1/models"}
    return {"const": only_model.id}


async def call_of(request: Request, authentication: Authentication) -> Call:
    """Who calls and on which terms.

    Raises:
        APIError: `invalid_request`, or as of `buyer_of`.
    """
    caller = await buyer_of(request, authentication)
    headers = headers_of(request)
    request.state.timing = Timing()
    return Call(
        request_id=request.state.request_id,
        caller=caller,
        timing=request.state.timing,
        idempotency_key=headers.idempotency_key,
        max_cost_micros=headers.max_cost_micros,
        expect_fingerprint=headers.expect_fingerprint,
    )


def headers_of(request: Request) -> RequestHeaders:
    """What the headers of a request say of its terms.

    Raises:
        APIError: `invalid_request`.
    """
    given = {name: value for name in _HEADERS if (value := request.headers.get(name)) is not None}
    if not given:
        return _NO_HEADERS
    try:
        return RequestHeaders.model_validate(given)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = str(problem["loc"][0])
        raise invalid(f"{name}: {problem['msg']}", name) from error


def respond(result: EmbedResult, content: Content) -> Response:
    """The response, with what its headers tell of the model, of money and of time."""
    headers = {"x-model-fingerprint": result.model.fingerprint, "server-timing": str(result.timing)}
    headers |= _money_headers(result) | content.headers
    return Response(content.body, media_type=content.media_type, headers=headers)


def _money_headers(result: EmbedResult) -> dict[str, str]:
    admitted = result.admitted
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
