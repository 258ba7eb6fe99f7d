"""The routes by which customers see their money: account, usage, ledger, invoices and quotes."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, params

from shared.billing import (
    AccountStatus,
    EntryPage,
    EstimateRequest,
    GroupBy,
    Invoice,
    Quote,
    UsageReport,
)
from shared.errors import ErrorCode
from shared.http.body import read_model
from shared.moments import Moment
from shared.projects import ProjectList
from shared.receipts import HEAD_TYPE, HeadClaims, LedgerHead
from vendor_service.accounts import projects
from vendor_service.accounts.authentication import Authentication, Caller
from vendor_service.accounts.keys import Scope
from vendor_service.clock import SECOND, Clock, from_datetime, to_datetime
from vendor_service.database.session import Database
from vendor_service.database.tables import Account
from vendor_service.embed.models import Models
from vendor_service.errors import APIError
from vendor_service.http.account_threads import AccountThreads
from vendor_service.http.authentication import requiring
from vendor_service.http.history_rate import HistoryRate
from vendor_service.money import currency, invoices, ledger
from vendor_service.money.clock_watch import ClockWatch
from vendor_service.money.estimates import estimate
from vendor_service.money.signing import Signs
from vendor_service.money.usage import account_status, usage_report

_LARGEST_PAGE = 1000


def billing_router(
    database: Database,
    clock: Clock,
    authentication: Authentication,
    models: Models,
    watch: ClockWatch,
    signer: Signs,
    threads: AccountThreads,
) -> APIRouter:
    """The routes; quotes are for the `models`. What was bought takes a key that may read usage."""
    router = APIRouter(prefix="/v1", tags=["billing"])
    _add_standing(router, database, clock, authentication, models, threads)
    reader = Depends(HistoryRate().limiting(requiring(authentication, Scope.READ_USAGE)))
    _add_history(router, database, clock, reader, watch, threads)
    _add_head(router, database, clock, reader, signer, threads)
    return router


def _add_standing(
    router: APIRouter,
    database: Database,
    clock: Clock,
    authentication: Authentication,
    models: Models,
    threads: AccountThreads,
) -> None:
    any_key = Depends(requiring(authentication))

    @router.get("/account")
    async def account(caller: Annotated[Caller, any_key]) -> AccountStatus:
        """Limits of this account, and how much of them is used."""

        def read() -> AccountStatus:
            with database.read() as session:
                return account_status(session, caller.account_id, clock())

        return await threads.read(caller.account_id, read)

    @router.get("/projects")
    async def list_projects(caller: Annotated[Caller, any_key]) -> ProjectList:
        """Projects of this account, or that of the asking key, with their limits and what is used of them."""

        def read() -> ProjectList:
            with database.read() as session:
                account = session.get_one(Account, caller.account_id)
                found = projects.list_projects(session, account)
                own = caller.key.project_id
                data = [projects.public(each, account, clock()) for each in found if own in (None, each.id)]
                return ProjectList(data=data)

        return await threads.read(caller.account_id, read)

    # The route reads the body itself, once it knows the caller; this is for the OpenAPI document.
    schema = {"content": {"application/json": {"schema": EstimateRequest.model_json_schema()}}}

    @router.post("/estimate", openapi_extra={"requestBody": {"required": True, **schema}})
    async def quote(request: Request, caller: Annotated[Caller, any_key]) -> Quote:
        """What so many queries would cost this account now, and whether its limits allow them; free."""
        asked = await read_model(request, EstimateRequest)
        model_id = models.find(asked.model).facts.id

        def read() -> Quote:
            with database.read() as session:
                return estimate(session, caller.account_id, caller.key_id, model_id, asked, clock())

        return await threads.read(caller.account_id, read)


def _add_history(
    router: APIRouter,
    database: Database,
    clock: Clock,
    reader: params.Depends,
    watch: ClockWatch,
    threads: AccountThreads,
) -> None:
    @router.get("/usage")
    async def usage(
        caller: Annotated[Caller, reader],
        since: Annotated[Moment | None, Query(alias="from", description="first moment, UTC")] = None,
        until: Annotated[Moment | None, Query(alias="to", description="end, not included, UTC")] = None,
        group_by: GroupBy = "day",
    ) -> UsageReport:
        """What was answered and charged, in groups and in all."""
        begin = from_datetime(since) if since else 0
        end = from_datetime(until) if until else clock() + 1
        if begin > end:
            raise APIError(ErrorCode.INVALID_REQUEST, "`from` is later than `to`", param="from")

        def read() -> UsageReport:
            with database.read() as session:
                return usage_report(session, caller.account_id, group_by, begin, end)

        return await threads.read(caller.account_id, read)

    @router.get("/ledger")
    async def entries(
        caller: Annotated[Caller, reader],
        after: Annotated[int, Query(ge=0, le=ledger.MAX_NUMBER, description="the last `seq` seen")] = 0,
        limit: Annotated[int, Query(ge=1, le=_LARGEST_PAGE)] = 100,
    ) -> EntryPage:
        """The account's ledger entries behind `after`, oldest first; an empty page ends it."""

        def read() -> EntryPage:
            with database.read() as session:
                found = ledger.page(session, caller.account_id, after, limit)
                unit = currency.current(session)
            data = [ledger.public(entry) for entry in found]
            return EntryPage(data=data, next_after=data[-1].seq if data else after, currency=unit)

        return await threads.read(caller.account_id, read)

    @router.get("/invoices/{month}")
    async def invoice(
        caller: Annotated[Caller, reader],
        month: Annotated[str, Path(pattern=r"^2[0-9]{3}-(0[1-9]|1[0-2])$", description="YYYY-MM, UTC")],
    ) -> Invoice:
        """The invoice of a month: a draft while the month lasts, and always the same once it is over."""
        account_id = caller.account_id
        return await threads.do(account_id, invoices.issue, database, account_id, month, clock(), watch)


def _add_head(
    router: APIRouter,
    database: Database,
    clock: Clock,
    reader: params.Depends,
    signer: Signs,
    threads: AccountThreads,
) -> None:
    @router.get("/ledger/head", tags=["receipts"])
    async def head(caller: Annotated[Caller, reader]) -> LedgerHead:
        """The account's last entry, signed: who keeps it can tell later whether the ledger was rewritten."""

        def read() -> LedgerHead:
            with database.read() as session:
                last = ledger.head(session, caller.account_id)
            seq, entry_hash = (0, ledger.GENESIS_HASH) if last is None else (last.seq, last.entry_hash)
            claims = HeadClaims(
                iat=clock() // SECOND, account_id=caller.account_id, ledger_seq=seq, entry_hash=entry_hash
            )
            return LedgerHead(
                account_id=caller.account_id,
                seq=seq,
                entry_hash=entry_hash,
                created_at=None if last is None else to_datetime(last.created_at),
                signed=signer.sign(HEAD_TYPE, claims),
            )

        return await threads.read(caller.account_id, read)
