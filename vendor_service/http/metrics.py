"""`GET /metrics`: what Prometheus asks for."""

import hmac
from collections.abc import Callable

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from shared.errors import ErrorCode
from vendor_service.errors import APIError


def metrics_router(render: Callable[[], bytes], token: str | None) -> APIRouter:
    """`GET /metrics`, what `render` gives, for who sends the `token`, or for anybody where there is none."""
    router = APIRouter(tags=["health"])

    @router.get("/metrics", response_class=Response)
    def read(request: Request) -> Response:
        """Prometheus's text format."""
        sent = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token is not None and not hmac.compare_digest(sent.encode(), token.encode()):
            message = "send the token of this vendor's metrics as: Authorization: Bearer ..."
            raise APIError(ErrorCode.INVALID_API_KEY, message)
        return Response(render(), media_type=CONTENT_TYPE_LATEST)

    return router
