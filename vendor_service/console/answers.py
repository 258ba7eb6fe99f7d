"""The answers of a site: pages in its look, pages of errors, and ways to other pages."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from shared.errors import APIError, ErrorCode
from shared.http.middleware import cookie_of
from vendor_service.console import rendering
from vendor_service.console.acts import ActForm
from vendor_service.console.routes import Page, Visitor
from vendor_service.console.seal import Seal
from vendor_service.console.sessions import SessionKind
from vendor_service.errors import CommitInDoubt, OperatorError

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
_FLASH_SECONDS = 60
_FIRST = "Begin"  # over the pages that lead
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
    ErrorCode.NOT_FOUND: "It may have been removed, or the address is mistyped. Start at the overview.",
    ErrorCode.INTERNAL_ERROR: "Try again; if it stays, tell the vendor the time and what you did.",
}


class Answers:
    """Makes the answers of one site, whose name is its `title`."""

    def __init__(self, kind: SessionKind, title: str, seal: Seal) -> None:
        self.kind = kind
        self.seal = seal
        self._title = title
        self._menu: list[Page[Any]] = []

    def list_in_menu(self, page: Page[Any]) -> None:
        """List a page in the menu, if it has a place there."""
        if page.menu is not None:
            self._menu.append(page)

    def shown(
        self,
        request: Request,
        template: str,
        title: str,
        values: Mapping[str, Any],
        who: Visitor | None = None,
        status: int = 200,
    ) -> Response:
        """A page as HTML; with its menu, if somebody is signed in."""
        flash = self.seal.open("flash", cookie_of(request, self._flash) or ".")
        currency = getattr(request.state, "currency", None)
        shared = {
            "root": self.root(request),
            "here": request.url.path.removeprefix(self.root(request)),
            "site": self._title,
            "kind": self.kind.name,
            "who": who,
            "title": title,
            "menu": {} if who is None else self._links(request, who),
            "currency": currency,
            "unit": currency or "units of the currency",
            "flash": json.loads(flash) if flash else None,
        }
        response = HTMLResponse(rendering.render(template, {**shared, **values}), status, HEADERS)
        if flash:
            response.delete_cookie(self._flash, path="/", secure=True, httponly=True)
        return response

    def failed(
        self,
        request: Request,
        error: APIError | OperatorError,
        who: Visitor | None = None,
        back: str = "",
        advice: str | None = None,
        form: ActForm | None = None,
    ) -> Response:
        """The page of an error: what is wrong, and what to do next; without `advice`, by its code.

        A `form` that can be mended is shown again, with what was written.
        """
        request.state.error_code = error.code.value
        message = str(error)  # an operator's may begin with a name
        if isinstance(error, APIError):
            message = f"{error.message[:1].upper()}{error.message[1:]}"
        usual = "Go back, change it, and send it again. Nothing was changed."
        advice = advice or _NEXT.get(error.code, usual)
        if isinstance(error, CommitInDoubt):  # its code is that of errors after which nothing was changed
            message, advice = _IN_DOUBT, _AFTER_DOUBT
        values = {"message": message, "next": advice, "back": f"{self.root(request)}{back}", "form": form}
        status = error.code.kind.status
        title = "That did not work" if form is None else form.title
        response = self.shown(request, "error.html", title, values | {"here": back}, who, status)
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

    def begun(self, request: Request, cookie: str) -> Response:
        """Send somebody who signed in to the page that was asked for."""
        after = request.query_params.get("next", "")
        safe = after.startswith("/") and not after.startswith(("//", "/\\", "/sign-", "/invitation"))
        to = f"{quote(after, safe='/?=&%:.-_~')}{'&' if '?' in after else '?'}" if safe else "?"
        response = self.redirect(f"{self.root(request)}{to}begun=1")
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

    def _links(self, request: Request, who: Visitor) -> dict[str, list[dict[str, Any]]]:
        root, here = self.root(request), request.url.path
        groups: dict[str, list[dict[str, Any]]] = {}
        for page in sorted(self._menu, key=lambda each: not each.leads(who)):
            url = f"{root}{page.path}"
            current = here == url or (page.path != "" and here.startswith(f"{url}/"))
            heading = _FIRST if page.leads(who) else str(page.menu)
            groups.setdefault(heading, []).append({"url": url, "title": page.title, "current": current})
        return groups

    @property
    def _flash(self) -> str:
        return f"{self.kind.cookie}-told"
