"""`/admin/operators`, `/admin/receipts-keys`, `/admin/audit`: who may act, what signs, and who did what."""

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from sqlalchemy.orm import Session

from shared.http.body import read_model
from vendor_service.accounts.keys import LONGEST_GRACE_SECONDS
from vendor_service.acts import receipts_keys, tokens
from vendor_service.acts.act import Act
from vendor_service.acts.authentication import Operator
from vendor_service.acts.receipts_keys import ReceiptsKey
from vendor_service.acts.tokens import NewToken, OperatorScope, TokenInfo
from vendor_service.api.admin.desk import Body, Desk, only_id, taking
from vendor_service.audit import log
from vendor_service.audit.log import AuditRecord


class TokenRequest(Body):
    """A token to be made."""

    name: str
    scopes: list[Literal["read", "accounts", "money", "all"]]


class LogVerification(BaseModel):
    """What `vendor audit verify` finds; `problem` is the first fault, `null` for none."""

    entries: int
    last_hash: str
    problem: str | None


def operators_router(desk: Desk) -> APIRouter:
    """The routes of tokens; all but the list take the scope `all`."""
    router = APIRouter(prefix="/admin/operators", tags=["operators"])
    may_all = desk.requiring(OperatorScope.ALL)

    @router.get("", dependencies=[desk.requiring(OperatorScope.READ)])
    async def list_all() -> list[TokenInfo]:
        """All operators' tokens, without their secrets."""
        return await desk.read(tokens.list_tokens)

    @router.post("", status_code=201, openapi_extra=taking(TokenRequest))
    async def create(request: Request, operator: Annotated[Operator, may_all]) -> NewToken:
        """Make a token; its secret is shown this once."""
        asked = await read_model(request, TokenRequest)
        scopes = list(map(OperatorScope, asked.scopes))
        return await desk.act(operator, lambda act: tokens.issue(act, asked.name, scopes))

    @router.post("/{token_id}/rotate")
    async def rotate(
        token_id: str,
        operator: Annotated[Operator, may_all],
        grace_seconds: Annotated[int, Query(ge=0, le=LONGEST_GRACE_SECONDS)] = 0,
    ) -> NewToken:
        """Give a token another secret, shown this once; the present one is good for `grace_seconds` more."""
        only_id(token_id, tokens.id_of, "token_id")
        return await desk.act(operator, lambda act: tokens.rotate(act, token_id, grace_seconds))

    @router.post("/{token_id}/revoke")
    async def revoke(token_id: str, operator: Annotated[Operator, may_all]) -> TokenInfo:
        """End a token at once and for good."""
        only_id(token_id, tokens.id_of, "token_id")
        return await desk.act(operator, lambda act: tokens.revoke(act, token_id))

    return router


def receipts_keys_router(desk: Desk, file: Path | None) -> APIRouter:
    """The routes of the keys that sign receipts; `file` holds the private one, see `receipts_keys.rotate`."""
    router = APIRouter(prefix="/admin/receipts-keys", tags=["receipts"])
    may_all = desk.requiring(OperatorScope.ALL)

    @router.get("", dependencies=[desk.requiring(OperatorScope.READ)])
    async def list_all() -> list[ReceiptsKey]:
        """The keys that ever signed receipts, the newest first."""
        return await desk.read(receipts_keys.list_keys)

    @router.post("/rotate")
    async def rotate(operator: Annotated[Operator, may_all]) -> list[ReceiptsKey]:
        """Make a new key, by which the vendors of this machine's file sign within seconds."""
        await asyncio.to_thread(receipts_keys.rotate, desk.database, operator.actor, desk.clock, file)
        return await desk.read(receipts_keys.list_keys)

    @router.post("/{key}/withdraw")
    async def withdraw(key: str, operator: Annotated[Operator, may_all]) -> list[ReceiptsKey]:
        """Disown a key that others have got hold of: customers refuse whatever it signed."""

        def change(act: Act) -> list[ReceiptsKey]:
            receipts_keys.withdraw(act, key)
            return receipts_keys.list_keys(act.session)

        return await desk.act(operator, change)

    return router


def audit_router(desk: Desk) -> APIRouter:
    """The routes of the audit log, for every token."""
    router = APIRouter(
        prefix="/admin/audit", tags=["audit"], dependencies=[desk.requiring(OperatorScope.READ)]
    )

    @router.get("")
    async def entries(
        subject: Annotated[str | None, Query(max_length=255)] = None,
        after: Annotated[int | None, Query(ge=0, le=2**53 - 1)] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> list[AuditRecord]:
        """The last entries, or those behind `after`, oldest first; of one subject if it is named."""

        def read(session: Session) -> list[AuditRecord]:
            return log.entries(session, after=after, limit=limit, subject=subject)

        return await desk.read(read)

    @router.get("/verification")
    async def verification() -> LogVerification:
        """Recompute the chain of the log."""
        return LogVerification(**asdict(await desk.read(log.verify)))

    return router
