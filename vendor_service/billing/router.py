"""`GET /v1/account` and `GET /v1/usage`: what a customer may know about its own money."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from shared.billing import AccountStatus, GroupBy, UsageReport
from shared.errors import ErrorCode
from vendor_service.accounts.auth import Caller
from vendor_service.billing.usage import account_status, usage_report
from vendor_service.clock import Clock, from_datetime
from vendor_service.database.session import Database
from vendor_service.errors import Refusal


def billing_router(
    database: Database, clock: Clock, authenticate: Callable[..., Awaitable[Caller]]
) -> APIRouter:
    """The routes; `authenticate` is the dependency that names the caller."""
    router = APIRouter(prefix="/v1", tags=["billing"])

    @router.get("/account")
    async def account(caller: Annotated[Caller, Depends(authenticate)]) -> AccountStatus:
        """Limits of this account, and how much of them is used."""

        def read() -> AccountStatus:
            with database.read() as session:
                return account_status(session, caller.account_id, clock())

        return await asyncio.to_thread(read)

    @router.get("/usage")
    async def usage(
        caller: Annotated[Caller, Depends(authenticate)],
        since: Annotated[datetime | None, Query(alias="from", description="first moment, UTC")] = None,
        until: Annotated[datetime | None, Query(alias="to", description="end, not included, UTC")] = None,
        group_by: GroupBy = "day",
    ) -> UsageReport:
        """What was answered and charged, in groups and in all."""
        begin = from_datetime(since) if since else 0
        end = from_datetime(until) if until else clock() + 1
        if begin > end:
            raise Refusal(ErrorCode.INVALID_REQUEST, "`from` is later than `to`", param="from")

        def read() -> UsageReport:
            with database.read() as session:
                return usage_report(session, caller.account_id, group_by, begin, end)

        return await asyncio.to_thread(read)

    return router
