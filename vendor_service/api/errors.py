"""The one place where errors become HTTP: whatever went wrong, the caller gets the contract's error body."""

from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from shared.errors import ErrorBody, ErrorCode, ErrorDetail
from vendor_service.errors import APIError

# What the framework itself refuses before a route is reached.
_FRAMEWORK_CODES = {
    404: (ErrorCode.NOT_FOUND, "there is nothing at this path; see /docs"),
    405: (ErrorCode.METHOD_NOT_ALLOWED, "this path has no such method; see /docs"),
}

_LONGEST_NAME = 100  # characters of what a caller named, where it is told what is wrong with it


def add_error_handlers(app: FastAPI) -> None:
    """Render refusals, invalid requests and the framework's own errors; `internal_error` is the rest's."""
    app.add_exception_handler(APIError, _on_api_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_framework_error)


def internal_error(request: Request) -> JSONResponse:
    """The answer to an exception that nobody expected: it tells nothing but the id to ask about."""
    message = "something went wrong here; nothing was charged, and the request may be sent again"
    return _render(APIError(ErrorCode.INTERNAL_ERROR, message), request)


def refused(request: Request, error: APIError) -> JSONResponse:
    """The answer to a request that is refused before any route is looked for."""
    return _render(error, request)


async def _on_api_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, APIError)
    return _render(error, request)


async def _on_invalid_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problem = error.errors()[0]
    param = ".".join(str(part)[:_LONGEST_NAME] for part in problem["loc"][1:])
    invalid = APIError(ErrorCode.INVALID_REQUEST, f"{param}: {problem['msg']}", param=param)
    return _render(invalid, request)


async def _on_framework_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, APIError):  # of a body that the framework was reading for a route
        return _render(error.__cause__, request)
    code, message = _FRAMEWORK_CODES.get(error.status_code, (ErrorCode.INVALID_REQUEST, error.detail))
    return _render(APIError(code, message), request, error.headers)


def _render(error: APIError, request: Request, headers: Mapping[str, str] | None = None) -> JSONResponse:
    request.state.error_code = error.code.value  # for the log and the metrics
    kind = error.code.kind
    resets_at = error.resets_at
    detail = ErrorDetail(
        code=error.code,
        type=kind.type,
        message=error.message,
        param=error.param,
        request_id=request.state.request_id,
        retryable=kind.retryable,
        resets_at=None if resets_at is None else resets_at.isoformat().replace("+00:00", "Z"),
    )
    headers = error.headers | dict(headers or {})
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    if kind.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(ErrorBody(error=detail).model_dump(mode="json"), kind.status, headers)
