"""From the bytes of a small body to a model, and what is said where they do not make one."""

import re
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from shared.errors import APIError, ErrorCode
from shared.http.body import receiver_of

JSON = "application/json"
_SMALL_BYTES = 4096
_SMALL_SECONDS = 10.0
_LONGEST_NAME = 100  # characters of what a caller named, where it is told what is wrong with it
# The character NUL, as JSON has it: behind its own backslash, not behind one that stands for a backslash.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

Body = TypeVar("Body", bound=BaseModel)


async def read_model(request: Request, model: type[Body]) -> Body:
    """Read a JSON body of a few numbers, after its caller is known.

    Raises:
        APIError: `unsupported_media_type`, `request_too_large`, `deadline_exceeded` or `invalid_request`.
    """
    media_type(request, JSON)
    receiver_of(request).allow(_SMALL_BYTES, _SMALL_SECONDS)
    return parse_small(model, await request.body())


def media_type(request: Request, *allowed: str) -> str:
    """Which of these a body says to be; JSON if it says nothing.

    Raises:
        APIError: `unsupported_media_type`.
    """
    sent = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if sent not in allowed:
        message = f"send {' or '.join(allowed)}, not {sent[:_LONGEST_NAME]}"
        raise APIError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message, param="content-type")
    return sent


def parse(model: type[Body], content: bytes | bytearray | dict[str, Any]) -> Body:
    """Validate JSON, or the fields of a form.

    Raises:
        APIError: `invalid_request`, with the first thing that is wrong.
    """
    try:
        return (
            model.model_validate(content) if isinstance(content, dict) else model.model_validate_json(content)
        )
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise invalid(problem["msg"], *problem["loc"]) from error


def parse_small(model: type[Body], content: bytes) -> Body:
    """Validate JSON whose texts may go into the books: PostgreSQL takes none with the character NUL.

    Raises:
        APIError: `invalid_request`, with the first thing that is wrong.
    """
    parsed = parse(model, content)
    if _NUL.search(content):
        raise invalid("no text may have the character NUL")
    return parsed


def invalid(message: str, *place: str | int) -> APIError:
    """The error for a part of a request; a long name of that part is cut short."""
    return APIError(
        ErrorCode.INVALID_REQUEST,
        message,
        param=".".join(str(each)[:_LONGEST_NAME] for each in place) or None,
    )
