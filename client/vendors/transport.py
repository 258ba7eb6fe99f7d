"""Requests over HTTP, sent until they are answered for good; the only place that knows httpx's errors."""

import math
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, BinaryIO, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from client.errors import (
    ClientError,
    RequestRefused,
    SpendingStopped,
    UsageError,
    VendorError,
    VendorUnreachable,
)

DEFAULT_URL = "http://127.0.0.1:8000"
RETRIED = frozenset({408, 409, 429, 500, 502, 503, 504})
PUSHED_BACK = frozenset({429, 503})
TRIES = 5
FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
# Seconds from the first failure in which a vendor may be restarted during a purchase.
PATIENCE = 60.0
_TELL_EVERY = 5.0
# Whatever a vendor says, it is asked again within this many seconds.
_LONGEST_RETRY_AFTER = 300
# The longest answer that is read to its end, in bytes, and an error's. An embed request has its own.
ANSWER_BYTES = 8 * 2**20
_ERROR_BYTES = 2**16
# An answer is given up that brings less than this many bytes in this many times the wait for one that does
# not come at all.
_TRICKLES, _STEADY = 5, 2**20
_PIECE = 2**16
# As many connections stay open as requests are ever in flight.
_KEPT_ALIVE = 16

Model = TypeVar("Model", bound=BaseModel)


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Hooks:
    """Callbacks while one request is sent, in the thread that sends it.

    Attributes:
        on_try: before each try.
        on_push_back: whenever the vendor says that it is asked too much (429, 503).
        on_unsure: before what may have been served all the same is sent again; it raises to stop.
    """

    on_try: Callable[[], None] = field(default=_nothing, repr=False)
    on_push_back: Callable[[], None] = field(default=_nothing, repr=False)
    on_unsure: Callable[[], None] = field(default=_nothing, repr=False)


NO_HOOKS = Hooks()


class AnswerTooLong(VendorError):
    """A success that is longer than it can be, or compressed; `headers` are all that was read of it."""

    def __init__(self, headers: httpx.Headers, message: str) -> None:
        super().__init__(message)
        self.headers = headers


class _Failed(Exception):
    """One try that failed.

    Attributes:
        error: what to raise if it was the last.
        unsure: whether it may have been served all the same.
        why: the reason in words.
        status: the answer's; `None` where nothing answered.
        retry_after: the seconds for which the vendor wants to be left alone.
    """

    def __init__(
        self, error: ClientError, *, unsure: bool, why: str, answer: httpx.Response | None = None
    ) -> None:
        super().__init__(why)
        self.error = error
        self.unsure = unsure
        self.why = why
        self.status = None if answer is None else answer.status_code
        self.retry_after = 0 if answer is None else _seconds(answer.headers.get("retry-after"))

    @property
    def is_final(self) -> bool:
        """Whether another try cannot help."""
        if self.status is None:
            return False
        return self.status not in RETRIED or isinstance(self.error, RequestRefused | SpendingStopped)


class HttpTransport:
    """One address and one key. Thread-safe.

    Connection errors and the statuses 408, 409, 429, 500, 502, 503 and 504 are tried again, with exponential
    backoff, full jitter and the vendor's `Retry-After`. Everything else is raised at once.

    Nothing is believed of an answer: it is read up to a limit, and not at all where it is compressed.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None,
        *,
        as_error: Callable[[httpx.Response, str], ClientError],
        transport: httpx.BaseTransport | None,
        timeout: float,
        on_wait: Callable[[str], None],
        doubt_lasts: bool = True,
        trace_headers: Callable[[], Mapping[str, str]] = dict,
        auth: httpx.Auth | None = None,
    ) -> None:
        """Connect to nothing yet; the arguments that are not here are those of `HttpVendor`.

        Args:
            as_error: makes an answer that is no success, from this address, one of the client's errors, and
                says by its `unsure` whether the request may have been served all the same.
            doubt_lasts: whether an error is `unsure` if an earlier try of the request was; otherwise
                `Hooks.on_unsure` settles that.
            auth: signs requests, in place of the key.

        Raises:
            UsageError: this is no URL, or no key.
        """
        self.url = url.rstrip("/")
        self._as_error = as_error
        self._stopping = threading.Event()
        self._on_wait = on_wait
        self._trace_headers = trace_headers
        self._told_at = -math.inf
        self._doubt_lasts = doubt_lasts
        self._timeout = timeout
        self._http = httpx.Client(
            base_url=_checked(self.url),
            # Bytes that unpack to gigabytes are not accepted.
            headers={"accept-encoding": "identity", **({} if auth else _authorization(api_key))},
            auth=auth,
            transport=transport,
            timeout=_timeouts(timeout),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=_KEPT_ALIVE),
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def is_at(self, url: str) -> bool:
        """Whether this is another way to write the address."""
        try:
            return httpx.URL(url.rstrip("/")) == httpx.URL(self.url)
        except httpx.InvalidURL:
            return False

    def stop(self) -> None:
        """Make requests that wait to be tried again give up now."""
        self._stopping.set()

    def send(
        self,
        method: str,
        path: str,
        *,
        tries: int | None = None,
        timeout: float | None = None,
        patience: float = 0.0,
        most_bytes: int = ANSWER_BYTES,
        hooks: Hooks = NO_HOOKS,
        body: "FileBody | None" = None,
        to: BinaryIO | None = None,
        **request: Any,  # noqa: ANN401 (httpx's own)
    ) -> httpx.Response:
        """Send until it is answered for good.

        Args:
            tries: the most tries (default: `TRIES`), or as many as `patience` allows if these are more.
            timeout: seconds to wait for this answer, where it is not as long as for others.
            patience: seconds from the first failure.
            most_bytes: the longest answer that makes sense.
            hooks: what to call meanwhile.
            body: what is sent, where that is a file.
            to: the file to which a successful answer is written, from its beginning.

        Raises:
            VendorUnreachable: nothing answered, or not to its end.
            AnswerTooLong: a success was longer than that.
            ClientError: what `as_error` makes of an answer that is no success.
        """
        seconds = self._timeout if timeout is None else timeout
        headers = {**request.pop("headers", {}), **self._trace_headers()}

        def attempt() -> httpx.Response:
            sent = self._http.build_request(
                method, path, headers=headers, timeout=_timeouts(seconds), **request
            )
            sent.stream = pieces = _Pieces(sent.content) if body is None else body
            try:
                answer = self._receive(sent, to, most_bytes, _TRICKLES * seconds)
            except httpx.RequestError as error:
                # What did not leave this machine whole was not served.
                unsent = pieces.cut or isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                raise self._unreachable(error, unsure=not unsent) from error
            if not answer.is_success:
                raise self._refused(answer)
            return answer

        return self._persist(attempt, TRIES if tries is None else tries, patience, hooks)

    def _persist(
        self, attempt: Callable[[], httpx.Response], tries: int, patience: float, hooks: Hooks
    ) -> httpx.Response:
        """Try until it succeeds, cannot succeed, or was tried often and long enough."""
        deadline, tried, doubt = math.inf, 0, False
        while True:
            tried += 1
            hooks.on_try()
            try:
                return attempt()
            except _Failed as failure:
                doubt |= failure.unsure
                deadline = min(deadline, time.monotonic() + patience)
                if failure.is_final or (tried >= tries and time.monotonic() >= deadline):
                    raise _sure_or_not(failure.error, doubt) from failure.__cause__
                if failure.status in PUSHED_BACK:
                    hooks.on_push_back()
                self._wait(tried, failure, unsure=doubt)
                if failure.unsure:
                    hooks.on_unsure()
                    doubt = self._doubt_lasts

    def _wait(self, tried: int, failure: _Failed, *, unsure: bool) -> None:
        delay = random.uniform(0, min(LONGEST_DELAY, FIRST_DELAY * 2 ** (tried - 1))) + failure.retry_after
        # Said when it takes a while, and not by each of the requests in flight.
        if delay > 1 and time.monotonic() - self._told_at > _TELL_EVERY:
            self._told_at = time.monotonic()
            self._on_wait(f"{failure.why}; trying again in {delay:.0f} s.")
        if self._stopping.wait(delay):
            stopped = VendorUnreachable(f"{failure.why}, and there was no time to try again.")
            raise _sure_or_not(stopped, unsure)

    def _unreachable(self, error: httpx.RequestError, *, unsure: bool) -> _Failed:
        told = VendorUnreachable(
            f"No vendor answers at {self.url} ({error or type(error).__name__}). Is it running, and is "
            "--vendor (or TUITION_VENDOR_URL) right? What was bought is kept; the same command continues."
        )
        return _Failed(told, unsure=unsure, why=f"{self.url} does not answer ({type(error).__name__})")

    def _refused(self, answer: httpx.Response) -> _Failed:
        error = self._as_error(answer, self.url)
        return _Failed(error, unsure=error.unsure, why=f"{self.url} said {answer.status_code}", answer=answer)

    def _receive(
        self, request: httpx.Request, to: BinaryIO | None, most_bytes: int, longest: float
    ) -> httpx.Response:
        """Send a request once and read the answer, as far as that makes sense.

        Raises:
            httpx.RequestError: nothing answered, or fewer than `_STEADY` bytes came in `longest` seconds.
            AnswerTooLong: a success is longer than `most_bytes`, or compressed.
        """
        answer = self._http.send(request, stream=True)
        with closing(answer):
            kept = BytesIO()
            read: BinaryIO = to if to is not None and answer.is_success else kept
            read.seek(0)
            read.truncate()
            limit = most_bytes if answer.is_success else _ERROR_BYTES
            if answer.headers.get("content-encoding", "identity").strip().lower() != "identity":
                limit = -1
            for piece in _steadily(answer, longest) if limit >= 0 else ():
                read.write(piece)
                if read.tell() > limit:
                    break
        if answer.is_success and not read.tell() <= limit:
            raise AnswerTooLong(answer.headers, f"{self.url} answered with {_too_much(limit)}.")
        return httpx.Response(
            answer.status_code,
            headers=[each for each in answer.headers.raw if each[0].lower() != b"content-encoding"],
            content=kept.getvalue()[: max(0, limit)],
            request=request,
        )


def _steadily(answer: httpx.Response, longest: float) -> Iterator[bytes]:
    """The pieces of an answer, as long as it brings enough of them in time.

    Raises:
        httpx.ReadTimeout: it does not.
    """
    deadline, due = time.monotonic() + longest, _STEADY  # however long the request took to send
    for piece in answer.stream:  # type: ignore[union-attr]
        yield piece
        due -= len(piece)
        if due <= 0:
            deadline, due = time.monotonic() + longest, _STEADY
        elif time.monotonic() > deadline:
            raise httpx.ReadTimeout("the answer does not end", request=answer.request)


class _Pieces(httpx.ByteStream):
    """A request's body, in pieces; `cut` is whether the network took some of it, and not all."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._content = content
        self.cut = False

    def __iter__(self) -> Iterator[bytes]:
        self.cut = True
        for start in range(0, len(self._content), _PIECE):
            yield self._content[start : start + _PIECE]
        self.cut = False


class FileBody(httpx.SyncByteStream):
    """A request's body that is a file, with what stands before and after it; `cut` as of other bodies."""

    def __init__(self, before: bytes, file: BinaryIO, after: bytes) -> None:
        self._before = before
        self._file = file
        self._after = after
        self.length = len(before) + file.seek(0, os.SEEK_END) + len(after)
        self.cut = False

    def __iter__(self) -> Iterator[bytes]:
        self.cut = True
        yield self._before
        self._file.seek(0)
        while piece := self._file.read(_PIECE):
            yield piece
        yield self._after
        self.cut = False


def parse(model: type[Model], response: httpx.Response) -> Model:
    """The body of a successful answer.

    Raises:
        VendorError: it is something else.
    """
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        raise VendorError(
            f"{response.url} does not answer as a vendor of this kind does ({error.error_count()} faults)."
        ) from error


def _authorization(api_key: str | None) -> dict[str, str]:
    if not re.fullmatch("[!-~]*", api_key or ""):
        raise UsageError(
            "The API key has characters that no key can have. "
            "Give the right key in TUITION_API_KEY or with --api-key-file."
        )
    return {"authorization": f"Bearer {api_key}"} if api_key else {}


def _timeouts(seconds: float) -> httpx.Timeout:
    return httpx.Timeout(seconds, connect=10)


def _too_much(limit: int) -> str:
    if limit < 0:
        return "a compressed body, which it was asked not to"
    return f"more than the {limit} bytes that an answer to this can have"


def _seconds(retry_after: str | None) -> int:
    """The seconds of a `Retry-After`, within bounds; 0 for anything else that may stand there."""
    digits = (retry_after or "").strip()
    if not re.fullmatch("[0-9]+", digits):
        return 0
    return min(int(digits[:9]), _LONGEST_RETRY_AFTER)


def _sure_or_not(error: ClientError, unsure: bool) -> ClientError:
    """The error, saying whether any try may have been served all the same."""
    error.unsure = unsure
    return error


def _checked(url: str) -> httpx.URL:
    if re.match(r"([^/?#]*//)?[^/?#]*@", url):  # the message leaves the password out
        raise UsageError(
            "A vendor's address has no user and no password: they would be sent in place of the API key. "
            f"Leave out what is before the @, as in {DEFAULT_URL}."
        )
    if not url.isascii():  # letters of other scripts look like these
        raise UsageError(f"{url!a} is no address of a vendor: write it in ASCII, a name as its xn-- form.")
    try:
        parsed = httpx.URL(url)
        host = parsed.host
        parsed.raw_host.decode("ascii").encode("idna")  # as Python's sockets do it
    except (httpx.InvalidURL, UnicodeError) as error:  # the latter of a path that is not UTF-8, or a host
        raise UsageError(f"{url!r} is no address of a vendor: {error}.") from error
    if parsed.scheme not in ("http", "https") or not host:
        raise UsageError(f"{url!r} is no address of a vendor, such as {DEFAULT_URL}.")
    return parsed
