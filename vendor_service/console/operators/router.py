"""`/operator`: the pages of operators, their acts, a stream of what happens now, and the way in."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence

from fastapi import APIRouter
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from shared.errors import APIError, ErrorCode
from vendor_service.acts.act import ActContext
from vendor_service.acts.authentication import OperatorAuthentication
from vendor_service.acts.sessions import end_all
from vendor_service.console.acts import Acts
from vendor_service.console.answers import HEADERS
from vendor_service.console.operators.acts import OperatorFace
from vendor_service.console.operators.monitor import Monitor, live
from vendor_service.console.operators.pages import OperatorPages
from vendor_service.console.operators.visitor import OperatorsDoor, SignedInOperator, identify
from vendor_service.console.seal import Seal
from vendor_service.console.sessions import OPERATORS
from vendor_service.console.site import SignedOut, Site
from vendor_service.database.tables import ConsoleSession

_TICK_SECONDS = 2.0
_MOST_STREAMS = 32


def operator_router(
    acts: ActContext,
    seal: Seal,
    authentication: OperatorAuthentication,
    monitor: Monitor,
    stopping: Callable[[], bool],
) -> APIRouter:
    """The routes; none is in the OpenAPI document, for they are for people."""
    database, clock = acts.database, acts.clock
    site = Site(OPERATORS, "Tuition operators", database, clock, seal, identify)
    forms = Acts(OperatorFace(acts))
    pages = OperatorPages(acts, monitor, forms)
    door = OperatorsDoor(database, clock, seal, authentication)
    site.add_assets()
    site.add_way_in("/sign-in", "sign_in.html", "Sign in", door.by_token)
    site.add_way_out(_end_everywhere)
    site.add("GET", "/stream", _Stream(site, monitor, stopping).answer)
    site.add_pages(pages.all())
    site.add_actions([*forms.actions(), *pages.verifications()])
    site.add_fallback()
    return site.router


def _end_everywhere(session: Session, who: SignedInOperator) -> Sequence[ConsoleSession]:
    return end_all(session, token_id=who.token.id)


class _Stream:
    """The present as server-sent events, for as long as the session holds."""

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
            return await asyncio.to_thread(self._site.answers.failed, request, error)
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
        now = live(self._monitor)
        return _event("away", self._monitor.away) if now is None else _event("now", now)

    def _holds(self, request: Request) -> bool:
        try:
            with self._site.database.read() as session:
                self._site.visitor(request, session)
        except SignedOut:
            return False
        return True


def _event(name: str, content: object) -> str:
    return f"event: {name}\ndata: {json.dumps(content)}\n\n"
