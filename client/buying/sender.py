"""Requests over HTTP, sent until they are answered for good; the only place that knows httpx's errors."""

import math
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from client.buying.pace import LARGEST
from client.errors import ClientError, UsageError, VendorError, VendorUnreachable

DEFAULT_URL = "http://127.0.0.1:8000"
RETRIED = frozenset({408, 409, 429, 500, 502, 503, 504})
PUSHED_BACK = frozenset({429, 503})
# After these the request may have been served, and charged, all the same.
_UNSURE = frozenset({408, 500, 502, 504})
TRIES = 5
FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
# A vendor that is restarted in the middle of a purchase is waited for this long, in seconds.
PATIENCE = 60.0
_TELL_EVERY = 5.0

Model = TypeVar("Model", bound=BaseModel)


class Sender:
    """One address and one key. Thread-safe.

    Connection errors and the statuses 408, 409, 429, 500, 502, 503 and 504 are tried again, with exponential
    backoff, full jitter and the vendor's `Retry-After`. Everything else is raised at once.
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
        trace_headers: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """Connect to nothing yet.

        Args:
            url: where the vendor is, e.g. http://127.0.0.1:8000.
            api_key: the key; `None` for what needs none.
            as_error: makes an answer that is no success, from this address, one of the client's errors.
            transport: replaces the network.
            timeout: seconds to wait for an answer.
            on_wait: told why, now and then, while requests are tried again.
            trace_headers: asked for each request what to send along, such as a `traceparent`.

        Raises:
            UsageError: this is no URL, or no key.
        """
        self.url = url.rstrip("/")
        self._as_error = as_error
        self._stopping = threading.Event()
        self._on_wait = on_wait
        self._trace_headers = trace_headers
        self._told_at = -math.inf
        if not re.fullmatch("[!-~]*", api_key or ""):
            raise UsageError(
                "The API key has characters that no key has. "
                "Give the right key in TUITION_API_KEY or with --api-key-file."
            )
        self._http = httpx.Client(
            base_url=_checked(self.url),
            headers={"authorization": f"Bearer {api_key}"} if api_key else {},
            transport=transport,
            timeout=httpx.Timeout(timeout, connect=10),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=LARGEST),
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def stop(self) -> None:
        """Make requests that wait to be tried again give up now."""
        self._stopping.set()

    def send(
        self,
        method: str,
        path: str,
        *,
        tries: int | None = None,
        patience: float = 0.0,
        on_push_back: Callable[[], None] = lambda: None,
        on_unsure: Callable[[], None] = lambda: None,
        **request: Any,  # noqa: ANN401 (httpx's own)
    ) -> httpx.Response:
        """Send until it is answered for good: so many tries, or for `patience` seconds if that is longer.

        Args:
            tries: at most (default: `TRIES`).
            on_push_back: called whenever the vendor says that it is asked too much (429, 503).
            on_unsure: called before what may have been served all the same is sent again; raises to stop.

        Raises:
            VendorUnreachable: nothing answered.
            ClientError: what `as_error` makes of an answer that is no success.
        """
        deadline = time.monotonic() + patience
        headers = {**request.pop("headers", {}), **self._trace_headers()}
        most = TRIES if tries is None else tries
        tried = 0
        while True:
            tried += 1
            last = tried >= most and time.monotonic() >= deadline
            try:
                response = self._http.request(method, path, headers=headers, **request)
            except httpx.RequestError as error:
                unsure = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                if last:
                    raise self._unreachable(error, unsure=unsure) from error
                why, retry_after = f"{self.url} does not answer ({type(error).__name__})", None
            else:
                if response.is_success:
                    return response
                unsure = response.status_code in _UNSURE
                if response.status_code not in RETRIED or last:
                    raise _sure_or_not(self._as_error(response, self.url), unsure)
                if response.status_code in PUSHED_BACK:
                    on_push_back()
                why = f"{self.url} said {response.status_code}"
                retry_after = response.headers.get("retry-after")
            self._wait(tried, retry_after, why, unsure=unsure)
            if unsure:
                on_unsure()

    def _wait(self, tried: int, retry_after: str | None, why: str, *, unsure: bool) -> None:
        delay = random.uniform(0, min(LONGEST_DELAY, FIRST_DELAY * 2 ** (tried - 1)))
        if retry_after is not None and retry_after.isdigit():
            delay += min(int(retry_after), 3600)
        # Said when it takes a while, and not by each of the requests in flight.
        if delay > 1 and time.monotonic() - self._told_at > _TELL_EVERY:
            self._told_at = time.monotonic()
            self._on_wait(f"{why}; trying again in {delay:.0f} s.")
        if self._stopping.wait(delay):
            raise _sure_or_not(VendorUnreachable(f"{why}, and there was no time to try again."), unsure)

    def _unreachable(self, error: httpx.RequestError, *, unsure: bool) -> ClientError:
        return _sure_or_not(
            VendorUnreachable(
                f"No vendor answers at {self.url} ({error or type(error).__name__}). Is it running, and is "
                "--vendor (or TUITION_VENDOR_URL) right? What was bought is kept; the same command goes on."
            ),
            unsure,
        )


def _sure_or_not(error: ClientError, unsure: bool) -> ClientError:
    """The error, saying whether the last try may have been served all the same."""
    if isinstance(error, VendorError):
        error.unsure = unsure
    return error


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


def _checked(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise UsageError(f"{url!r} is no address of a vendor: {error}.") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UsageError(f"{url!r} is no address of a vendor, such as {DEFAULT_URL}.")
    return parsed
