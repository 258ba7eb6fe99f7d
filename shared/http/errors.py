"""The one place where errors become HTTP: whatever went wrong, the caller gets the contract's error body."""

from collections.abc import Awaitable, Callable, Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from shared.errors import APIError, ErrorBody, ErrorCode, error_detail

Handler = Callable[[Request, Exception], Awaitable[Response]]

LONGEST_NAME = 100  # characters of a caller's own name for something, where an error quotes it
_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
# What the framework itself refuses before a route is reached.
_FRAMEWORK_CODES = {
    404: (ErrorCode.NOT_FOUND, "there is nothing at this path; see {see}"),
    405: (ErrorCode.METHOD_NOT_ALLOWED, "this path has no such method; see {see}"),
}


def error_handlers(see: str) -> dict[type[Exception], Handler]:
    """Handlers that render refusals and the framework's own errors; `see` is where a caller reads on."""

    async def on_framework_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if isinstance(error.__cause__, APIError):  # of a body that the framework was reading for a route
            return refused(request, error.__cause__)
        code, message = _FRAMEWORK_CODES.get(error.status_code, (ErrorCode.INVALID_REQUEST, error.detail))
        headers = _allowing(request) if error.status_code == 405 else error.headers
        return refused(request, APIError(code, message.replace("{see}", see)), headers)

    return {APIError: _on_api_error, HTTPException: on_framework_error}


def _allowing(request: Request) -> dict[str, str]:
    """The methods of all routes of a path; the framework tells those of the first one alone."""
    scopes = {method: {**request.scope, "method": method} for method in _METHODS}
    routes = request.app.routes
    allowed = [
        method
        for method, scope in scopes.items()
        if any(route.matches(scope)[0] is Match.FULL for route in routes)
    ]
    return {"allow": ", ".join(allowed)}


async def _on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, APIError)
    return refused(request, error)


def refused(request: Request, error: APIError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The answer to a request that is refused."""
    request.state.error_code = error.code.value  # for the log and the metrics
    kind = error.code.kind
    detail = error_detail(error, request.state.request_id)
    headers = error.headers | dict(headers or {})
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    if kind.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(ErrorBody(error=detail).model_dump(mode="json"), kind.status, headers)


def invalid(message: str, *place: str | int) -> APIError:
    """The error for a part of a request; a long name of that part is cut short."""
    param = ".".join(str(each)[:LONGEST_NAME] for each in place)
    return APIError(ErrorCode.INVALID_REQUEST, message, param=param or None)
