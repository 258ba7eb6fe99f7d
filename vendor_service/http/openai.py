"""`POST /v1/embeddings`: OpenAI's shape, so that its SDK and what is built on it can buy here unchanged."""

from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast
from pydantic_core import to_json

from shared.embeddings import Encoding, Input, Kind
from shared.errors import ErrorCode
from shared.http.body import disconnected, until_sent
from shared.http.capacity import Capacity
from shared.http.json_body import LongStrings, ReadJson
from shared.http.parsing import parse
from vendor_service.accounts.authentication import Authentication
from vendor_service.embed.queries import Queries
from vendor_service.embed.results import Content, EmbedResult, as_values
from vendor_service.embed.service import EmbedService
from vendor_service.encoder.encoder import ModelFacts
from vendor_service.encoder.queries import ImageQuery, Query, TextQuery
from vendor_service.errors import APIError
from vendor_service.http.calls import call_description, call_of, model_schema, respond
from vendor_service.http.reading import QueryReader


class BareString(Input):
    """An input that came as a string of its own: a text, or with `modality: image` a data-URI."""


def _item(value: object) -> object:
    if isinstance(value, str):
        return BareString.model_construct(text=value)
    if isinstance(value, int | list):
        raise ValueError("token ids are not accepted; send texts")
    return value


def _list(value: object) -> object:
    return value if isinstance(value, list) else [value]


_Item = Annotated[Input, BeforeValidator(_item, json_schema_input_type=str | Input)]
_Items = Annotated[
    list[_Item], FailFast(), BeforeValidator(_list, json_schema_input_type=str | Input | list[str | Input])
]


class OpenAIRequest(BaseModel):
    """The request of OpenAI's embeddings API.

    Images come as `{"image": ...}` items, as Jina's API has them, or as data-URIs with `modality: image`,
    as infinity has them; an image is the base64 of a file, with or without `data:image/...;base64,` before
    it. What a string is, is never guessed. `dimensions` can only be the model's own; `user` is not kept.
    """

    model_config = ConfigDict(extra="forbid")

    model: str
    input: _Items
    encoding_format: Encoding = "float"
    modality: Kind = "text"
    dimensions: int | None = None
    user: str | None = None

    def queries(self, long: LongStrings) -> list[Query]:
        """The inputs, in order; `long` has the strings of them that were put aside."""
        return [self._query(index, each, long) for index, each in enumerate(self.input)]

    def _query(self, index: int, given: Input, long: LongStrings) -> Query:
        string = given.text if given.image is None else given.image
        assert string is not None
        image = long.take(string)
        if given.image is None and not (isinstance(given, BareString) and self.modality == "image"):
            return TextQuery(image)
        if image.startswith(("http:", "https:")):
            message = "images by URL are not fetched; send the file as a data-URI"
            raise APIError(ErrorCode.INVALID_REQUEST, message, param=f"input.{index}")
        head, is_data_uri, base64 = image.partition(";base64,")
        return ImageQuery(base64 if is_data_uri and head.startswith("data:") else image)


class OpenAIEmbedding(BaseModel):
    """One answered input."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class OpenAIUsage(BaseModel):
    """The bill: a query is what is counted here, so each input is one of OpenAI's tokens."""

    prompt_tokens: int
    total_tokens: int
    billed_queries: int
    cost_micros: int


class OpenAIResponse(BaseModel):
    """The response of OpenAI's embeddings API, and what `POST /embed` tells beyond it."""

    object: Literal["list"] = "list"
    data: list[OpenAIEmbedding]
    model: str
    usage: OpenAIUsage
    id: str
    model_fingerprint: str
    replayed: bool


def openai_router(
    service: EmbedService,
    capacity: Capacity,
    only_model: ModelFacts | None,
    reader: QueryReader,
    authentication: Authentication,
) -> APIRouter:
    """The route; `only_model` is the one that is served, if there is never another."""
    router = APIRouter(prefix="/v1", tags=["embeddings"])

    @router.post(
        "/embeddings",
        responses={200: {"model": OpenAIResponse}},
        response_class=Response,
        openapi_extra=call_description() | _request_body(only_model, reader.max_inputs),
    )
    async def embeddings(request: Request) -> Response:
        """Embed texts or images as OpenAI's API would. Each one answered is a query and is charged, once."""
        call = await call_of(request, authentication)
        reservation = until_sent(request).enter_context(capacity.reserve(call.caller.account_id))
        queries, encoding = await reader.read_json(
            request, reservation, OpenAIRequest, "input", make_openai_queries
        )
        render = partial(render_openai, encoding=encoding)
        result, content = await service.embed(
            call, queries, reservation, render, lambda: disconnected(request)
        )
        reservation.keep_bytes(len(content.body))
        return respond(result, content)

    return router


def make_openai_queries(read: ReadJson) -> tuple[Queries, Encoding]:
    """The queries of a body, and in which encoding their answer is to be; raises what `parse` does."""
    asked = parse(OpenAIRequest, read.rest)
    items = asked.queries(read.long)
    queries = Queries(items, read.body_hash, asked.model, param="input", dimensions=asked.dimensions)
    return queries, asked.encoding_format


def render_openai(result: EmbedResult, encoding: Encoding) -> Content:
    """An `OpenAIResponse`."""
    usage = result.usage
    # Constructed, not validated: these are our own numbers, and there are many of them.
    response = OpenAIResponse.model_construct(
        data=[
            OpenAIEmbedding.model_construct(index=index, embedding=value)
            for index, value in enumerate(as_values(result.rows, encoding))
        ],
        model=result.model.id,
        usage=OpenAIUsage(
            prompt_tokens=usage.billed_queries,
            total_tokens=usage.billed_queries,
            billed_queries=usage.billed_queries,
            cost_micros=usage.cost_micros,
        ),
        id=result.id,
        model_fingerprint=result.model.fingerprint,
        replayed=result.replayed,
    )
    return Content(to_json(response), "application/json")


def _request_body(only_model: ModelFacts | None, max_inputs: int) -> dict[str, Any]:
    # The route reads the body itself, to stop at the limit; this tells the OpenAPI document what it reads.
    schema = OpenAIRequest.model_json_schema(mode="validation")
    definition = schema.pop("$defs")["Input"]
    one = {"anyOf": [{"type": "string"}, definition]}
    many = {"type": "array", "items": one, "minItems": 1, "maxItems": max_inputs}
    schema["properties"] |= {
        "input": {"anyOf": [*one["anyOf"], many]},
        "model": model_schema(only_model),
    }
    if only_model is not None:
        schema["properties"]["dimensions"] = {"const": only_model.dimensions}
    example = {"model": "icon-clip" if only_model is None else only_model.id, "input": ["a photo of a cat"]}
    content = {"schema": schema, "example": example}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}
