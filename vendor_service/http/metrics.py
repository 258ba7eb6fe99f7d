"""`GET /metrics`: what Prometheus asks for."""

import hmac
from collections.abc import Callable

from fastapi import APIRouter, Request, Response

from shared.errors import ErrorCode
from shared.hosts import address, is_passed_on
from vendor_service.errors import APIError


def metrics_router(render: Callable[[str], tuple[bytes, str]], token: str | None) -> APIRouter:
    """`GET /metrics`, as `render` gives it by `Accept`; for who sends the `token`, or who is near.

    They name the accounts, and what each has spent.
    """
    router = APIRouter(tags=["health"])

    @router.get("/metrics", response_class=Response)
    def read(request: Request) -> Response:
        """Prometheus's text format, or OpenMetrics with exemplars."""
        sent = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token is not None and not hmac.compare_digest(sent.encode(), token.encode()):
            message = "send the token of this vendor's metrics as: Authorization: Bearer ..."
            raise APIError(ErrorCode.INVALID_API_KEY, message)
        if token is None and not _is_near(request):
            message = "without a token these are for this machine and private networks, asked directly"
            raise APIError(ErrorCode.INVALID_API_KEY, message)
        content, media_type = render(request.headers.get("accept", ""))
        return Response(content, media_type=media_type)

    return router


def _is_near(request: Request) -> bool:
    """Whether this machine or a private network asks, and not a proxy, which may ask for anybody."""
    if request.client is None or is_passed_on(request.headers):
        return False
    at, server = address(request.client.host), request.scope.get("server")
    return at is not None and (not at.is_global or (server is not None and request.client.host == server[0]))
