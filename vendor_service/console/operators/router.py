"""`/operator`: the pages of operators, their actions, a stream of what happens now, and the way in."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from shared.errors import APIError, ErrorCode
from vendor_service.acts.authentication import OperatorAuthentication
from vendor_service.acts.verification import LedgerVerifier
from vendor_service.clock import Clock
from vendor_service.console.forms import read_form
from vendor_service.console.operators.actions import OperatorActions, end_everywhere
from vendor_service.console.operators.monitor import Monitor, figures_of, lines_of, refusals_of
from vendor_service.console.operators.pages import OperatorPages
from vendor_service.console.operators.visitor import OperatorsDoor, SignedInOperator, identify
from vendor_service.console.seal import Seal
from vendor_service.console.sessions import OPERATORS
from vendor_service.console.site import HEADERS, SignedOut, Site, address_of, check_origin
from vendor_service.database.session import Database
from vendor_service.money.clock_watch import ClockWatch

_TICK_SECONDS = 2.0
_MOST_STREAMS = 32


def operator_router(
    database: Database,
    clock: Clock,
    seal: Seal,
    authentication: OperatorAuthentication,
    verifier: LedgerVerifier,
    monitor: Monitor,
    stopping: Callable[[], bool],
    *,
    trust_clock: bool,
    percents: tuple[int, ...],
    watch: ClockWatch,
) -> APIRouter:
    """The routes; none is in the OpenAPI document, for they are for people."""
    router = APIRouter(include_in_schema=False)
    site = Site(OPERATORS, "Tuition operators", database, clock, seal, identify)
    site.add_assets(router)
    _add_way_in(router, site, OperatorsDoor(database, clock, seal, authentication))
    site.add_signing_out(router, end_everywhere)
    stream = _Stream(site, monitor, stopping)
    router.add_api_route(f"{OPERATORS.path}/stream", stream.answer, methods=["GET"], response_model=None)
    site.add_pages(router, OperatorPages(clock, monitor).all())
    actions = OperatorActions(database, clock, trust_clock, percents, watch, verifier)
    site.add_actions(router, actions.all())
    site.add_fallback(router)
    return router


def _add_way_in(router: APIRouter, site: Site[SignedInOperator], door: OperatorsDoor) -> None:
    def page(request: Request, problem: str = "", status: int = 200) -> Response:
        values = {
            "problem": problem,
            "next": request.query_params.get("next", ""),
            "lost": "lost" in request.query_params,
        }
        return site.shown(request, "operators/sign_in.html", "Sign in", values, None, status)

    async def show(request: Request) -> Response:
        return await asyncio.to_thread(page, request)

    async def enter(request: Request) -> Response:
        try:
            check_origin(request)
            form = await read_form(request)
            cookie = await asyncio.to_thread(door.by_token, form.get("token"), address_of(request))
        except APIError as error:
            request.state.error_code = error.code.value
            return await asyncio.to_thread(page, request, error.message, error.code.kind.status)
        return site.begun(request, cookie, request.query_params.get("next", ""))

    path = f"{OPERATORS.path}/sign-in"
    router.add_api_route(path, show, methods=["GET"], response_model=None)
    router.add_api_route(path, enter, methods=["POST"], response_model=None)


class _Stream:
    """What happens now, as server-sent events, for as long as the session holds."""

    def __init__(self, site: Site[SignedInOperator], monitor: Monitor, stopping: Callable[[], bool]) -> None:
        self._site = site
        self._monitor = monitor
        self._stopping = stopping
        self._open = 0

    async def answer(self, request: Request) -> Response:
        """The stream, for who is signed in."""
        try:
            if not await asyncio.to_thread(self._holds, request):
                raise APIError(ErrorCode.INVALID_API_KEY, "sign in first")
            if self._open >= _MOST_STREAMS:
                raise APIError(ErrorCode.OVERLOADED, "too many pages are live", retry_after=30)
        except APIError as error:
            return await asyncio.to_thread(self._site.failed, request, error)
        headers = HEADERS | {"x-accel-buffering": "no"}
        return StreamingResponse(self._events(request), media_type="text/event-stream", headers=headers)

    async def _events(self, request: Request) -> AsyncIterator[str]:
        self._open += 1
        try:
            while not self._stopping() and not await request.is_disconnected():
                try:
                    holds = await asyncio.to_thread(self._holds, request)
                except APIError as error:  # whether the session holds cannot be told now
                    yield _event("away", error.message)
                else:
                    if not holds:
                        yield _event("ended", {})
                        return
                    yield await asyncio.to_thread(self._now)
                await asyncio.sleep(_TICK_SECONDS)
        finally:
            self._open -= 1

    def _now(self) -> str:
        self._monitor.refresh()
        points = self._monitor.points()
        if self._monitor.away is not None or not points:
            return _event("away", self._monitor.away)
        now = points[-1]
        told = {"figures": figures_of(now), "lines": lines_of(points), "refusals": refusals_of(now)}
        return _event("now", told)

    def _holds(self, request: Request) -> bool:
        try:
            with self._site.database.read() as session:
                self._site.visitor(request, session)
        except SignedOut:
            return False
        return True


def _event(name: str, content: object) -> str:
    return f"event: {name}\ndata: {json.dumps(content)}\n\n"
