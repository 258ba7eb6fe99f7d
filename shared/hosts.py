"""Names and addresses of machines, and whether a web page of another one has a browser ask."""

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address

# A name or an address, and perhaps a port (RFC 9110, section 7.2).
_AUTHORITY = re.compile(r"(\[[\w:.%]+\]|[\w.~%!$&'()*+,;=-]+)(?::[0-9]*)?", re.ASCII)
# Proxies add these. With `X-Forwarded-For`, the server has put the caller's address in the place of theirs.
_BY_PROXIES = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")


def address(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a host is written as, in brackets or not; `None` for a name.

    Of IPv6, which of this machine's networks it is on (`%eth0`) is left out. Where a server listens for both
    versions, a caller of IPv4 is written `::ffff:192.0.2.7`, and is meant.
    """
    try:
        at = ip_address(host.removeprefix("[").removesuffix("]").partition("%")[0])
    except ValueError:
        return None
    return (at.ipv4_mapped or at) if at.version == 6 else at


def is_loopback(host: str) -> bool:
    """Whether a host is this machine as only itself reaches it."""
    name, written = host.lower().rstrip("."), address(host)
    return name == "localhost" or name.endswith(".localhost") or (written is not None and written.is_loopback)


def subscriber(host: str) -> str:
    """Whose address it is, as far as it tells: of IPv6 its network, since one has 2^64 addresses and more."""
    at = address(host)
    if at is None:
        return host
    return str(at) if at.version == 4 or at.is_loopback else f"{at.exploded[:19]}::/64"


def name_in(authority: str) -> str | None:
    """The name or address of a `Host`, in lower case; `None` if it is not written as one must be."""
    written = _AUTHORITY.fullmatch(authority.lower())
    return None if written is None else written[1].rstrip(".")


def is_passed_on(headers: Mapping[str, str]) -> bool:
    """Whether a proxy has added a header to a request. Not all do, unless they are told to."""
    return any(name in headers for name in _BY_PROXIES)


def is_same_site(headers: Mapping[str, str]) -> bool:
    """Whether a request comes from a page of the very host and port that it asks, or from no page.

    A browser says where a page is from, and no page can have it say otherwise. Programs do not say anything.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site in ("same-origin", "none")
    return origin is None or origin.lower().partition("://")[2] == headers.get("host", "").lower()
