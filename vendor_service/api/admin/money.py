"""`/admin/accounts/{name}/...` of money: what moves it, the ledger, invoices, usage and holds."""

import asyncio
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from shared.billing import Entry, EntryPage, GroupBy, Invoice, UsageReport
from shared.errors import ErrorCode
from shared.http.body import read_model
from shared.moments import Moment
from vendor_service.accounts.accounts import find_account
from vendor_service.acts import money
from vendor_service.acts.authentication import Operator
from vendor_service.acts.tokens import OperatorScope
from vendor_service.acts.verification import LedgerVerifier
from vendor_service.api.admin.desk import Body, Desk, IdempotencyKey, taking
from vendor_service.clock import from_datetime
from vendor_service.errors import APIError
from vendor_service.money import currency, ledger
from vendor_service.money.holds import OpenHold, open_holds
from vendor_service.money.usage import usage_report

_LARGEST_PAGE = 1000


class Paid(Body):
    """A top-up or a payment: a `reference` counts once an account, whatever idempotency key it comes with."""

    micros: int
    reference: str


class Refund(Body):
    """The charge to be given back, by its `seq`: `micros` of it, or with `null` all that is left.

    A `reference` counts once an account, whatever idempotency key it comes with.
    """

    entry: Annotated[int, Field(ge=1, le=ledger.MAX_NUMBER)]
    micros: int | None = None
    reference: str | None = None


class Adjustment(Body):
    """A correction; a positive amount is in the customer's favour."""

    micros: int
    reason: str


class LedgerVerification(BaseModel):
    """What `vendor ledger verify` finds of one account; `problem` is the first fault, `null` for none."""

    account: str
    entries: int
    balance_micros: int
    problem: str | None


def money_router(desk: Desk, verifier: LedgerVerifier) -> APIRouter:
    """The routes; those that move money take the scope `money` and an idempotency key."""
    router = APIRouter(prefix="/admin", tags=["money"])
    _add_movements(router, desk)
    _add_history(router, desk)
    _add_verification(router, desk, verifier)
    return router


def _add_movements(router: APIRouter, desk: Desk) -> None:
    may_move = desk.requiring(OperatorScope.MONEY)

    @router.post("/accounts/{name}/top-ups", response_model=Entry, openapi_extra=taking(Paid))
    async def top_up(
        name: str, request: Request, operator: Annotated[Operator, may_move], key: IdempotencyKey
    ) -> Response:
        """Add to the credit of a prepaid account."""
        asked = await read_model(request, Paid)
        return await desk.act_once(
            *(operator, request, key, asked),
            lambda act: money.top_up(act, name, asked.micros, asked.reference).entry,
        )

    @router.post("/accounts/{name}/payments", response_model=Entry, openapi_extra=taking(Paid))
    async def pay(
        name: str, request: Request, operator: Annotated[Operator, may_move], key: IdempotencyKey
    ) -> Response:
        """Record what an invoiced account paid; a negative amount is a payment that was returned."""
        asked = await read_model(request, Paid)
        return await desk.act_once(
            *(operator, request, key, asked),
            lambda act: money.pay(act, name, asked.micros, asked.reference).entry,
        )

    @router.post("/accounts/{name}/refunds", response_model=Entry, openapi_extra=taking(Refund))
    async def refund(
        name: str, request: Request, operator: Annotated[Operator, may_move], key: IdempotencyKey
    ) -> Response:
        """Give back a part of a charge, or all that is left of it. Its queries stay used."""
        asked = await read_model(request, Refund)
        return await desk.act_once(
            *(operator, request, key, asked),
            lambda act: money.refund(act, name, asked.entry, asked.micros, asked.reference).entry,
        )

    @router.post("/accounts/{name}/adjustments", response_model=Entry, openapi_extra=taking(Adjustment))
    async def adjust(
        name: str, request: Request, operator: Annotated[Operator, may_move], key: IdempotencyKey
    ) -> Response:
        """Correct what an account owes, for a reason."""
        asked = await read_model(request, Adjustment)
        return await desk.act_once(
            *(operator, request, key, asked),
            lambda act: money.adjust(act, name, asked.micros, asked.reason),
        )


def _add_history(router: APIRouter, desk: Desk) -> None:
    may_read = desk.requiring(OperatorScope.READ)

    @router.get("/accounts/{name}/ledger", dependencies=[may_read])
    async def entries(
        name: str,
        after: Annotated[int, Query(ge=0, le=ledger.MAX_NUMBER, description="the last `seq` seen")] = 0,
        limit: Annotated[int, Query(ge=1, le=_LARGEST_PAGE)] = 100,
    ) -> EntryPage:
        """An account's ledger entries behind `after`, oldest first; an empty page ends it."""

        def read(session: Session) -> EntryPage:
            found = ledger.page(session, find_account(session, name).id, after, limit)
            data = [ledger.public(entry) for entry in found]
            unit = currency.current(session)
            return EntryPage(data=data, next_after=data[-1].seq if data else after, currency=unit)

        return await desk.read(read)

    @router.get("/accounts/{name}/invoices/{month}")
    async def invoice(
        name: str,
        operator: Annotated[Operator, may_read],
        month: Annotated[str, Path(pattern=r"^2[0-9]{3}-(0[1-9]|1[0-2])$", description="YYYY-MM, UTC")],
    ) -> Invoice:
        """The invoice of a month: a draft while the month lasts, and always the same once it is over."""

        def issue() -> Invoice:
            return money.issue_invoice(
                *(desk.database, operator.actor, desk.clock, name, month),
                trust_clock=desk.trust_clock,
                watch=desk.watch,
            )

        return await asyncio.to_thread(issue)

    @router.get("/accounts/{name}/usage", dependencies=[may_read])
    async def usage(
        name: str,
        since: Annotated[Moment | None, Query(alias="from", description="first moment, UTC")] = None,
        until: Annotated[Moment | None, Query(alias="to", description="end, not included, UTC")] = None,
        group_by: GroupBy = "day",
    ) -> UsageReport:
        """What was answered and charged, in groups and in all."""
        begin = from_datetime(since) if since else 0
        end = from_datetime(until) if until else desk.clock() + 1
        if begin > end:
            raise APIError(ErrorCode.INVALID_REQUEST, "`from` is later than `to`", param="from")

        def read(session: Session) -> UsageReport:
            return usage_report(session, find_account(session, name).id, group_by, begin, end)

        return await desk.read(read)

    @router.get("/holds", dependencies=[may_read])
    async def holds(
        account: str | None = None, limit: Annotated[int, Query(ge=1, le=_LARGEST_PAGE)] = 100
    ) -> list[OpenHold]:
        """Requests in flight, and what is held for them, oldest first; of one account if it is named."""
        return await desk.read(lambda session: open_holds(session, account, limit))


def _add_verification(router: APIRouter, desk: Desk, verifier: LedgerVerifier) -> None:
    @router.get("/ledger/verification", dependencies=[desk.requiring(OperatorScope.READ)])
    async def verification(account: str | None = None) -> list[LedgerVerification]:
        """Recompute chain, sums and counters of one account or of all. It reads all of it, one at a time."""
        found = await asyncio.to_thread(verifier.verify, account)
        return [LedgerVerification(**asdict(each)) for each in found]
