"""Attacks on a vendor at any URL, one's own: they break nothing, and buy next to nothing.

Each is a function that tells how far it came; its limit is what the promise allows. `Deployment` is whom they
attack, with the key of a customer and, if there is one, of another.
"""

import json
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from typing import Any
from urllib.parse import urlsplit

import httpx

from client.proofs.isolation import IsolationTest
from client.vendors.teachers.tuition import VendorClient
from tests.support.figures import Figure
from tests.vendor_service.hostile_bodies import BODIES
from vendor_service.console.sessions import CUSTOMERS

_MEBIBYTE = 2**20
_PATHS = (
    "/embed",
    "/v1/embeddings",
    "/v1/estimate",
    "/no/such/path",
    "/livez",
    "/v1/files",
    "/console/sign-in",
)
_CAT = {"inputs": [{"text": "a photo of a cat"}]}
# No model has it, so nothing is sold, whatever it costs.
_SELL_NOTHING = {"x-expect-fingerprint": "fp_none", "x-max-cost-micros": "0"}
_CODES = {*range(400, 432), 501, 503}  # of the contract; 500 and 502 are slips
_CUT_OFF = (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError)
_SIZES = (1024, 16_384, 262_144, 1_048_576)


class NotOffered(Exception):
    """The vendor does not have what would be attacked."""


@dataclass
class Deployment:
    """A vendor, and one or two customers of it, each an account of its own."""

    url: str
    key: str
    other: str | None = None

    @cached_property
    def http(self) -> httpx.Client:
        """Connections for whole requests."""
        return httpx.Client(base_url=self.url, timeout=60, headers={"user-agent": "tuition-scoreboard"})

    def ask(self, method: str, path: str, key: str | None = None, **more: Any) -> httpx.Response:  # noqa: ANN401 (httpx's)
        """Ask as somebody with a key, or as nobody."""
        headers = more.pop("headers", {}) | ({"authorization": f"Bearer {key}"} if key else {})
        return self.http.request(method, path, headers=headers, **more)

    @contextmanager
    def connected(self) -> Iterator[socket.socket]:
        """A bare connection."""
        parts = urlsplit(self.url)
        host, secure = parts.hostname or "", parts.scheme == "https"
        with socket.create_connection((host, parts.port or (443 if secure else 80)), 30) as bare:
            bare.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
            if secure:
                with ssl.create_default_context().wrap_socket(bare, server_hostname=host) as wrapped:
                    yield wrapped
            else:
                yield bare

    def poured(self, start: str, piece: bytes, most: int = 8 * _MEBIBYTE) -> float:
        """Send a beginning, then a piece again and again until it is answered or cut off: how many MiB."""
        host = urlsplit(self.url).netloc
        with self.connected() as connection:
            connection.sendall(start.format(host=host).encode())
            sent = 0
            connection.settimeout(0.05)
            while sent < most:
                with suppress(TimeoutError):
                    try:
                        connection.sendall(piece)
                        sent += len(piece)
                        connection.recv(1)
                        break
                    except (ConnectionError, ssl.SSLError):
                        break
            return sent / _MEBIBYTE


Attack = Callable[[Deployment], float]


@dataclass(frozen=True)
class Probe:
    """An attack, how the promise begins that it tests, its limit, and how many queries it may buy."""

    name: str
    what: str
    promise: str
    limit: float
    unit: str
    attack: Attack
    queries: int
    accounts: int

    def try_on(self, deployment: Deployment) -> Figure:
        """Attack, and say how far it came.

        Raises:
            NotOffered: there is nothing to attack.
        """
        if self.accounts == 2 and deployment.other is None:
            raise NotOffered("it takes the key of another account")
        return Figure(self.attack(deployment), self.limit, self.unit)


PROBES: dict[str, Probe] = {}


def _probe(
    promise: str, limit: float, unit: str, *, queries: int = 0, accounts: int = 1
) -> Callable[[Attack], Attack]:
    def register(attack: Attack) -> Attack:
        name = getattr(attack, "__name__", "")
        what = (attack.__doc__ or "").partition("\n")[0].rstrip(".")
        PROBES[name] = Probe(name, what, promise, limit, unit, attack, queries, accounts)
        return attack

    return register


@_probe("No body is read beyond", 1.0, "MiB")
def endless_body(vendor: Deployment) -> float:
    """A body without end and without a key, on paths that are and that are not."""
    rest = "content-type: application/json\r\n\r\n"
    return max(
        vendor.poured(f"POST {path} HTTP/1.1\r\nhost: {{host}}\r\n{how}\r\n{rest}", piece)
        for path in _PATHS
        for how, piece in (
            (f"content-length: {2**32}", bytes(16_384)),
            ("transfer-encoding: chunked", b"4000\r\n" + bytes(16_384) + b"\r\n"),
        )
    )


@_probe("Connections, heads and unread answers", 1.0, "MiB")
def endless_head(vendor: Deployment) -> float:
    """A head without end."""
    return max(
        vendor.poured("GET / HTTP/1.1\r\nhost: {host}\r\n", b"x-a: " + b"b" * 4000 + b"\r\n"),
        vendor.poured("GET /", b"a" * 4096),
    )


@_probe("Cookies are split", 1.0, "s")
def slow_cookie(vendor: Deployment) -> float:
    """A cookie of 30,000 escapes, which older Pythons take seconds to undo."""
    headers = {"cookie": 'a="' + "\\134" * 7500 + '"'}
    paths = ("/console", "/embed", "/livez")
    return max(_seconds(partial(vendor.ask, "GET", path, headers=headers)) for path in paths)


@_probe("A key cannot be guessed", 0, "let in")
def altered_keys(vendor: Deployment) -> float:
    """Keys that are nearly right: cut, longer, in capitals, of another's id, and none."""
    start, _, secret = vendor.key.rpartition("_")
    turned = secret[:-1] + ("0" if secret[-1] != "0" else "1")
    tried = [f"{start}_{each}" for each in (turned, secret[:-1], secret + "0", secret.upper(), "0" * 48, "")]
    tried += ["tk_0123456789abcdef_" + secret, vendor.key.replace("_", "-"), secret, "Bearer"]
    return sum(vendor.ask("GET", "/v1/account", key).status_code != 401 for key in tried if key != vendor.key)


@_probe("Every request ends in an answer", 0, "wrong answers")
def hostile_bodies(vendor: Deployment) -> float:
    """The worst bodies that we know of, in four sizes, by nobody, with a forged key, and by each customer."""
    wrong = 0
    forged = "tk_0123456789abcdef_" + "0" * 48
    keys = [None, forged, vendor.key, *([vendor.other] if vendor.other else [])]
    for hostile, size in product(BODIES.values(), _SIZES):
        body = hostile.make(size)
        for key in keys:
            headers = {"content-type": hostile.content_type} | _SELL_NOTHING
            try:
                answer = vendor.ask("POST", hostile.path, key, content=body, headers=headers)
            except _CUT_OFF:
                continue  # as whoever sends more than may be
            wrong += answer.status_code not in _CODES or not _is_error(answer)
    return wrong


@_probe("Every request ends in an answer", 0, "queries charged")
def refused_and_charged(vendor: Deployment) -> float:
    """Requests that cannot be served; whether any was charged."""
    before = vendor.ask("GET", "/v1/account", vendor.key).json()["queries_used"]
    picture = {"image": "iVBORw0KGgo="}
    for body in (
        b"",
        b"{}",
        b'{"inputs": []}',
        json.dumps({"inputs": [picture]}).encode(),
        json.dumps({"inputs": [*_CAT["inputs"], picture]}).encode(),
        json.dumps(_CAT | {"model": "none"}).encode(),
        json.dumps({"inputs": _CAT["inputs"] * 100_000}).encode(),
    ):
        headers = {"content-type": "application/json"}
        vendor.ask("POST", "/embed", vendor.key, content=body, headers=headers)
    for name, value in _SELL_NOTHING.items():
        vendor.ask("POST", "/embed", vendor.key, json=_CAT, headers=_SELL_NOTHING | {name: value})
    return float(vendor.ask("GET", "/v1/account", vendor.key).json()["queries_used"] - before)


@_probe("Bodies are refused at the first byte", 3.0, "s")
def worst_bodies(vendor: Deployment) -> float:
    """The worst bodies of four mebibytes; the slowest answer."""
    slowest = 0.0
    for hostile in BODIES.values():
        body = hostile.make(4 * _MEBIBYTE)
        headers = {"content-type": hostile.content_type} | _SELL_NOTHING
        ask = partial(vendor.ask, "POST", hostile.path, vendor.key, content=body, headers=headers)
        slowest = max(slowest, _seconds(ask))
    return slowest


@_probe("Nobody sees another account's", 0, "walls broken", accounts=2)
def others_things(vendor: Deployment) -> float:
    """`client isolation-test`: the other customer tries to see and to touch what the first one has."""
    with VendorClient(vendor.url, vendor.key) as first, VendorClient(vendor.url, vendor.other) as other:
        found = IsolationTest(first, other).run()
    if not any(each.outcome == "held" for each in found.attempts):
        raise NotOffered("there was nothing to try")
    return sum(each.outcome == "broken" for each in found.attempts)


@_probe("Nobody sees another account's", 0, "answered", queries=2, accounts=2)
def others_idempotency_key(vendor: Deployment) -> float:
    """The same request under one idempotency key by two accounts: the second one's is its own."""
    once = {"idempotency-key": secrets.token_hex(16)}
    answers = [
        vendor.ask("POST", "/embed", key, json=_CAT, headers=once) for key in (vendor.key, vendor.other)
    ]
    if not answers[0].is_success:
        raise NotOffered(f"the first one was refused ({answers[0].status_code})")
    first, second = (answer.json() for answer in answers)
    return float(second.get("replayed", False) or first["id"] == second.get("id"))


@_probe("No session begins without a valid key", 0, "let in")
def forged_sessions(vendor: Deployment) -> float:
    """Cookies of sessions that never began, on the console's pages."""
    _console(vendor)
    values = ("", "0", "a.b.c", vendor.key, secrets.token_hex(32), f"{vendor.key.split('_')[1]}.{'0' * 64}")
    tried = product(values, ("/console", "/console/keys", "/console/ledger"))
    return sum(
        vendor.ask("GET", path, headers={"cookie": f"{CUSTOMERS.cookie}={value}"}).is_success
        for value, path in tried
    )


@_probe("A form needs its session's token", 0, "lapses")
def foreign_forms(vendor: Deployment) -> float:
    """Forms from another site, and pages that another site may frame or that load from elsewhere."""
    page = _console(vendor)
    policy = page.headers.get("content-security-policy", "")
    lapses = sum(each not in policy for each in ("frame-ancestors 'none'", "default-src 'none'"))
    lapses += "unsafe" in policy
    for origin in ("https://evil.example", "null", "http://["):
        answer = vendor.ask("POST", "/console/sign-in", data={"key": vendor.key}, headers={"origin": origin})
        lapses += answer.status_code != 403
    # From its own site it is read: that the key is wrong is another answer.
    return lapses + (vendor.ask("POST", "/console/sign-in", data={"key": "none"}).status_code != 401)


@_probe("A token does what its scopes say", 0, "answered")
def operators_paths(vendor: Deployment) -> float:
    """What is for operators, asked by a customer and by nobody at the customers' address."""
    paths = ("/admin/accounts", "/admin/audit", "/admin/prices", "/admin", "/admin/console")
    asked = product(("GET", "POST"), paths, (None, vendor.key, "ot_0123456789abcdef_" + "0" * 48))
    return sum(vendor.ask(method, path, key).is_success for method, path, key in asked)


def _console(vendor: Deployment) -> httpx.Response:
    page = vendor.ask("GET", "/console/sign-in")
    if page.status_code == 404:
        raise NotOffered("there is no console")
    return page


def _is_error(answer: httpx.Response) -> bool:
    try:
        return bool(answer.json()["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return False


def _seconds(ask: Callable[[], httpx.Response]) -> float:
    began = time.perf_counter()
    with suppress(*_CUT_OFF):
        ask()
    return time.perf_counter() - began
