"""A site: what customers' and operators' pages share: who asks, pages, forms, the ways in and out."""

import asyncio
import hmac
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar

from fastapi import APIRouter
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from shared.errors import APIError, ErrorCode
from shared.hosts import is_same_site, subscriber
from shared.http.middleware import cookie_of
from vendor_service.acts.sessions import is_over
from vendor_service.clock import Clock
from vendor_service.console import rendering, sessions
from vendor_service.console.answers import Answers
from vendor_service.console.forms import Fields, read_form, read_query
from vendor_service.console.routes import (
    Action,
    Built,
    ConsoleRequest,
    Done,
    Later,
    Page,
    Question,
    Who,
)
from vendor_service.console.seal import Seal
from vendor_service.console.sessions import SessionKind
from vendor_service.database.session import Database
from vendor_service.database.tables import ConsoleSession
from vendor_service.errors import OperatorError
from vendor_service.money import currency

T = TypeVar("T")

_ASSET_SECONDS = 30 * 86_400
_OTHER_SITE = "this came from another site; open the console in a tab of its own and try again"
_OTHER_SESSION = "you signed in again; reload this page and try again"


class SignedOut(Exception):
    """Nobody is signed in."""


class Threads(Generic[Who]):
    """Where it is done what visitors ask for: here, in the threads that everybody shares."""

    async def read(self, _: Who, work: Callable[[], T]) -> T:
        """Do for a visitor what only reads."""
        return await asyncio.to_thread(work)

    async def do(self, _: Who, work: Callable[[], T]) -> T:
        """Do for a visitor what changes something, and so may wait for a lock."""
        return await asyncio.to_thread(work)


class Site(Generic[Who]):
    """The pages of one kind of visitors. `identify` gives the visitor of a session, if it still holds.

    `limit` raises an `APIError` where a visitor asks for pages too fast, or for too costly ones. A form
    counts as a page. What a visitor asks for is done in the `threads`, once it is known who asks.
    """

    def __init__(
        self,
        kind: SessionKind,
        title: str,
        database: Database,
        clock: Clock,
        seal: Seal,
        identify: Callable[[Session, ConsoleSession, str, int], Who | None],
        limit: Callable[[Who, int], None] = lambda _, __: None,
        threads: Threads[Who] | None = None,
    ) -> None:
        self.answers = Answers(kind, title, seal)
        self.limit = limit
        self.threads = threads or Threads[Who]()
        self.kind = kind
        self.database = database
        self.clock = clock
        self.router = APIRouter(include_in_schema=False)
        self._seal = seal
        self._identify = identify

    def add(self, method: str, path: str, answer: Callable[[Request], Awaitable[Response]]) -> None:
        """Add a route below the site's root."""
        self.router.add_api_route(f"{self.kind.path}{path}", answer, methods=[method], response_model=None)

    def add_pages(self, pages: Sequence[Page[Who]]) -> None:
        """Serve pages, and list them in the menu."""
        for page in pages:
            self.answers.list_in_menu(page)
            self.add("GET", page.path, partial(self._show_page, page))

    def add_actions(self, actions: Sequence[Action[Who]]) -> None:
        """Serve what forms do."""
        for action in actions:
            self.add("POST", action.path, partial(self._act, action))

    def add_assets(self) -> None:
        """Serve the files that pages load."""

        async def asset(request: Request) -> Response:
            name = request.path_params["name"]
            if name not in rendering.ASSETS:
                return await self._refused(request, "there is no such file")
            headers = {
                "cache-control": f"max-age={_ASSET_SECONDS}, immutable",
                "x-content-type-options": "nosniff",
            }
            return Response(rendering.read_asset(name), media_type=rendering.ASSETS[name], headers=headers)

        self.add("GET", "/assets/{name}", asset)

    def add_way_in(
        self, path: str, template: str, title: str, enter: Callable[[Fields, str], Awaitable[str]]
    ) -> None:
        """Serve a way to sign in: a page with a form, whose fields and sender's address make a cookie."""

        def page(request: Request, problem: str = "", status: int = 200) -> Response:
            query = request.query_params
            values = {
                "problem": problem,
                "next": query.get("next", ""),
                "lost": "lost" in query,
                "code": query.get("code", ""),
            }
            return self.answers.shown(request, template, title, values, None, status)

        async def show(request: Request) -> Response:
            return await asyncio.to_thread(page, request)

        async def sign_in(request: Request) -> Response:
            try:
                check_origin(request)
                cookie = await enter(await read_form(request), address_of(request))
            except APIError as error:
                request.state.error_code = error.code.value
                return await asyncio.to_thread(page, request, error.message, error.code.kind.status)
            return self.answers.begun(request, cookie)

        self.add("GET", path, show)
        self.add("POST", path, sign_in)

    def add_way_out(self, everywhere: Callable[[Session, Who], Sequence[ConsoleSession]]) -> None:
        """Serve the ways out: of this browser, and of all; `everywhere` ends all sessions of a visitor."""

        def leave(asked: ConsoleRequest[Who]) -> Done:
            with self.database.write() as session:
                if asked.form.get("everywhere"):
                    ended = everywhere(session, asked.who)
                    held = sum(self._holds(session, each, asked.now) for each in ended)
                    return Done(f"{held} sessions were ended, this one included.", "/sign-in")
                sessions.end(session, asked.who.session_id)
                return Done("You are signed out.", "/sign-in")

        self.add_actions([Action[Who]("/sign-out", lambda _: "", lambda _: None, leave)])

    def add_fallback(self) -> None:
        """Answer what is no page of this site; the last route."""

        async def nothing(request: Request) -> Response:
            return await self._refused(request, "there is no such page")

        self.add("GET", "/{path:path}", nothing)

    async def enter(self, request: Request) -> Who:
        """The visitor who asks, looked up beside the event loop; raises as `visitor` does."""

        def look_up() -> Who:
            with self.database.read() as session:
                return self.visitor(request, session)

        return await asyncio.to_thread(look_up)

    def visitor(self, request: Request, session: Session) -> Who:
        """The visitor who asks.

        Raises:
            SignedOut: nobody who is signed in.
        """
        cookie = cookie_of(request, self.kind.cookie)
        found = None
        if cookie is not None:
            found = sessions.find(session, self._seal, self.kind, cookie, self.clock())
        who = None if found is None else self._identify(session, found[0], found[1], self.clock())
        if found is None or who is None:
            raise SignedOut
        request.state.currency = currency.current(session)
        session.expunge_all()  # an error ends the transaction, and its page names the visitor all the same
        request.state.console_session = found[0]
        return who

    def check_form(self, request: Request, who: Who, csrf: str) -> None:
        """Make sure that a form is from this site and of this session.

        Raises:
            APIError: `insufficient_scope`.
        """
        check_origin(request)
        if not hmac.compare_digest(csrf.encode(), who.csrf.encode()):
            raise APIError(ErrorCode.INSUFFICIENT_SCOPE, _OTHER_SESSION)

    def asked(self, request: Request, who: Who, form: Fields) -> ConsoleRequest[Who]:
        """The request as pages and actions see it."""
        query, base_url = read_query(request), str(request.base_url).rstrip("/")
        return ConsoleRequest(who, request.path_params, query, form, self.clock(), base_url)

    def _holds(self, session: Session, row: ConsoleSession, now: int) -> bool:
        """Whether somebody is signed in by this session."""
        return not is_over(row, now) and self._identify(session, row, "", now) is not None

    async def _refused(self, request: Request, message: str) -> Response:
        who = None
        with suppress(SignedOut, APIError, OperatorError):
            who = await self.enter(request)  # whose menu stays
        error = APIError(ErrorCode.NOT_FOUND, message)
        return await asyncio.to_thread(self.answers.failed, request, error, who)

    async def _show_page(self, page: Page[Who], request: Request) -> Response:
        who: Who | None = None
        try:
            who = await self.enter(request)
            self.limit(who, page.cost)
            shown = await self.threads.read(who, partial(self._show, request, page, who))
            if isinstance(shown, Later):
                finish = partial(self._show_built, request, page, who, shown.build)
                shown = await self.threads.do(who, finish)
        except SignedOut:
            return self.answers.to_sign_in(request)
        except (APIError, OperatorError) as error:
            return await asyncio.to_thread(self.answers.failed, request, error, who)
        await self._note_use(request, who)
        return shown

    def _show(self, request: Request, page: Page[Who], who: Who) -> Response | Later:
        with self.database.read() as session:
            built = page.build(self.asked(request, who, Fields()), session)
        return built if isinstance(built, Later) else self._show_built(request, page, who, lambda: built)

    def _show_built(
        self, request: Request, page: Page[Who], who: Who, build: Callable[[], Built]
    ) -> Response:
        built = build()
        if isinstance(built, Response):
            return built
        return self.answers.shown(request, page.template, page.title, built, who)

    async def _act(self, action: Action[Who], request: Request) -> Response:
        who: Who | None = None
        back, asked = "", None
        try:
            who = await self.enter(request)
            self.limit(who, 1)
            form = await read_form(request)
            self.check_form(request, who, form.get("csrf"))
            action.allow(who)
            asked = self.asked(request, who, form)
            back = action.back(asked)
            if action.ask is not None and form.get("confirmed") != "yes":
                question = await self.threads.read(who, partial(action.ask, asked))
                if question is not None:
                    confirm = partial(self._confirm, request, asked, question, back)
                    return await asyncio.to_thread(confirm)
            done = await self.threads.do(who, partial(self._do, request, action, asked))
        except SignedOut:
            return self.answers.to_sign_in(request)
        except (APIError, OperatorError) as error:
            form_again = None if asked is None or action.again is None else action.again(asked, error)
            return await asyncio.to_thread(self.answers.failed, request, error, who, back, None, form_again)
        await self._note_use(request, who)
        return done

    def _do(self, request: Request, action: Action[Who], asked: ConsoleRequest[Who]) -> Response:
        done = action.do(asked)
        if isinstance(done, Done):
            return self.answers.redirect(f"{self.answers.root(request)}{done.to}", done.message)
        return self.answers.shown(request, done.template, done.title, done.values, asked.who)

    def _confirm(
        self, request: Request, asked: ConsoleRequest[Who], question: Question, back: str
    ) -> Response:
        own = ("csrf", "confirmed", "once", "state")
        values: dict[str, Any] = {
            "question": question,
            "fields": [(name, value) for name, value in asked.form.pairs if name not in own],
            "once": secrets.token_urlsafe(16),
            "back": f"{self.answers.root(request)}{back}",
            "to": request.url.path,
        }
        return self.answers.shown(request, "confirm.html", question.title, values, asked.who)

    async def _note_use(self, request: Request, who: Who) -> None:
        """Write down, now and then, that a session is used."""
        row: ConsoleSession = request.state.console_session
        if sessions.is_to_be_noted(row, self.clock()):
            await self.threads.do(who, partial(self._note, row.id))

    def _note(self, id_: str) -> None:
        with suppress(APIError), self.database.write(lock_seconds=1) as session:  # the next use is noted
            kept = session.get(ConsoleSession, id_)
            if kept is not None:
                kept.last_used_at = self.clock()


def check_origin(request: Request) -> None:
    """Make sure that a form was sent by a page of this site.

    Raises:
        APIError: `insufficient_scope`.
    """
    if not is_same_site(request.headers):
        raise APIError(ErrorCode.INSUFFICIENT_SCOPE, _OTHER_SITE)


def address_of(request: Request) -> str:
    """Where a request comes from, for the limits on tries."""
    return "nowhere" if request.client is None else subscriber(request.client.host)
