"""From a request's body to its queries: JSON or a form, read no further than the limits allow."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from shared.embeddings import EmbedOptions, EmbedRequest, Encoding, Input, Limits
from shared.errors import ErrorCode
from vendor_service.embed import multipart
from vendor_service.embed.capacity import Place
from vendor_service.embed.queries import Queries
from vendor_service.encoder.queries import ImageQuery, Query, TextQuery
from vendor_service.errors import Refusal

_JSON = "application/json"

Body = TypeVar("Body", bound=BaseModel)


async def read_queries(request: Request, limits: Limits, place: Place) -> tuple[Queries, Encoding]:
    """Read `POST /embed`, and in which encoding a JSON answer is to be.

    Raises:
        Refusal: the body is too large, too slow, of another media type, or is not what the contract says.
    """
    if _media_type(request, _JSON, multipart.MEDIA_TYPE) == _JSON:
        return await asyncio.to_thread(_from_json, await read_json(request, limits.max_request_bytes, place))
    body = _limited(request, limits.max_request_bytes, place)
    async with place.in_time():
        form = await multipart.read_form(request.headers["content-type"], body, limits.max_inputs)
    options = parse(EmbedOptions, form.fields)
    return _queries(form.items, options, form.body_hash), options.encoding


async def read_json(request: Request, limit: int, place: Place) -> bytes:
    """Read a whole body of up to `limit` bytes that says to be JSON, or says nothing.

    Raises:
        Refusal: `unsupported_media_type`, `request_too_large`, `overloaded` or `deadline_exceeded`.
    """
    _media_type(request, _JSON)
    async with place.in_time():
        return b"".join([chunk async for chunk in _limited(request, limit, place)])


def parse(model: type[Body], content: bytes | dict[str, str]) -> Body:
    """Validate JSON, or the fields of a form.

    Raises:
        Refusal: `invalid_request`, with the first thing that is wrong.
    """
    try:
        return (
            model.model_validate_json(content)
            if isinstance(content, bytes)
            else model.model_validate(content)
        )
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        param = ".".join(map(str, problem["loc"])) or None
        raise Refusal(ErrorCode.INVALID_REQUEST, problem["msg"], param=param) from error


def _from_json(body: bytes) -> tuple[Queries, Encoding]:
    request = parse(EmbedRequest, body)
    items = [_query(each) for each in request.inputs]
    return _queries(items, request, hashlib.sha256(body).hexdigest()), request.encoding


def _queries(items: list[Query], options: EmbedOptions, body_hash: str) -> Queries:
    return Queries(items, body_hash, options.model, skip_bad=options.on_error == "skip")


def _query(given: Input) -> Query:
    if given.image is not None:
        return ImageQuery(given.image)
    assert given.text is not None
    return TextQuery(given.text)


def _media_type(request: Request, *allowed: str) -> str:
    sent = request.headers.get("content-type", _JSON).partition(";")[0].strip().lower()
    if sent not in allowed:
        message = f"send {' or '.join(allowed)}, not {sent}"
        raise Refusal(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message, param="content-type")
    return sent


async def _limited(request: Request, limit: int, place: Place) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise Refusal(ErrorCode.REQUEST_TOO_LARGE, f"a request may have {limit} bytes")
        place.take_bytes(len(chunk))
        yield chunk
