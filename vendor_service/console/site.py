"""A site: what the pages of customers and those of operators share: who asks, forms, errors, the look."""

import asyncio
import hmac
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode

from fastapi import APIRouter
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from shared.errors import APIError, ErrorCode
from shared.http.middleware import cookie_of
from vendor_service.clock import Clock
from vendor_service.console import rendering, sessions
from vendor_service.console.forms import Fields, read_form, read_query
from vendor_service.console.routes import Action, Asked, Built, Done, Later, Page, Question, Who
from vendor_service.console.seal import Seal
from vendor_service.console.sessions import SessionKind
from vendor_service.database.session import Database
from vendor_service.database.tables import ConsoleSession
from vendor_service.errors import CommitInDoubt, OperatorError
from vendor_service.money import currency

T = TypeVar("T")

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": _POLICY,
    # Not `no-referrer`, under which browsers do not tell where a form comes from.
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
_ASSET_SECONDS = 30 * 86_400
_FLASH_SECONDS = 60
_OTHER_SITE = "this came from another site; open the console in a tab of its own and try again"
_NOT_THIS_SESSION = "this page is of another session; reload it and try again"
# Its own message is for who sends requests, which have keys that make them count once.
_IN_DOUBT = "The vendor's database went away before it said whether this was done; it may have been"
_AFTER_DOUBT = (
    "Before you do it again, look whether it was done: on the page that would show it, "
    "in the ledger or in the audit log."
)
# What to do next, by the code of an error.
_NEXT = {
    ErrorCode.RATE_LIMITED: "Wait a moment, then reload the page.",
    ErrorCode.IDEMPOTENCY_IN_FLIGHT: "Wait a moment, then reload the page.",
    ErrorCode.OVERLOADED: "Nothing was changed. Wait a moment and try again.",
    ErrorCode.NOT_READY: "Nothing was changed. Try again later.",
    ErrorCode.INSUFFICIENT_SCOPE: "Sign in with a key or a token that has this scope, or ask who has one.",
    ErrorCode.ACCOUNT_SUSPENDED: "You can still read everything here. Ask the vendor why.",
    ErrorCode.NOT_FOUND: "It may have been removed, or the address is mistyped. Begin at the overview.",
    ErrorCode.INTERNAL_ERROR: "Try again; if it stays, tell the vendor the time and what you did.",
}


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

    `limit` raises an `APIError` where a visitor asks for pages, or for so costly ones, too fast. A form
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
        self.limit = limit
        self.threads = threads or Threads[Who]()
        self.kind = kind
        self.title = title
        self.database = database
        self.clock = clock
        self.seal = seal
        self._identify = identify
        self._menu: list[tuple[str, Page[Who]]] = []

    def add_pages(self, router: APIRouter, pages: Sequence[Page[Who]]) -> None:
        """Serve pages, and list them in the menu."""
        for page in pages:
            if page.menu is not None:
                self._menu.append((page.menu, page))
            router.add_api_route(
                f"{self.kind.path}{page.path}", self._showing(page), methods=["GET"], response_model=None
            )

    def add_actions(self, router: APIRouter, actions: Sequence[Action[Who]]) -> None:
        """Serve what forms do."""
        for action in actions:
            router.add_api_route(
                f"{self.kind.path}{action.path}", self._doing(action), methods=["POST"], response_model=None
            )

    def add_assets(self, router: APIRouter) -> None:
        """Serve the files that pages load."""

        async def asset(request: Request) -> Response:
            name = request.path_params["name"]
            if name not in rendering.ASSETS:
                return await asyncio.to_thread(
                    self.failed, request, APIError(ErrorCode.NOT_FOUND, "there is no such file")
                )
            headers = {
                "cache-control": f"max-age={_ASSET_SECONDS}, immutable",
                "x-content-type-options": "nosniff",
            }
            return Response(rendering.read_asset(name), media_type=rendering.ASSETS[name], headers=headers)

        router.add_api_route(f"{self.kind.path}/assets/{{name}}", asset, methods=["GET"], response_model=None)

    def add_signing_out(
        self, router: APIRouter, everywhere: Callable[[Session, Who], Sequence[ConsoleSession]]
    ) -> None:
        """Serve the ways out: of this browser, and of all; `everywhere` ends all sessions of a visitor."""

        def leave(asked: Asked[Who]) -> Done:
            with self.database.write() as session:
                if asked.form.get("everywhere"):
                    ended = everywhere(session, asked.who)
                    held = sum(self._holds(session, each, asked.now) for each in ended)
                    return Done(f"{held} sessions were ended, this one included.", "/sign-in")
                sessions.end(session, asked.who.session_id)
                return Done("You are signed out.", "/sign-in")

        action = Action[Who]("/sign-out", "", lambda _: None, leave)
        self.add_actions(router, [action])

    def add_fallback(self, router: APIRouter) -> None:
        """Answer what is no page of this site; the last route."""

        async def nothing(request: Request) -> Response:
            error = APIError(ErrorCode.NOT_FOUND, "there is no such page")
            return await asyncio.to_thread(self.failed, request, error)

        router.add_api_route(f"{self.kind.path}/{{path:path}}", nothing, methods=["GET"], response_model=None)

    # What pages and actions need.

    async def enter(self, request: Request) -> Who:
        """Who asks, looked up beside the event loop; raises what `visitor` does."""

        def look_up() -> Who:
            with self.database.read() as session:
                return self.visitor(request, session)

        return await asyncio.to_thread(look_up)

    def visitor(self, request: Request, session: Session) -> Who:
        """Who asks.

        Raises:
            SignedOut: nobody who is signed in.
        """
        cookie = cookie_of(request, self.kind.cookie)
        found = None
        if cookie is not None:
            found = sessions.find(session, self.seal, self.kind, cookie, self.clock())
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
            raise APIError(ErrorCode.INSUFFICIENT_SCOPE, _NOT_THIS_SESSION)

    def asked(self, request: Request, who: Who, form: Fields) -> Asked[Who]:
        """The request as pages and actions see it."""
        return Asked(
            who,
            request.path_params,
            read_query(request),
            form,
            self.clock(),
            str(request.base_url).rstrip("/"),
        )

    def shown(
        self,
        request: Request,
        template: str,
        title: str,
        values: Mapping[str, Any],
        who: Who | None = None,
        status: int = 200,
    ) -> Response:
        """A page as HTML; with its menu, if somebody is signed in."""
        root = self.root(request)
        flash = self.seal.open("flash", cookie_of(request, self._flash) or ".")
        here = request.url.path
        groups: dict[str, list[dict[str, Any]]] = {}
        for heading, page in self._menu if who is not None else []:
            current = here == f"{root}{page.path}" or (
                page.path != "" and here.startswith(f"{root}{page.path}/")
            )
            link = {"url": f"{root}{page.path}", "title": page.title, "current": current}
            groups.setdefault(heading, []).append(link)
        shared = {"root": root, "site": self.title, "who": who, "title": title, "menu": groups}
        shared["currency"] = named = getattr(request.state, "currency", None)
        shared["unit"] = named or "units of the currency"
        shared |= {"flash": json.loads(flash) if flash else None, "kind": self.kind.name}
        html = rendering.render(template, {**shared, **values})
        response = HTMLResponse(html, status, HEADERS)
        if flash:
            response.delete_cookie(self._flash, path="/", secure=True, httponly=True)
        return response

    def failed(
        self,
        request: Request,
        error: APIError | OperatorError,
        who: Who | None = None,
        back: str = "",
        told: str | None = None,
    ) -> Response:
        """The page of an error: what is wrong, and what to do next; if nothing is `told`, by its code."""
        request.state.error_code = error.code.value
        message = str(error)  # an operator's may begin with a name
        if isinstance(error, APIError):
            message = f"{error.message[:1].upper()}{error.message[1:]}"
        told = told or _NEXT.get(error.code, "Go back, change it, and send it again. Nothing was changed.")
        if isinstance(error, CommitInDoubt):  # its code is that of errors after which nothing was changed
            message, told = _IN_DOUBT, _AFTER_DOUBT
        values = {
            "message": message,
            "next": told,
            "back": f"{self.root(request)}{back}",
        }
        response = self.shown(request, "error.html", "That did not work", values, who, error.code.kind.status)
        if isinstance(error, APIError) and error.retry_after is not None:
            response.headers["retry-after"] = str(error.retry_after)
        return response

    def to_sign_in(self, request: Request) -> Response:
        """Send somebody to sign in, and then back."""
        asked: dict[str, str] = {}
        if request.method == "GET":
            path = request.url.path.removeprefix(self.root(request))
            asked = {"next": path + (f"?{request.url.query}" if request.url.query else "")}
            if "begun" in request.query_params:  # who just signed in, and whose browser kept no cookie
                asked = {"lost": "1"}
        query = f"?{urlencode(asked)}" if any(asked.values()) else ""
        return self.redirect(f"{self.root(request)}/sign-in{query}")

    def redirect(self, to: str, message: str = "") -> Response:
        """Send the browser to another page, which shows the message once."""
        response = RedirectResponse(to, 303, HEADERS)
        if message:
            value = self.seal.close("flash", json.dumps(message))
            response.set_cookie(
                self._flash, value, _FLASH_SECONDS, path="/", secure=True, httponly=True, samesite="lax"
            )
        return response

    def begun(self, request: Request, cookie: str, after: str) -> Response:
        """Send somebody who signed in to the page that was asked for."""
        root = self.root(request)
        safe = after.startswith("/") and not after.startswith(("//", "/\\", "/sign-", "/invitation"))
        separator = "&" if "?" in after else "?"
        response = self.redirect(
            f"{root}{quote(after, safe='/?=&%:.-_~') if safe else ''}{separator if safe else '?'}begun=1"
        )
        same_site: Any = self.kind.same_site
        response.set_cookie(
            self.kind.cookie,
            cookie,
            self.kind.lifetime_seconds,
            path="/",
            secure=True,
            httponly=True,
            samesite=same_site,
        )
        return response

    def root(self, request: Request) -> str:
        """The path of the site's first page."""
        return f"{str(request.scope.get('root_path', '')).rstrip('/')}{self.kind.path}"

    @property
    def _flash(self) -> str:
        return f"{self.kind.cookie}-told"

    def _holds(self, session: Session, row: ConsoleSession, now: int) -> bool:
        """Whether somebody is signed in by this session."""
        return not sessions.is_over(row, self.kind, now) and self._identify(session, row, "", now) is not None

    def _showing(self, page: Page[Who]) -> Callable[[Request], Any]:
        async def show(request: Request) -> Response:
            who: Who | None = None
            try:
                who = await self.enter(request)
                self.limit(who, page.cost)
                shown = await self.threads.read(who, partial(self._show, request, page, who))
                if isinstance(shown, Later):
                    finish = partial(self._show_built, request, page, who, shown.build)
                    shown = await self.threads.do(who, finish)
            except SignedOut:
                return self.to_sign_in(request)
            except (APIError, OperatorError) as error:
                return await asyncio.to_thread(self.failed, request, error, who)
            await self._note_use(request, who)
            return shown

        return show

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
        return self.shown(request, page.template, page.title, built, who)

    def _doing(self, action: Action[Who]) -> Callable[[Request], Any]:
        async def do(request: Request) -> Response:
            who: Who | None = None
            try:
                who = await self.enter(request)
                self.limit(who, 1)
                form = await read_form(request)
                self.check_form(request, who, form.get("csrf"))
                action.allow(who)
                if action.ask is not None and form.get("confirmed") != "yes":
                    ask = partial(self._ask, request, who, action, form, action.ask)
                    return await self.threads.read(who, ask)
                done = await self.threads.do(who, partial(self._do, request, who, action, form))
            except SignedOut:
                return self.to_sign_in(request)
            except (APIError, OperatorError) as error:
                return await asyncio.to_thread(self.failed, request, error, who, self._back(request, action))
            await self._note_use(request, who)
            return done

        return do

    def _ask(
        self,
        request: Request,
        who: Who,
        action: Action[Who],
        form: Fields,
        ask: Callable[[Asked[Who], Session], Question],
    ) -> Response:
        with self.database.read() as session:
            question = ask(self.asked(request, who, form), session)
        return self._confirm(request, who, action, form, question)

    def _do(self, request: Request, who: Who, action: Action[Who], form: Fields) -> Response:
        done = action.do(self.asked(request, who, form))
        if isinstance(done, Done):
            return self.redirect(f"{self.root(request)}{done.to}", done.message)
        return self.shown(request, done.template, done.title, done.values, who)

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

    def _confirm(
        self, request: Request, who: Who, action: Action[Who], form: Fields, question: Question
    ) -> Response:
        own = ("csrf", "confirmed", "once", "state")
        kept = [(name, value) for name, value in form.pairs if name not in own]
        values = {
            "question": question,
            "fields": kept,
            "once": secrets.token_urlsafe(16),
            "back": f"{self.root(request)}{self._back(request, action)}",
            "to": request.url.path,
        }
        return self.shown(request, "confirm.html", question.title, values, who)

    def _back(self, request: Request, action: Action[Who]) -> str:
        back = action.back
        for name, value in request.path_params.items():
            back = back.replace(f"{{{name}}}", quote(str(value), safe=""))
        return back


def check_origin(request: Request) -> None:
    """Make sure that a form was sent by a page of this site.

    Raises:
        APIError: `insufficient_scope`.
    """
    fetched, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if fetched is not None:
        own = fetched in ("same-origin", "none")
    else:
        own = origin is None or origin.partition("://")[2] == request.headers.get("host")
    if not own:
        raise APIError(ErrorCode.INSUFFICIENT_SCOPE, _OTHER_SITE)


def address_of(request: Request) -> str:
    """Where a request comes from, for the limits on tries."""
    return "nowhere" if request.client is None else request.client.host
