"""The network's edge, where the real vendor's answers are lost, garbled and held up."""

from collections.abc import Callable, Iterator

import httpx

from shared.errors import ErrorBody, ErrorCode, ErrorDetail


class FaultyEdge(httpx.BaseTransport):
    """Passes requests on to the vendor, but for the first ones to `/embed`, each of which has a step."""

    def __init__(self, network: httpx.BaseTransport, *steps: "Step") -> None:
        self.steps = list(steps)
        self.embeds = 0
        self._network = network  # closed by who gave it
        self._late: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path != "/embed":
            return self._network.handle_request(request)
        self.embeds += 1
        late, self._late = self._late, []
        try:
            return self.steps.pop(0)(self, request) if self.steps else self.serve(request)
        finally:
            for each in late:
                self.serve(each)

    def serve(self, request: httpx.Request) -> httpx.Response:
        """The vendor's own answer, whole."""
        headers = [each for each in request.headers.multi_items() if each[0] != "content-length"]
        again = httpx.Request(request.method, request.url, headers=headers, content=request.content)
        answer = self._network.handle_request(again)
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.read())

    def serve_later(self, request: httpx.Request) -> None:
        """Let the vendor answer it only once the next request was answered."""
        self._late.append(request)


Step = Callable[[FaultyEdge, httpx.Request], httpx.Response]


def _raising(error: httpx.RequestError, *, served: bool, sent: bool = True) -> Step:
    def step(edge: FaultyEdge, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.SyncByteStream)
        pieces = iter(request.stream)
        next(pieces)
        for _ in pieces if sent else ():
            pass
        if served:
            edge.serve(request)
        raise error

    return step


def _answering(make: Callable[[httpx.Response], httpx.Response]) -> Step:
    def step(edge: FaultyEdge, request: httpx.Request) -> httpx.Response:
        return make(edge.serve(request))

    return step


def refusing(code: str, status: int) -> Step:
    """The contract's error of this code; the vendor never hears of the request."""
    detail = ErrorDetail(code=code, type="t", message="no", request_id=f"req_{code}", retryable=False)
    body = ErrorBody(error=detail).model_dump()
    return lambda _edge, _request: httpx.Response(status, json=body)


def _price_raised(edge: FaultyEdge, request: httpx.Request) -> httpx.Response:
    """The contract's answer to a price that was lower; whether it was paid for, the vendor itself says."""
    if request.headers["x-max-cost-micros"] == "0":
        return edge.serve(request)
    return refusing("max_cost_exceeded", 402)(edge, request)


def _not_connected(_edge: FaultyEdge, _request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


def _served_late(edge: FaultyEdge, request: httpx.Request) -> httpx.Response:
    edge.serve_later(request)
    raise httpx.ReadTimeout("nothing came")


def _html(status: int) -> Callable[[httpx.Response], httpx.Response]:
    return lambda _: httpx.Response(status, html="<html>Bad gateway</html>")


class _Endless(httpx.SyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        while True:
            yield bytes(2**20)


def _endless(answer: httpx.Response) -> httpx.Response:
    kept = {"content-type": answer.headers["content-type"]} if answer.is_success else {}
    return httpx.Response(200, headers=kept, stream=_Endless())


def _not_finite(answer: httpx.Response) -> httpx.Response:
    return httpx.Response(answer.status_code, headers=answer.headers, content=b"\xff" * len(answer.content))


FIRST: dict[str, Step] = {
    "refused": refusing("quota_exhausted", 402),
    "connection refused": _not_connected,
    "cut while sent": _raising(httpx.WriteError("cut"), served=False, sent=False),
    "cut before it was served": _raising(httpx.ReadError("cut"), served=False),
    "served and cut": _raising(httpx.ReadError("cut"), served=True),
    "timeout": _raising(httpx.ReadTimeout("slow"), served=True),
    "served only after the second try": _served_late,
    "502 after serving": _answering(_html(502)),
    "503 after serving": _answering(_html(503)),
    "garbage": _answering(_html(200)),
    "too large": _answering(_endless),
    "not finite": _answering(_not_finite),
}
# What says that a key is spent is said of no key that a vendor would still answer: it has a test of its own.
_SPENT = {
    ErrorCode.IDEMPOTENCY_KEY_REUSED,
    ErrorCode.IDEMPOTENCY_KEY_EXPIRED,
    ErrorCode.REPLAYS_EXHAUSTED,
    ErrorCode.CHARGE_REFUNDED,
}
SECOND: dict[str, Step] = {
    **{
        f"{code.kind.status} {code}": refusing(code, code.kind.status)
        for code in ErrorCode
        if code not in _SPENT
    },
    "402 max_cost_exceeded": _price_raised,
    "400 of a code that is new": refusing("something_new", 400),
    "413 of a proxy": lambda _edge, _request: httpx.Response(413, html="<html>too large</html>"),
    "403 of a proxy": lambda _edge, _request: httpx.Response(403, html="<html>no</html>"),
    "cut": _raising(httpx.ReadError("cut"), served=False),
    "served and cut": _raising(httpx.ReadError("cut"), served=True),
}
