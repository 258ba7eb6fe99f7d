"""The queue of queries left to buy, and the channels by which they are bought."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from client.purchase.budget import price
from client.purchase.checkout import Checkout, Order
from client.vendors.query import Query
from shared.embeddings import Prices

# Of what comes next, as many queries are looked for in the cache at once.
_AHEAD = 32


class NotCharged(Exception):
    """The vendor has not charged a batch, as far as it tells."""


class Gone(Exception):
    """The vendor no longer has the answer that a batch was charged for."""


class Parcel(Protocol):
    """Takes queries for one batch, as many as fit."""

    def fault(self, query: Query, content: bytes) -> str | None:
        """Why a query cannot be sent at all; `None` where it can."""

    def fits(self, query: Query, content: bytes) -> bool:
        """Whether there is room for one more."""

    def add(self, query: Query, content: bytes) -> None:
        """Take it."""


class Channel(Protocol):
    """A way by which batches are bought: requests, or bulk jobs."""

    @property
    def prices(self) -> Prices:
        """The price of one query of each kind."""

    @property
    def at_once(self) -> int:
        """How many batches are in flight at the most."""

    def pack(self, queue: "BuyingQueue") -> Order | None:
        """The next batch, set aside in the budget; `None` where there is none."""

    def buy(self, order: Order) -> int:
        """Send a noted batch, and store and count what is answered at once; returns how many queries were.

        Raises:
            Gone: it is spent, or its answers are gone.
            ClientError: it was not answered, or not to its end; `unsure` says whether it may have been.
        """

    def finish(self) -> None:
        """Collect what `buy` has left to come.

        Raises:
            JobRunning: a job goes on, and is not waited for.
            ClientError: something was not answered, or not to its end.
        """

    def ask(self, order: Order) -> None:
        """Store and count what a batch in doubt, or a job that was sent, was charged for; free of charge.

        Raises:
            NotCharged: the vendor has not charged it.
            Gone: it is spent, or its answers are gone.
            JobRunning: it is a job that goes on, and is not waited for.
            ClientError: the vendor does not tell.
        """

    def restored(self, order: Order, wanted: Mapping[Query, Query]) -> bool:
        """Make a noted batch ready to be sent as it was; False where a file is no longer what it was.

        Its files are those at hand, for the folder may have moved since.
        """


@dataclass
class BuyingQueue:
    """The queries that are left to buy, and before them batches that are ready. Thread-safe.

    What is ready, or was taken, is set aside in the budget. What the budget does not reach stays here.

    Attributes:
        checkout: what is bought, and within which budget.
        prices: what a query costs.
        refuse: called with a query that cannot be sent, and the reason.
        pass_over: those of some queries that need not be bought any more.
    """

    checkout: Checkout
    prices: Prices
    refuse: Callable[[Query, str], None]
    pass_over: Callable[[Sequence[Query]], set[Query]]
    _ready: deque[Order] = field(default_factory=deque)
    _waiting: deque[Query] = field(default_factory=deque)
    _postponed: deque[Query] = field(default_factory=deque)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __bool__(self) -> bool:
        """Whether anything is left."""
        return bool(self._ready or self._waiting or self._postponed)

    def close(self) -> None:
        """Delete the files of what is ready."""
        for order in self._ready:
            order.close()

    def line_up(self, queries: Iterable[Query]) -> None:
        """Have these wait, and no others."""
        with self._lock:
            self._waiting, self._postponed = deque(queries), deque()

    def postpone(self, queries: Iterable[Query]) -> None:
        """Have these taken once no others wait, and in no batch with them."""
        with self._lock:
            self._postponed.extend(queries)

    def put_back(self, queries: Sequence[Query]) -> None:
        """Put queries before all others."""
        with self._lock:
            self._waiting.extendleft(reversed(queries))

    def put_ready(self, orders: Sequence[Order]) -> None:
        """Put batches before all others."""
        with self._lock:
            self._ready.extendleft(reversed(orders))

    def next_ready(self) -> Order | None:
        """The next batch that is ready."""
        with self._lock:
            return self._ready.popleft() if self._ready else None

    def fill(self, parcel: Parcel) -> tuple[Query, ...]:
        """Take the next queries, as far as the parcel and the budget have room, and set them aside.

        Files are read here, one parcel at a time, so memory holds what is in flight and no more.
        """
        taken: list[Query] = []
        with self._lock:
            if not self._waiting:
                self._waiting, self._postponed = self._postponed, self._waiting
            self._leave_out_bought()
            while self._waiting:
                query = self._waiting[0]
                content = self.read(query, parcel)
                if content is None:
                    self._waiting.popleft()
                elif parcel.fits(query, content) and self.checkout.budget.reserve(
                    price([query], self.prices)
                ):
                    parcel.add(query, content)
                    taken.append(self._waiting.popleft())
                else:
                    break
        return tuple(taken)

    def read(self, query: Query, parcel: Parcel) -> bytes | None:
        """A query's bytes; `None`, and a word of why, where they cannot be sent."""
        try:
            content = query.sendable(self.checkout.model.limits.max_image_bytes)
            fault = parcel.fault(query, content)
        except (OSError, ValueError) as error:
            fault = str(error)
        if fault is None:
            return content
        self.refuse(query, fault)
        return None

    def _leave_out_bought(self) -> None:
        """Leave out, of what comes next, what another run has bought since this one began."""
        while bought := self.pass_over(list(islice(self._waiting, _AHEAD))):
            upcoming = [self._waiting.popleft() for _ in range(min(_AHEAD, len(self._waiting)))]
            self._waiting.extendleft(query for query in reversed(upcoming) if query not in bought)
