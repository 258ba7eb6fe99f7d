"""The headers of all routes that sell embeddings: those of requests and of responses."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Header, Request, Response

from vendor_service.accounts.authentication import Caller
from vendor_service.api.authentication import Dependency
from vendor_service.embed.results import Content, EmbedResult
from vendor_service.embed.service import Call
from vendor_service.observability.timing import Timing


def calling(authenticate: Dependency) -> Callable[..., Awaitable[Call]]:
    """Make the dependency that reads who calls and on which terms; `authenticate` names the caller."""

    async def call(
        request: Request,
        caller: Annotated[Caller, Depends(authenticate)],
        idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
        x_max_cost_micros: Annotated[int | None, Header(ge=0)] = None,
        x_expect_fingerprint: Annotated[str | None, Header(max_length=255)] = None,
    ) -> Call:
        request.state.timing = Timing()
        return Call(
            request_id=request.state.request_id,
            caller=caller,
            timing=request.state.timing,
            idempotency_key=idempotency_key,
            max_cost_micros=x_max_cost_micros,
            expect_fingerprint=x_expect_fingerprint,
        )

    return call


async def disconnected(request: Request) -> None:
    """Return when the caller has hung up; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def respond(result: EmbedResult, content: Content) -> Response:
    """The response, with what its headers tell of the model, of money and of time."""
    headers = {"x-model-fingerprint": result.model.fingerprint, "server-timing": str(result.timing)}
    headers |= _money_headers(result) | content.headers
    return Response(content.body, media_type=content.media_type, headers=headers)


def _money_headers(result: EmbedResult) -> dict[str, str]:
    admitted = result.admitted
    if admitted is None:
        return {"x-cost-micros": "0"}
    headers = {"x-cost-micros": str(admitted.cost_micros)}
    if admitted.replayed:
        headers["idempotent-replayed"] = "true"
    if admitted.quota_left is not None:
        headers["x-quota-remaining-queries"] = str(admitted.quota_left)
    if admitted.rate is not None:
        headers |= admitted.rate.headers
    return headers
