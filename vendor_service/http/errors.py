"""The vendor's errors as HTTP: those of every server, and those that FastAPI makes of a request's parts."""

import re
from functools import cache

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from shared.errors import APIError, ErrorCode
from shared.http.errors import error_handlers, refused

_LONGEST_NAME = 100  # characters of what a caller named, where it is told what is wrong with it


def add_error_handlers(app: FastAPI) -> None:
    """Render refusals, invalid requests and the framework's own errors; `internal_error` is the rest's."""
    handlers = error_handlers("/docs")
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)

    async def on_framework_error(request: Request, error: Exception) -> Response:
        # The framework tells of the methods of one route, and a path may have several.
        if isinstance(error, HTTPException) and error.status_code == 405 and (allowed := _methods(request)):
            error.headers = {"allow": ", ".join(sorted(allowed))}
        return await handlers[HTTPException](request, error)

    app.add_exception_handler(HTTPException, on_framework_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)


def internal_error(request: Request) -> JSONResponse:
    """The answer to an exception that nobody expected: it tells nothing but the id to ask about."""
    message = "something went wrong here; nothing was charged, and the request may be sent again"
    return refused(request, APIError(ErrorCode.INTERNAL_ERROR, message))


def _methods(request: Request) -> set[str]:
    """What may be done with a path, by the OpenAPI document; empty where that does not tell."""
    operations = request.app.openapi()["paths"]
    found = (each for path, each in operations.items() if _pattern(path).fullmatch(request.url.path))
    return {method.upper() for each in found for method in each}


@cache
def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{.*?\\}", "[^/]+", re.escape(path)))


async def _on_invalid_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problem = error.errors()[0]
    param = ".".join(str(part)[:_LONGEST_NAME] for part in problem["loc"][1:])
    invalid = APIError(ErrorCode.INVALID_REQUEST, f"{param}: {problem['msg']}", param=param)
    return refused(request, invalid)
