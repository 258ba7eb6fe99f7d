"""How embeddings are asked for and answered: as JSON in Tuition's own dialect or OpenAI's, or as raw rows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast
from pydantic_core import to_json

from shared.embeddings import Embedding, EmbedOptions, EmbedRequest, EmbedResponse, Encoding, InputError
from shared.encoding import ROWS_MEDIA_TYPE, RowDtype, to_base64, to_rows
from shared.errors import APIError, ErrorCode
from shared.http.body import parse
from shared.http.json_body import LongStrings, ReadJson
from shared.kinds import Input, Kind, count_fields
from vendor_service.embed.request import EmbedResult, Queries
from vendor_service.encoder.queries import ImageQuery, Query, TextQuery, Vectors

_BYTES_A_NUMBER = 24  # a float32 in JSON, as in -1.1754943508222875e-38 and a comma
_BYTES_A_ROW = 256  # index, kind, names; or a reason why there is no vector


@dataclass(frozen=True)
class Content:
    """A response body; `headers` are those of its form, beside those that every response has.

    `dtype` is that of the numbers in it.
    """

    body: bytes
    media_type: str
    headers: dict[str, str] = field(default_factory=dict)
    dtype: RowDtype = "float32"

    def with_headers(self, headers: Mapping[str, str]) -> Self:
        """The same with these headers as well."""
        return replace(self, headers=self.headers | dict(headers))


Render = Callable[[EmbedResult], Content]


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


def largest_bytes(rows: int, dimensions: int) -> int:
    """The most bytes that a response of `rows` may have, in any form."""
    return rows * (dimensions * _BYTES_A_NUMBER + _BYTES_A_ROW)


def as_json(result: EmbedResult, encoding: Encoding) -> Content:
    """An `EmbedResponse`."""
    # Constructed, not validated: these are our own numbers, and there are many of them.
    response = EmbedResponse.model_construct(
        id=result.id,
        model=result.model.id,
        model_fingerprint=result.model.fingerprint,
        dimensions=result.model.dimensions,
        data=[
            Embedding.model_construct(index=index, kind=result.queries.items[index].kind, embedding=value)
            for index, value in zip(result.answered, as_values(result.rows, encoding), strict=True)
        ],
        errors=[
            InputError(index=index, code=each.code, message=each.message)
            for index, each in result.refused.items()
        ],
        usage=result.usage,
        replayed=result.replayed,
    )
    return Content(to_json(response), "application/json")


def as_rows(result: EmbedResult, dtype: RowDtype) -> Content:
    """The rows alone; what else the JSON says is in headers."""
    usage = result.usage
    headers = {
        "x-embedding-id": result.id,
        "x-embedding-shape": f"{len(result.rows)},{result.model.dimensions}",
        "x-embedding-dtype": dtype,
        "x-billed-queries": str(usage.billed_queries),
    }
    headers |= {f"x-billed-{name}": str(number) for name, number in count_fields(usage.counts).items()}
    if result.refused:
        headers["x-skipped-inputs"] = _skipped(result.refused)
    return Content(to_rows(result.rows, dtype), ROWS_MEDIA_TYPE, headers, dtype)


def as_values(rows: Vectors, encoding: Encoding) -> list[list[float]] | list[str]:
    """Each row as JSON has it: numbers, or base64 of little-endian float32."""
    if encoding == "base64":
        return [to_base64(row) for row in rows]
    values: list[list[float]] = rows.tolist()
    return values


def _skipped(refused: dict[int, APIError]) -> str:
    # Grouped by code, so that hundreds of them still fit where proxies expect headers to fit.
    by_code: dict[str, list[str]] = {}
    for index, error in refused.items():
        by_code.setdefault(error.code, []).append(str(index))
    return "; ".join(f"{code}={','.join(indices)}" for code, indices in by_code.items())


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
