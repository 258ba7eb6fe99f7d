"""The names of a served student: what a web page from elsewhere has a browser ask of it is refused."""

import socket
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import Scope

from shared.errors import APIError, ErrorCode
from shared.hosts import address, is_same_site, name_in

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
        host = headers.get("host", "")
        if not self._any_host and not self._is_ours(name_in(host)):
            message = (
                f"this server does not answer to the Host {host[:_LONGEST_SHOWN]!r}; if that is its "
                "name, start it with --allow-host NAME"
            )
            return APIError(ErrorCode.INVALID_REQUEST, message, param="host")
        if scope["method"] in _SAFE or is_same_site(headers):
            return None
        site = headers.get("origin", "another site")[:_LONGEST_SHOWN]
        message = (
            f"this server accepts nothing from pages of {site!r}; a proxy before it must pass on the Host"
        )
        return APIError(ErrorCode.INVALID_REQUEST, message, param="origin")

    def _is_ours(self, name: str | None) -> bool:
        if name is None:
            return False
        plain = "." not in name or name.endswith(".localhost") or address(name) is not None
        return plain or name in self._names
