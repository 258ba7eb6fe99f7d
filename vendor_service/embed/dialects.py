"""The dialects in which embeddings are asked for and answered as JSON: Tuition's own, and OpenAI's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast
from pydantic_core import to_json

from shared.embeddings import EmbedOptions, EmbedRequest, Encoding, Input, Kind
from shared.errors import APIError, ErrorCode
from shared.http.body import parse
from shared.http.json_body import LongStrings, ReadJson
from vendor_service.embed.request import Queries
from vendor_service.embed.results import Content, EmbedResult, Render, as_json, as_values
from vendor_service.encoder.queries import ImageQuery, Query, TextQuery


@dataclass(frozen=True)
class Dialect:
    """How the requests of one endpoint are read and answered.

    Attributes:
        model: the shape of a body.
        items: its field that has the inputs.
        read: makes queries of a body, and tells the encoding of their answer; raises what `parse` does.
        render: makes the body of an answer.
    """

    model: type[BaseModel]
    items: str
    read: Callable[[ReadJson], tuple[Queries, Encoding]]
    render: Callable[[EmbedResult, Encoding], Content]

    def rendering(self, encoding: Encoding) -> Render:
        """Render answers in an encoding."""
        return lambda result: self.render(result, encoding)


def queries_of(items: list[Query], options: EmbedOptions, body_hash: str) -> Queries:
    """The queries of a request in Tuition's own dialect."""
    return Queries(items, body_hash, options.model, skip_bad=options.on_error == "skip")


def _read_embed(read: ReadJson) -> tuple[Queries, Encoding]:
    request = parse(EmbedRequest, read.rest)
    items = [_query(each, read.long) for each in request.inputs]
    return queries_of(items, request, read.body_hash), request.encoding


def _query(given: Input, long: LongStrings) -> Query:
    if given.image is not None:
        return ImageQuery(long.take(given.image))
    assert given.text is not None
    return TextQuery(long.take(given.text))


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


def _read_openai(read: ReadJson) -> tuple[Queries, Encoding]:
    asked = parse(OpenAIRequest, read.rest)
    items = asked.queries(read.long)
    queries = Queries(items, read.body_hash, asked.model, param="input", dimensions=asked.dimensions)
    return queries, asked.encoding_format


def _render_openai(result: EmbedResult, encoding: Encoding) -> Content:
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


EMBED = Dialect(EmbedRequest, "inputs", _read_embed, as_json)
OPENAI = Dialect(OpenAIRequest, "input", _read_openai, _render_openai)
# By the paths of their endpoints.
DIALECTS: Mapping[str, Dialect] = {"/v1/embeddings": OPENAI, "/embed": EMBED}
