"""Quotes, and the signed end of an account's ledger: what customers ask that no operator does."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from shared.billing import EstimateRequest, Quote
from shared.http.body import read_model
from shared.receipts import HEAD_TYPE, HeadClaims, LedgerHead, Signs
from vendor_service.accounts.callers import Caller
from vendor_service.accounts.keys import Scope
from vendor_service.clock import SECOND, Clock, to_datetime
from vendor_service.database.session import Database
from vendor_service.database.tables import GENESIS_HASH
from vendor_service.embed.models import Models
from vendor_service.http.account_threads import AccountThreads
from vendor_service.http.authentication import Authentication, requiring
from vendor_service.http.history_rate import HistoryRate
from vendor_service.money import ledger
from vendor_service.money.estimates import estimate


@dataclass(frozen=True)
class Billing:
    """Answers from the books; quotes are for the `models`."""

    database: Database
    clock: Clock
    models: Models
    signer: Signs

    def quote(self, caller: Caller, asked: EstimateRequest, model_id: str) -> Quote:
        """The price of queries for the caller's account now."""
        with self.database.read() as session:
            return estimate(session, caller.account_id, caller.key_id, model_id, asked, self.clock())

    def head(self, caller: Caller) -> LedgerHead:
        """The last entry of the caller's account, signed."""
        with self.database.read() as session:
            last = ledger.head(session, caller.account_id)
        seq, entry_hash = (0, GENESIS_HASH) if last is None else (last.seq, last.entry_hash)
        is_seen = last is not None and caller.view.has(last)
        claims = HeadClaims(
            iat=self.clock() // SECOND, account_id=caller.account_id, ledger_seq=seq, entry_hash=entry_hash
        )
        return LedgerHead(
            account_id=caller.account_id,
            seq=seq,
            entry_hash=entry_hash,
            created_at=to_datetime(last.created_at) if last is not None and is_seen else None,
            signed=self.signer.sign(HEAD_TYPE, claims),
        )


def billing_router(
    billing: Billing, authentication: Authentication, rate: HistoryRate, threads: AccountThreads
) -> APIRouter:
    """The routes. Any key may ask for a quote; the ledger takes one that may read usage."""
    router = APIRouter(prefix="/v1", tags=["billing"])
    any_key = Depends(requiring(authentication))
    reader = Depends(rate.limiting(requiring(authentication, Scope.READ_USAGE)))
    # The route reads the body itself, once it knows the caller; this is for the OpenAPI document.
    schema = {"content": {"application/json": {"schema": EstimateRequest.model_json_schema()}}}

    @router.post("/estimate", openapi_extra={"requestBody": {"required": True, **schema}})
    async def quote(request: Request, caller: Annotated[Caller, any_key]) -> Quote:
        """The price of queries for this account now, and whether its limits allow them; free."""
        asked = await read_model(request, EstimateRequest)
        model_id = billing.models.find(asked.model).facts.id
        return await threads.read(caller.account_id, billing.quote, caller, asked, model_id)

    @router.get("/ledger/head", tags=["receipts"])
    async def head(caller: Annotated[Caller, reader]) -> LedgerHead:
        """The account's last entry, signed: who keeps it can tell later whether the ledger was rewritten."""
        return await threads.read(caller.account_id, billing.head, caller)

    return router
