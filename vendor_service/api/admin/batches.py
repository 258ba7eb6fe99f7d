"""`/admin/accounts/{name}/batches`: the bulk jobs of an account."""

from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session

from shared.batches import BatchList, BatchObject
from vendor_service.accounts.accounts import find_account
from vendor_service.acts.act import Act
from vendor_service.acts.authentication import Operator
from vendor_service.acts.tokens import OperatorScope
from vendor_service.api.admin.desk import Desk
from vendor_service.batches import book


def admin_batches_router(desk: Desk, keep_micros: int) -> APIRouter:
    """The routes; the files of a job that is cancelled are kept for so many microseconds."""
    router = APIRouter(prefix="/admin/accounts/{name}/batches", tags=["bulk jobs"])

    @router.get("", dependencies=[desk.requiring(OperatorScope.READ)])
    async def list_all(
        name: str, after: str | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 20
    ) -> BatchList:
        """An account's jobs, the newest first, with what they cost and what is held for them."""

        def read(session: Session) -> BatchList:
            return BatchList.of(*book.page(session, find_account(session, name).id, after, limit))

        return await desk.read(read)

    @router.post("/{batch_id}/cancel")
    async def cancel(
        name: str, batch_id: str, operator: Annotated[Operator, desk.requiring(OperatorScope.ACCOUNTS)]
    ) -> BatchObject:
        """End a job now: what is answered stays charged, what is held for the rest is released."""

        def act(act: Act) -> BatchObject:
            return book.cancel(act, find_account(act.session, name).id, batch_id, keep_micros)

        return await desk.act(operator, act)

    return router
