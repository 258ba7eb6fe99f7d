"""`POST /embed`: HTTP on one side, `EmbedService` on the other."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from shared.embeddings import EmbedOptions, EmbedRequest, EmbedResponse, Limits
from shared.encoding import ROWS_MEDIA_TYPE
from vendor_service.accounts.auth import Dependency
from vendor_service.embed.accept import answer_form
from vendor_service.embed.answers import as_json, as_rows
from vendor_service.embed.calls import calling, disconnected, respond
from vendor_service.embed.capacity import Capacity
from vendor_service.embed.reading import read_queries
from vendor_service.embed.service import Call, EmbedService


def embed_router(
    service: EmbedService, capacity: Capacity, model_id: str, limits: Limits, authenticate: Dependency
) -> APIRouter:
    """The route; `model_id` is the served model's, `authenticate` the dependency that names the caller."""
    router = APIRouter(tags=["embeddings"])
    rows = {"schema": {"type": "string", "format": "binary"}}

    @router.post(
        "/embed",
        responses={200: {"model": EmbedResponse, "content": {ROWS_MEDIA_TYPE: rows}}},
        response_class=Response,
        openapi_extra=_request_body(model_id, limits),
    )
    async def embed(request: Request, call: Annotated[Call, Depends(calling(authenticate))]) -> Response:
        """Embed texts and images, mixed. Each one answered is a query and is charged, exactly once."""
        form = answer_form(request.headers.get("accept", "*/*"))
        with capacity.place(call.caller.account_id) as place:
            queries, encoding = await read_queries(request, limits, place)
            render = partial(as_json, encoding=encoding) if form == "json" else partial(as_rows, dtype=form)
            answer, content = await service.embed(call, queries, place, render, lambda: disconnected(request))
        return respond(answer, content)

    return router


def _request_body(model_id: str, limits: Limits) -> dict[str, Any]:
    # The route reads the body itself, to stop at the limit; this tells the OpenAPI document what it reads.
    schema, form = EmbedRequest.model_json_schema(), EmbedOptions.model_json_schema()
    inputs = schema["properties"]["inputs"]
    inputs |= {"items": schema.pop("$defs")["Input"], "minItems": 1, "maxItems": limits.max_inputs}
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
