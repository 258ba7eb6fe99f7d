"""The capacity of a server: requests, inputs and bytes in hand, until a response is fully sent."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

from shared.errors import APIError, ErrorCode

MOST_REQUESTS = 2048

T = TypeVar("T")


class Capacity:
    """Bounds what all requests together keep in memory, and knows when the last of them is over.

    Beyond `max_inputs`, `max_bytes` or `max_requests` requests are refused while those in hand go on. An
    account that has requests in hand gets no more than what is left free for everybody else, so that no one
    fills the server alone, be it with requests whose bodies do not come. A part of an account likewise gets
    no more than what it leaves free to the account. A request may take `max_seconds`. Not thread-safe: it
    belongs to the event loop.
    """

    def __init__(
        self, *, max_inputs: int, max_bytes: int, max_seconds: float, max_requests: int = MOST_REQUESTS
    ) -> None:
        self._max_seconds = max_seconds
        self._most = {"inputs": max_inputs, "bytes": max_bytes, "requests": max_requests}
        self._held: Counter[str] = Counter()
        self._held_by: dict[tuple[str, ...], Counter[str]] = {}
        self._requests = 0
        self.closed = False

    @property
    def idle(self) -> bool:
        """Whether no request is in hand."""
        return self._requests == 0

    @property
    def bytes(self) -> int:
        """How many bytes the requests in hand keep in memory."""
        return self._held["bytes"]

    @property
    def is_shared(self) -> bool:
        """Whether requests of several accounts are in hand."""
        return len({account for account, *_ in self._held_by}) > 1

    def bound_requests(self, most: int) -> None:
        """Take no more requests at a time than this, where the process cannot have more."""
        self._most["requests"] = max(1, min(most, self._most["requests"]))

    def close(self) -> None:
        """Let the requests in hand finish, and refuse all others."""
        self.closed = True

    @contextmanager
    def reserve(self, account: str, part: str | None = None) -> "Iterator[Reservation]":
        """Reserve room for one request of an account, perhaps of a part of it.

        The reservation grows as it becomes known how large the request is.

        Raises:
            APIError: `shutting_down` or `overloaded`.
        """
        if self.closed:
            raise APIError(ErrorCode.SHUTTING_DOWN, "the server is stopping; try again", retry_after=1)
        reservation = Reservation(self, account, part, self._max_seconds)
        self.take(reservation, "requests", 1)
        self._requests += 1
        try:
            yield reservation
        finally:
            self._requests -= 1
            self._release(reservation)

    def take(self, reservation: "Reservation", what: str, amount: int) -> None:
        """Add to a reservation.

        Raises:
            APIError: `overloaded`.
        """
        free = self._most[what] - self._held[what]
        fits = amount <= free
        holders = [self._held_by.setdefault(each, Counter()) for each in reservation.holders]
        for mine in holders:
            is_only = mine[what] == reservation.held[what]  # nothing is held by other requests
            fits = fits and (is_only or mine[what] + amount <= free)
            free -= mine[what]  # what is left of an account is free for its parts
        if not fits:
            raise APIError(ErrorCode.OVERLOADED, "the server is overloaded; try again", retry_after=1)
        for each in (self._held, *holders, reservation.held):
            each[what] += amount

    def keep(self, reservation: "Reservation", kept: Counter[str]) -> None:
        """Shrink a reservation to this."""
        self._release(reservation)
        reservation.held = kept
        self._held += kept
        for each in reservation.holders:
            self._held_by[each] = self._held_by.get(each, Counter()) + kept

    def _release(self, reservation: "Reservation") -> None:
        self._held -= reservation.held
        for each in reservation.holders:
            mine = self._held_by.get(each, Counter()) - reservation.held
            if mine:
                self._held_by[each] = mine
            else:
                self._held_by.pop(each, None)


class Reservation:
    """The room that one request has in memory, and how long it may take."""

    def __init__(self, capacity: Capacity, account: str, part: str | None, max_seconds: float) -> None:
        self.account = account
        self.holders: list[tuple[str, ...]] = [(account,)] + ([] if part is None else [(account, part)])
        self._max_seconds = max_seconds
        self._deadline = asyncio.get_running_loop().time() + max_seconds
        self.held: Counter[str] = Counter()
        self._capacity = capacity

    def take_bytes(self, count: int) -> None:
        """Count bytes that are kept from now on.

        Raises:
            APIError: `overloaded`.
        """
        self._capacity.take(self, "bytes", count)

    def take_inputs(self, count: int) -> None:
        """Count inputs that are decoded and encoded from now on.

        Raises:
            APIError: `overloaded`.
        """
        self._capacity.take(self, "inputs", count)

    def keep_bytes(self, count: int) -> None:
        """Count only so many bytes from now on: nothing but the answer is left, until it is sent."""
        self._capacity.keep(self, Counter({"requests": 1, "bytes": count}))

    @property
    def has_company(self) -> bool:
        """Whether requests of other accounts are in hand, too."""
        return self._capacity.is_shared

    @property
    def seconds_left(self) -> float:
        """How long the request may still take."""
        return max(0.0, self._deadline - asyncio.get_running_loop().time())

    @property
    def timed_out(self) -> APIError:
        """The error of a request that took too long."""
        message = f"there was no answer within {self._max_seconds} s, or nobody waited for it any more"
        return APIError(ErrorCode.DEADLINE_EXCEEDED, message, retry_after=1)

    @asynccontextmanager
    async def within_deadline(self) -> AsyncIterator[asyncio.Timeout]:
        """Do something that may be broken off when the time is up, or earlier if the deadline is moved.

        Raises:
            APIError: `deadline_exceeded`.
        """
        try:
            async with asyncio.timeout_at(self._deadline) as deadline:
                yield deadline
        except TimeoutError as error:
            raise self.timed_out from error


async def while_awaited(work: Awaitable[T], reservation: Reservation, leaving: "asyncio.Future[None]") -> T:
    """Do something until it is done, its time is up, or nobody waits for it any more.

    It is not begun where nobody waits already: it may never let the event loop go, and so not be broken off.

    Raises:
        APIError: `deadline_exceeded`.
    """
    if leaving.done():
        if asyncio.iscoroutine(work):
            work.close()
        raise reservation.timed_out
    left = False
    async with reservation.within_deadline() as deadline:

        def end(_: object) -> None:
            # It may be on its way already when it is removed, and a deadline that was left cannot be moved.
            if not left and not deadline.expired():
                deadline.reschedule(asyncio.get_running_loop().time())

        leaving.add_done_callback(end)
        try:
            return await work
        finally:
            left = True
            leaving.remove_done_callback(end)
