"""The names of a served student: what a web page from elsewhere has a browser ask of it is refused."""

import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from shared.errors import APIError, ErrorCode
from shared.hosts import address

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_LONGEST_SHOWN = 100


class HostCheck:
    """Tells whether a request may be a foreign page's.

    A page whose own name leads to this machine (DNS rebinding) shows in the `Host` that its browser sends: it
    must be an address, a name without a dot, which no stranger has, or one of ours. What changes something or
    costs something must come from a page of this host, or from no browser. Programs as curl send no `Origin`.

    Args:
        names: further names of this server.
        any_host: whether callers have keys, so that a page without one gets nothing under any name.
    """

    def __init__(self, names: Iterable[str], *, any_host: bool = False) -> None:
        self._names = {each.lower() for each in (*names, socket.gethostname())}
        self._any_host = any_host

    def refusal(self, scope: Scope) -> APIError | None:
        """Why a request is refused; `None` if it is not."""
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if not self._any_host and not self._is_ours(_name_of(f"//{host}")):
            return _error("host", "this server does not know itself by the Host", host)
        origin = headers.get("origin")
        if scope["method"] in _SAFE or self._is_same_site(headers.get("sec-fetch-site"), origin, host):
            return None
        return _error("origin", "this server takes nothing from pages of", origin or "another site")

    def _is_ours(self, name: str) -> bool:
        plain = "." not in name or name.endswith(".localhost") or address(name) is not None
        return plain or name in self._names

    def _is_same_site(self, site: str | None, origin: str | None, host: str) -> bool:
        if site in ("same-origin", "none"):  # a browser says so, and no page can
            return True
        if origin is None:
            return site is None
        return origin.lower() in (f"http://{host}", f"https://{host}") or _name_of(origin) in self._names


def _name_of(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return "."


def _error(what: str, why: str, which: str) -> APIError:
    message = f"{why} {which[:_LONGEST_SHOWN]!r}; if that is its name, start it with --allow-host NAME"
    return APIError(ErrorCode.INVALID_REQUEST, message, param=what)
