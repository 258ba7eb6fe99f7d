"""`POST /embed`: HTTP on one side, `EmbedService` on the other."""

from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from shared.embeddings import EmbedOptions, EmbedRequest, EmbedResponse
from shared.encoding import ROWS_MEDIA_TYPE
from shared.serving.body import disconnected, until_sent
from shared.serving.capacity import Capacity
from vendor_service.accounts.authentication import Authentication
from vendor_service.api.accept import answer_form
from vendor_service.api.calls import call_description, call_of, respond
from vendor_service.api.reading import QueryReader
from vendor_service.embed.results import as_json, as_rows, largest_bytes
from vendor_service.embed.service import EmbedService
from vendor_service.encoder.encoder import ModelFacts


def embed_router(
    service: EmbedService,
    capacity: Capacity,
    model: ModelFacts,
    reader: QueryReader,
    authentication: Authentication,
) -> APIRouter:
    """The route; `model` is the one that is served."""
    router = APIRouter(tags=["embeddings"])
    rows = {"schema": {"type": "string", "format": "binary"}}

    @router.post(
        "/embed",
        responses={200: {"model": EmbedResponse, "content": {ROWS_MEDIA_TYPE: rows}}},
        response_class=Response,
        openapi_extra=call_description() | _request_body(model.id, reader.limits.max_inputs),
    )
    async def embed(request: Request) -> Response:
        """Embed texts and images, mixed. Each one answered is a query and is charged, exactly once."""
        call = await call_of(request, authentication)
        form = answer_form(request.headers.get("accept", "*/*"))
        reservation = until_sent(request).enter_context(capacity.reserve(call.caller.account_id))
        queries, encoding = await reader.read_queries(request, reservation)
        reservation.take_bytes(largest_bytes(len(queries.items), model.dimensions))
        render = partial(as_json, encoding=encoding) if form == "json" else partial(as_rows, dtype=form)
        result, content = await service.embed(
            call, queries, reservation, render, lambda: disconnected(request)
        )
        reservation.keep_bytes(len(content.body))
        return respond(result, content)

    return router


def _request_body(model_id: str, max_inputs: int) -> dict[str, Any]:
    # The route reads the body itself, to stop at the limit; this tells the OpenAPI document what it reads.
    schema, form = EmbedRequest.model_json_schema(), EmbedOptions.model_json_schema()
    inputs = schema["properties"]["inputs"]
    inputs |= {"items": schema.pop("$defs")["Input"], "minItems": 1, "maxItems": max_inputs}
    for each in (schema, form):
        each["properties"]["model"] = {"const": model_id}
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
