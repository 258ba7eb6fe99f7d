"""`/admin/webhooks`: who is told of what happens, and what became of it."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import Field

from shared.http.body import read_model
from vendor_service.acts import webhooks
from vendor_service.acts.authentication import Operator
from vendor_service.acts.tokens import OperatorScope
from vendor_service.acts.webhooks import DeliveryInfo
from vendor_service.api.admin.desk import Body, Desk, taking
from vendor_service.webhooks import endpoints
from vendor_service.webhooks.endpoints import EndpointInfo, NewEndpoint
from vendor_service.webhooks.events import EventKind


class NewWebhook(Body):
    """A receiver; no `events` are all of them, no `account` all accounts."""

    url: str
    events: list[
        Literal[
            "quota.threshold_reached",
            "spend_limit.threshold_reached",
            "credit.threshold_reached",
            "invoice.finalized",
            "key.rotated",
            "batch.completed",
            "model.deprecated",
        ]
    ] = Field(default=[])
    account: str | None = None


def webhooks_router(desk: Desk) -> APIRouter:
    """The routes; those that change something take the scope `all`."""
    router = APIRouter(prefix="/admin/webhooks", tags=["webhooks"])
    may_read, may_change = desk.requiring(OperatorScope.READ), desk.requiring(OperatorScope.ALL)

    @router.get("", dependencies=[may_read])
    async def list_all() -> list[EndpointInfo]:
        """All receivers, without their secrets."""
        return await desk.read(endpoints.list_endpoints)

    @router.post("", status_code=201, openapi_extra=taking(NewWebhook))
    async def create(request: Request, operator: Annotated[Operator, may_change]) -> NewEndpoint:
        """Add a receiver; its secret is shown this once."""
        asked = await read_model(request, NewWebhook)
        kinds = list(map(EventKind, asked.events))
        return await desk.act(operator, lambda act: webhooks.create(act, asked.url, kinds, asked.account))

    @router.get("/deliveries", dependencies=[may_read])
    async def deliveries(
        endpoint: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100
    ) -> list[DeliveryInfo]:
        """The last deliveries, the newest events first."""
        return await desk.read(
            lambda session: webhooks.deliveries(session, endpoint_id=endpoint, limit=limit)
        )

    @router.post("/{endpoint_id}/rotate")
    async def rotate(
        endpoint_id: str,
        operator: Annotated[Operator, may_change],
        grace_seconds: Annotated[int, Query(ge=0, le=366 * 86_400)] = 0,
    ) -> NewEndpoint:
        """Give a receiver another secret, shown this once; for `grace_seconds` both sign."""
        return await desk.act(operator, lambda act: webhooks.rotate(act, endpoint_id, grace_seconds))

    @router.post("/{endpoint_id}/disable")
    async def disable(endpoint_id: str, operator: Annotated[Operator, may_change]) -> EndpointInfo:
        """Send a receiver nothing from now on, for good."""
        return await desk.act(operator, lambda act: webhooks.disable(act, endpoint_id))

    @router.post("/{endpoint_id}/replay/{event_id}")
    async def replay(
        endpoint_id: str, event_id: str, operator: Annotated[Operator, may_change]
    ) -> DeliveryInfo:
        """Send an event to a receiver again, under the same id."""
        return await desk.act(operator, lambda act: webhooks.replay(act, event_id, endpoint_id))

    return router
