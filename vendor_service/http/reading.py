"""From a request's body to its queries."""

from collections.abc import Callable
from typing import TypeVar

from pydantic import BaseModel
from starlette.requests import Request

from shared.embeddings import EmbedOptions, EmbedRequest, Encoding, Input
from shared.http import multipart
from shared.http.capacity import Reservation
from shared.http.json_body import JsonBody, LongStrings, ReadJson
from shared.http.json_shape import Shape
from shared.http.multipart import Form, FormBody, FormShape, Part
from shared.http.parsing import JSON, media_type, parse
from shared.http.reading import BodyReader
from vendor_service.embed.queries import Queries
from vendor_service.encoder.queries import ImageQuery, Query, TextQuery

Made = TypeVar("Made")


class QueryReader:
    """Reads the bodies of all requests for embeddings, within what the vendor takes for any model."""

    def __init__(self, max_inputs: int, max_request_bytes: int, max_text_characters: int) -> None:
        self.max_inputs = max_inputs
        self._longest_text = max_text_characters
        self._form = FormShape(frozenset(EmbedOptions.model_fields), max_inputs, max_text_characters)
        self._bodies = BodyReader(max_request_bytes)

    async def read_queries(self, request: Request, reservation: Reservation) -> tuple[Queries, Encoding]:
        """Read `POST /embed`, and in which encoding a JSON answer is to be.

        Raises:
            APIError: the body is too large, too slow, of another media type, or breaks the contract.
        """
        if media_type(request, JSON, multipart.MEDIA_TYPE) == JSON:
            return await self.read_json(request, reservation, EmbedRequest, "inputs", make_json_queries)
        form = FormBody(request.headers["content-type"], self._form)
        return await self._bodies.read(request, reservation, form, _of_form)

    async def read_json(
        self,
        request: Request,
        reservation: Reservation,
        model: type[BaseModel],
        items: str,
        make: Callable[[ReadJson], Made],
    ) -> Made:
        """Read a JSON body with the fields of `model`, whose field `items` has the inputs.

        What `make` makes of it is made where the body is parsed.

        Raises:
            APIError: as of `read_queries`, and by `make`.
        """
        media_type(request, JSON)
        fields = frozenset(model.model_fields)
        shape = Shape(fields, frozenset(Input.model_fields), items, self.max_inputs)
        return await self._bodies.read(request, reservation, JsonBody(shape, self._longest_text), make)


def of_input(given: Input, long: LongStrings) -> Query:
    """The query that an input is."""
    if given.image is not None:
        return ImageQuery(long.take(given.image))
    assert given.text is not None
    return TextQuery(long.take(given.text))


def make_json_queries(read: ReadJson) -> tuple[Queries, Encoding]:
    """The queries of an `EmbedRequest`, and in which encoding their answer is to be."""
    request = parse(EmbedRequest, read.rest)
    items = [of_input(each, read.long) for each in request.inputs]
    return _queries(items, request, read.body_hash), request.encoding


def _of_form(form: Form) -> tuple[Queries, Encoding]:
    options = parse(EmbedOptions, dict(form.fields))
    return _queries([_of_part(each) for each in form.items], options, form.body_hash), options.encoding


def _of_part(part: Part) -> Query:
    return TextQuery(part.content) if isinstance(part.content, str) else ImageQuery(part.content)


def _queries(items: list[Query], options: EmbedOptions, body_hash: str) -> Queries:
    return Queries(items, body_hash, options.model, skip_bad=options.on_error == "skip")
