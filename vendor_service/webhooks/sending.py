"""Sending: one POST to one receiver, at an address that was looked at before, with a bound on its time."""

import ipaddress
import logging
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from shared.text import visible
from vendor_service.webhooks.networks import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_STEP_SECONDS = 10.0  # for each thing that is waited for
_MOST_SECONDS = 15.0  # for all of it, from the look-up on
# Of IPv6, the addresses that are given out to be reached from everywhere: IPv4 ones in any of their forms
# (mapped, NAT64) are outside of it.
_UNICAST = ipaddress.ip_network("2000::/3")
# These are never asked, whatever this Python's `ipaddress` knows: IANA's special-purpose registries as of
# 2026, and the address at which Azure answers its machines. Those of other clouds are among them
# (169.254.169.254, 100.100.100.200, 192.0.0.192) or no unicast of IPv6 (fd00:ec2::254).
_NOT_REACHED = tuple(
    map(
        ipaddress.ip_network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
            *("192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24"),
            *("192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
            *("224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32"),
            # Teredo, benchmarks and ORCHID; documents; 6to4; AS112; documents.
            *("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20"),
        ),
    )
)
_NOT_PUBLIC = "no address on the public network was found for this host"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a try: the receiver's `status`, or why there was none."""

    status: int | None
    error: str | None
    milliseconds: int

    @property
    def delivered(self) -> bool:
        """Whether the receiver has taken it."""
        return self.status is not None and 200 <= self.status < 300


class NotAllowed(Exception):
    """A receiver is where none may be."""


def send(url: str, body: bytes, headers: Mapping[str, str], private: Sequence[Network] | None) -> Outcome:
    """POST a body. A host on a network that is not public is refused unless `private` has it.

    With `None` the receiver is a customer's: `error` does not tell what a name stands for here, but the log.

    The host's name is resolved once, and what was resolved is connected to: a name that points elsewhere the
    next moment gains nothing. No redirect is followed.
    """
    began = time.monotonic()
    status, error = None, None
    try:
        status = _post(url, body, headers, private, began + _MOST_SECONDS)
    except NotAllowed as refused:
        error = str(refused)
    except (OSError, HTTPException, ValueError) as failure:
        error = f"{type(failure).__name__}: {failure}"
    return Outcome(
        status, None if error is None else visible(error)[:255], round(1000 * (time.monotonic() - began))
    )


def _post(
    url: str, body: bytes, headers: Mapping[str, str], private: Sequence[Network] | None, until: float
) -> int:
    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    connected = _connect(_look_up(host, port, private, until, secure=secure), port, until)
    # Whoever answers a byte now and then would be waited for without end. What cuts has a handle of its own
    # on the connection, since TLS makes another socket of the one that it is given.
    kept = connected.dup()
    deadline = threading.Timer(max(0.0, until - time.monotonic()), _cut, [kept])
    deadline.daemon = True
    deadline.start()
    connection = (HTTPSConnection if secure else HTTPConnection)(host, port, timeout=_STEP_SECONDS)
    try:
        connection.sock = (
            ssl.create_default_context().wrap_socket(connected, server_hostname=host) if secure else connected
        )
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, body, dict(headers))
        return connection.getresponse().status
    finally:
        deadline.cancel()
        connection.close()
        connected.close()
        kept.close()


def _connect(addresses: Sequence[Address], port: int, until: float) -> socket.socket:
    for address in addresses[:-1]:
        with suppress(OSError):  # as of an IPv6 address where there is no IPv6
            return _connect_to(address, port, until)
    return _connect_to(addresses[-1], port, until)


def _connect_to(address: Address, port: int, until: float) -> socket.socket:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return socket.create_connection((str(address), port), min(left, _STEP_SECONDS))


def _cut(connected: socket.socket) -> None:
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


def _look_up(
    host: str, port: int, private: Sequence[Network] | None, until: float, *, secure: bool
) -> list[Address]:
    """As `_resolve`, but private and unknown names look the same to a customer."""
    if private is not None:
        return _resolve(host, port, private, until, secure=secure)
    try:
        return _resolve(host, port, (), until, secure=secure)
    except (NotAllowed, OSError, ValueError) as error:
        _log.warning("a customer's webhook was not sent to %s: %s", visible(host), visible(str(error)))
        raise NotAllowed(_NOT_PUBLIC) from error


def _resolve(
    host: str, port: int, private: Sequence[Network], until: float, *, secure: bool
) -> list[Address]:
    """The addresses to connect to, up to two of them.

    Raises:
        NotAllowed: one of the host's addresses is not public, and not allowed either.
        OSError: the name is not known, or not in time.
    """
    addresses = _addresses(host, port, until)
    for address in addresses:
        allowed = any(address in network for network in private if network.version == address.version)
        if not allowed and not _is_public(address):
            raise NotAllowed(
                f"{host} is {address}, which is not on the public network; allow it by "
                "VENDOR_WEBHOOK_PRIVATE_NETWORKS if it is meant"
            )
        if not allowed and not secure:
            raise NotAllowed("events go over plain http to allowed private networks alone; use https")
    return list(dict.fromkeys(addresses))[:2]


def _addresses(host: str, port: int, until: float) -> list[Address]:
    """All addresses of the host. The system's look-up has no time-out: a thread that can be left does it."""
    found: Future[list[Any]] = Future()

    def look_up() -> None:
        try:
            found.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:
            found.set_exception(error)

    threading.Thread(target=look_up, name="webhook-look-up", daemon=True).start()
    try:
        entries = found.result(max(0.0, until - time.monotonic()))
    except TimeoutError as error:
        raise TimeoutError(f"the look-up of {host} timed out") from error
    return [ipaddress.ip_address(str(sockaddr[0]).partition("%")[0]) for *_, sockaddr in entries]


def _is_public(address: Address) -> bool:
    if address.version == 6 and address not in _UNICAST:
        return False
    return address.is_global and not any(address in network for network in _NOT_REACHED)
