"""The vendor's errors as HTTP: those of every server, and those that FastAPI makes of a request's parts."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from shared.errors import APIError, ErrorCode
from shared.serving.errors import error_handlers, refused

_LONGEST_NAME = 100  # characters of what a caller named, where it is told what is wrong with it


def add_error_handlers(app: FastAPI) -> None:
    """Render refusals, invalid requests and the framework's own errors; `internal_error` is the rest's."""
    for kind, handler in error_handlers("/docs").items():
        app.add_exception_handler(kind, handler)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)


def internal_error(request: Request) -> JSONResponse:
    """The answer to an exception that nobody expected: it tells nothing but the id to ask about."""
    message = "something went wrong here; nothing was charged, and the request may be sent again"
    return refused(request, APIError(ErrorCode.INTERNAL_ERROR, message))


async def _on_invalid_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problem = error.errors()[0]
    param = ".".join(str(part)[:_LONGEST_NAME] for part in problem["loc"][1:])
    invalid = APIError(ErrorCode.INVALID_REQUEST, f"{param}: {problem['msg']}", param=param)
    return refused(request, invalid)
