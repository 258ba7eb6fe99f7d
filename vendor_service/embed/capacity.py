"""How much may be in hand at once: requests, inputs and bytes, until the last byte of an answer is sent."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from shared.errors import ErrorCode
from vendor_service.errors import APIError

MOST_REQUESTS = 2048


class Capacity:
    """Bounds what all requests together keep in memory, and knows when the last of them is over.

    Beyond `max_inputs`, `max_bytes` or `max_requests` requests are refused while those in hand go on. An
    account that has requests in hand gets no more than what is left free for everybody else, so that no one
    fills the vendor alone, be it with requests whose bodies do not come. A request may take `max_seconds`.
    Not thread-safe: it belongs to the event loop.
    """

    def __init__(
        self, *, max_inputs: int, max_bytes: int, max_seconds: float, max_requests: int = MOST_REQUESTS
    ) -> None:
        self._max_seconds = max_seconds
        self._most = {"inputs": max_inputs, "bytes": max_bytes, "requests": max_requests}
        self._held: Counter[str] = Counter()
        self._held_by: dict[str, Counter[str]] = {}
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

    def bound_requests(self, most: int) -> None:
        """Take no more requests at a time than this, where the process cannot have more."""
        self._most["requests"] = max(1, min(most, self._most["requests"]))

    def close(self) -> None:
        """Let the requests in hand finish, and refuse all others."""
        self.closed = True

    @contextmanager
    def place(self, account: str) -> "Iterator[Place]":
        """A place for one request, to be filled as it becomes known how large it is.

        Raises:
            APIError: `shutting_down` or `overloaded`.
        """
        if self.closed:
            raise APIError(ErrorCode.SHUTTING_DOWN, "the vendor is stopping; try again", retry_after=1)
        place = Place(self, account, self._max_seconds)
        self.take(place, "requests", 1)
        self._requests += 1
        try:
            yield place
        finally:
            self._requests -= 1
            self._release(place)

    def take(self, place: "Place", what: str, amount: int) -> None:
        """Count more of `what` towards a place.

        Raises:
            APIError: `overloaded`.
        """
        free = self._most[what] - self._held[what]
        mine = self._held_by.setdefault(place.account, Counter())
        others = mine[what] - place.held[what]  # of this account, but in other requests
        if amount > free or (others and others + place.held[what] + amount > free):
            raise APIError(ErrorCode.OVERLOADED, "the vendor is overloaded; try again", retry_after=1)
        for each in (self._held, mine, place.held):
            each[what] += amount

    def keep(self, place: "Place", kept: Counter[str]) -> None:
        """Count no more than this towards a place from now on."""
        self._release(place)
        place.held = kept
        self._held += kept
        self._held_by[place.account] = self._held_by.get(place.account, Counter()) + kept

    def _release(self, place: "Place") -> None:
        self._held -= place.held
        mine = self._held_by.get(place.account, Counter()) - place.held
        if mine:
            self._held_by[place.account] = mine
        else:
            self._held_by.pop(place.account, None)


class Place:
    """What one request keeps in memory, and how long it may take."""

    def __init__(self, capacity: Capacity, account: str, max_seconds: float) -> None:
        self.account = account
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
    def seconds_left(self) -> float:
        """How long the request may still take."""
        return max(0.0, self._deadline - asyncio.get_running_loop().time())

    @property
    def late(self) -> APIError:
        """What a request is answered that took too long."""
        message = f"there was no answer within {self._max_seconds} s, or nobody waited for it any more"
        return APIError(ErrorCode.DEADLINE_EXCEEDED, message, retry_after=1)

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """Do something that may be broken off when the time is up.

        Raises:
            APIError: `deadline_exceeded`.
        """
        try:
            async with asyncio.timeout_at(self._deadline):
                yield
        except TimeoutError as error:
            raise self.late from error
