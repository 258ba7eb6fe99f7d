"""`POST /embed`: HTTP on one side, `EmbedService` on the other."""

from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from shared.embeddings import EmbedOptions, EmbedRequest, EmbedResponse
from shared.encoding import ROWS_MEDIA_TYPE
from shared.http.body import disconnected, until_sent
from shared.http.capacity import Capacity
from vendor_service.accounts.authentication import Authentication
from vendor_service.embed.results import as_json, as_rows
from vendor_service.embed.service import EmbedService
from vendor_service.encoder.encoder import ModelFacts
from vendor_service.http.accept import answer_form
from vendor_service.http.calls import call_description, call_of, model_schema, respond
from vendor_service.http.reading import QueryReader


def embed_router(
    service: EmbedService,
    capacity: Capacity,
    only_model: ModelFacts | None,
    reader: QueryReader,
    authentication: Authentication,
) -> APIRouter:
    """The route; `only_model` is the one that is served, if there is never another."""
    router = APIRouter(tags=["embeddings"])
    rows = {"schema": {"type": "string", "format": "binary"}}

    @router.post(
        "/embed",
        responses={200: {"model": EmbedResponse, "content": {ROWS_MEDIA_TYPE: rows}}},
        response_class=Response,
        openapi_extra=call_description() | _request_body(only_model, reader.max_inputs),
    )
    async def embed(request: Request) -> Response:
        """Embed texts and images, mixed. Each one answered is a query and is charged, exactly once."""
        call = await call_of(request, authentication)
        form = answer_form(request.headers.get("accept", "*/*"))
        reservation = until_sent(request).enter_context(capacity.reserve(call.caller.account_id))
        queries, encoding = await reader.read_queries(request, reservation)
        render = partial(as_json, encoding=encoding) if form == "json" else partial(as_rows, dtype=form)
        result, content = await service.embed(
            call, queries, reservation, render, lambda: disconnected(request)
        )
        reservation.keep_bytes(len(content.body))
        return respond(result, content)

    return router


def _request_body(only_model: ModelFacts | None, max_inputs: int) -> dict[str, Any]:
    # The route reads the body itself, to stop at the limit; this tells the OpenAPI document what it reads.
    schema, form = EmbedRequest.model_json_schema(), EmbedOptions.model_json_schema()
    inputs = schema["properties"]["inputs"]
    inputs |= {"items": schema.pop("$defs")["Input"], "minItems": 1, "maxItems": max_inputs}
    for each in (schema, form):
        each["properties"]["model"] = model_schema(only_model)
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
