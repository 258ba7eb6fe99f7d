"""`/console`: the pages of customers, their actions, and the way in and out."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fastapi import APIRouter
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from shared.errors import APIError
from shared.http.capacity import Capacity
from vendor_service.accounts.authentication import Authentication
from vendor_service.batches.services import BatchServices
from vendor_service.clock import Clock
from vendor_service.console import sessions
from vendor_service.console.customers.actions import CustomerActions
from vendor_service.console.customers.downloads import Downloads
from vendor_service.console.customers.pages import CustomerPages
from vendor_service.console.customers.trying import TryIt
from vendor_service.console.customers.visitor import Customer, CustomersDoor, identify
from vendor_service.console.forms import read_form
from vendor_service.console.seal import Seal
from vendor_service.console.sessions import CUSTOMERS
from vendor_service.console.site import Site, Threads, address_of, check_origin
from vendor_service.database.session import Database
from vendor_service.database.tables import ConsoleSession
from vendor_service.embed.models import Models
from vendor_service.embed.sales import Sales
from vendor_service.http.account_threads import AccountThreads
from vendor_service.http.history_rate import HistoryRate
from vendor_service.money.clock_watch import ClockWatch

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """The largest form with images that is taken, and the longest text."""

    max_request_bytes: int
    max_text_characters: int


def console_router(
    database: Database,
    clock: Clock,
    seal: Seal,
    authentication: Authentication,
    models: Models,
    watch: ClockWatch,
    sales: Sales,
    capacity: Capacity,
    limits: Limits,
    threads: AccountThreads,
    desk: BatchServices | None = None,
    *,
    trust_clock: bool,
) -> APIRouter:
    """The routes; none is in the OpenAPI document, for they are for people. A `desk` is of bulk jobs."""
    router = APIRouter(include_in_schema=False)
    limit = _limit(HistoryRate())
    site = Site(CUSTOMERS, "Tuition", database, clock, seal, identify, limit, _OwnThreads(threads))
    pages = CustomerPages(database, clock, models, watch, desk)
    site.add_assets(router)
    _add_way_in(router, site, CustomersDoor(database, clock, seal, authentication, threads))
    site.add_signing_out(router, _end_everywhere)
    site.add_pages(router, pages.all())
    site.add_actions(router, CustomerActions(database, clock, desk, trust_clock).all())
    trying = TryIt(site, pages, sales, capacity, limits.max_request_bytes, limits.max_text_characters)
    path = f"{CUSTOMERS.path}/models/try"
    router.add_api_route(path, trying.answer, methods=["POST"], response_model=None)
    if desk is not None:
        downloads = Downloads(site, desk, capacity)
        path = f"{CUSTOMERS.path}/batches/files/{{file_id}}"
        router.add_api_route(path, downloads.answer, methods=["GET"], response_model=None)
    site.add_fallback(router)
    return router


class _OwnThreads(Threads[Customer]):
    """The threads in which a customer holds up no account but their own."""

    def __init__(self, threads: AccountThreads) -> None:
        self._threads = threads

    async def read(self, who: Customer, work: Callable[[], T]) -> T:
        return await self._threads.read(who.account_id, work)

    async def do(self, who: Customer, work: Callable[[], T]) -> T:
        return await self._threads.do(who.account_id, work)


def _limit(rate: HistoryRate) -> Callable[[Customer, int], None]:
    def take(who: Customer, cost: int) -> None:
        try:
            rate.take(who.account_id, cost)
        except APIError as error:
            message = "an account may ask for pages, and send forms, five times a second"
            raise APIError(error.code, message, retry_after=error.retry_after) from error

    return take


def _add_way_in(router: APIRouter, site: Site[Customer], door: CustomersDoor) -> None:
    async def sign_in_page(request: Request) -> Response:
        return await asyncio.to_thread(_sign_in_page, site, request, "")

    async def sign_in(request: Request) -> Response:
        return await _entering(
            site, request, lambda fields: door.by_key(fields["key"], address_of(request)), _sign_in_page
        )

    async def invitation_page(request: Request) -> Response:
        return await asyncio.to_thread(_invitation_page, site, request, "")

    async def join(request: Request) -> Response:
        return await _entering(
            site, request, lambda fields: door.by_invitation(fields["code"], address_of(request)),
            _invitation_page,
        )  # fmt: skip

    for path, show, enter in (
        ("/sign-in", sign_in_page, sign_in),
        ("/invitation", invitation_page, join),
    ):
        router.add_api_route(f"{CUSTOMERS.path}{path}", show, methods=["GET"], response_model=None)
        router.add_api_route(f"{CUSTOMERS.path}{path}", enter, methods=["POST"], response_model=None)


async def _entering(
    site: Site[Customer],
    request: Request,
    enter: Callable[[dict[str, str]], Awaitable[str]],
    page: Callable[[Site[Customer], Request, str, int], Response],
) -> Response:
    try:
        check_origin(request)
        form = await read_form(request)
        fields = {name: form.get(name) for name in ("key", "code")}
        cookie = await enter(fields)
    except APIError as error:
        request.state.error_code = error.code.value
        return await asyncio.to_thread(page, site, request, error.message, error.code.kind.status)
    return site.begun(request, cookie, request.query_params.get("next", ""))


def _sign_in_page(site: Site[Customer], request: Request, problem: str, status: int = 200) -> Response:
    values = {
        "problem": problem,
        "next": request.query_params.get("next", ""),
        "lost": "lost" in request.query_params,
    }
    return site.shown(request, "customers/sign_in.html", "Sign in", values, None, status)


def _invitation_page(site: Site[Customer], request: Request, problem: str, status: int = 200) -> Response:
    values = {"problem": problem, "code": request.query_params.get("code", "")}
    return site.shown(request, "customers/invitation.html", "You are invited", values, None, status)


def _end_everywhere(session: Session, who: Customer) -> Sequence[ConsoleSession]:
    if who.key is None or who.ends_all_sessions:
        return sessions.end_all(session, account_id=who.account_id)
    return sessions.end_all(session, account_id=who.account_id, key_id=who.key.id)
