"""An application as the vendor and its operators have it: FastAPI with the contract's errors."""

import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import cache
from importlib.metadata import version

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from shared.errors import APIError, ErrorBody, ErrorCode
from shared.http.errors import LONGEST_NAME, error_handlers, refused

CRASH = "something went wrong here; nothing was charged, and the request may be sent again"


def new_application(
    title: str, description: str, lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]]
) -> FastAPI:
    """One without routes and layers, which renders errors and documents that it does."""
    app = FastAPI(
        title=title,
        description=description,
        version=version("tuition"),
        docs_url=None,
        redoc_url=None,
        # The vendor has its own traces and metrics; FastAPI would ask for providers of them at every request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        lifespan=lifespan,
        responses={"4XX": {"model": ErrorBody}, "5XX": {"model": ErrorBody}},
    )
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
    return app


def _methods(request: Request) -> set[str]:
    """The methods of a path, by the OpenAPI document; empty where that does not tell."""
    operations = request.app.openapi()["paths"]
    found = (each for path, each in operations.items() if _pattern(path).fullmatch(request.url.path))
    return {method.upper() for each in found for method in each}


@cache
def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{.*?\\}", "[^/]+", re.escape(path)))


async def _on_invalid_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problem = error.errors()[0]
    param = ".".join(str(part)[:LONGEST_NAME] for part in problem["loc"][1:])
    invalid = APIError(ErrorCode.INVALID_REQUEST, f"{param}: {problem['msg']}", param=param)
    return refused(request, invalid)
