"""`POST /embed`: HTTP on one side, `EmbedService` on the other."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response

from shared.embeddings import EmbedRequest, EmbedResponse
from shared.errors import ErrorCode
from vendor_service.accounts.auth import Caller, Dependency
from vendor_service.billing.orders import Admitted
from vendor_service.embed.service import Answer, Call, EmbedService
from vendor_service.errors import Refusal


def embed_router(
    service: EmbedService,
    fingerprint: str,
    max_request_bytes: int,
    authenticate: Dependency,
) -> APIRouter:
    """The route; `fingerprint` is the served model's, `authenticate` the dependency that names the caller."""
    router = APIRouter(tags=["embeddings"])

    @router.post(
        "/embed",
        responses={200: {"model": EmbedResponse}},
        response_class=Response,
        openapi_extra=_request_body(),
    )
    async def embed(
        request: Request,
        caller: Annotated[Caller, Depends(authenticate)],
        idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
        x_max_cost_micros: Annotated[int | None, Header(ge=0)] = None,
        x_expect_fingerprint: Annotated[str | None, Header(max_length=255)] = None,
    ) -> Response:
        """Embed texts and images, mixed. Each one answered is a query and is charged, exactly once."""
        _check_media_types(request)
        call = Call(
            request_id=request.state.request_id,
            caller=caller,
            idempotency_key=idempotency_key,
            max_cost_micros=x_max_cost_micros,
            expect_fingerprint=x_expect_fingerprint,
        )
        body = await _read(request, max_request_bytes)
        answer = await service.embed(call, body, lambda: _disconnected(request))
        headers = {"x-model-fingerprint": fingerprint} | _money_headers(answer)
        return Response(answer.content, media_type="application/json", headers=headers)

    return router


def _request_body() -> dict[str, Any]:
    # The route reads the body itself, to stop at the limit; this tells the OpenAPI document what it reads.
    schema = EmbedRequest.model_json_schema()
    schema["properties"]["inputs"]["items"] = schema.pop("$defs")["Input"]
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _check_media_types(request: Request) -> None:
    sent = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if sent != "application/json":
        message = f"send application/json, not {sent}"
        raise Refusal(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message, param="content-type")
    wanted = {
        each.partition(";")[0].strip().lower() for each in request.headers.get("accept", "*/*").split(",")
    }
    if not wanted & {"application/json", "application/*", "*/*"}:
        raise Refusal(ErrorCode.NOT_ACCEPTABLE, "the answer is application/json", param="accept")


async def _read(request: Request, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise Refusal(ErrorCode.REQUEST_TOO_LARGE, f"a request may have {limit} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _money_headers(answer: Answer) -> dict[str, str]:
    admitted: Admitted | None = answer.admitted
    if admitted is None:
        return {"x-cost-micros": "0"}
    headers = {"x-cost-micros": str(admitted.cost_micros)}
    if admitted.replayed:
        headers["idempotent-replayed"] = "true"
    if admitted.quota_left is not None:
        headers["x-quota-remaining-queries"] = str(admitted.quota_left)
    if admitted.rate is not None:
        headers["x-ratelimit-limit-queries"] = str(admitted.rate.limit)
        headers["x-ratelimit-remaining-queries"] = str(admitted.rate.remaining)
        headers["x-ratelimit-reset-queries"] = str(admitted.rate.reset_seconds)
    return headers
