"""A request: what was asked, on which terms, and what belongs to it while it is answered."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from shared.http.capacity import Reservation, while_awaited
from vendor_service.accounts.authentication import Caller
from vendor_service.embed.models import ServedModel
from vendor_service.embed.queries import Queries
from vendor_service.embed.results import Content, EmbedResult
from vendor_service.embed.timing import Timing
from vendor_service.embed.unpaid import Unpaid
from vendor_service.encoder.queues import Encoded
from vendor_service.errors import APIError
from vendor_service.money.orders import Admitted

T = TypeVar("T")
Render = Callable[[EmbedResult], Content]


@dataclass(frozen=True)
class Call:
    """A request apart from its body: who asks, on which terms; and where its time goes."""

    request_id: str
    caller: Caller
    timing: Timing
    idempotency_key: str | None = None
    max_cost_micros: int | None = None
    expect_fingerprint: str | None = None


@dataclass
class Request:
    """What belongs to one request while it is answered; `leaving` is done when nobody waits for that.

    `refused` are those of its queries that were passed over, by their indices.
    """

    model: ServedModel
    call: Call
    queries: Queries
    reservation: Reservation
    render: Render
    leaving: "asyncio.Future[None]"
    work: Unpaid
    refused: dict[int, APIError] = field(default_factory=dict)

    async def awaited(self, work: Awaitable[T]) -> T:
        """Do it until the caller leaves, or the deadline."""
        return await while_awaited(work, self.reservation, self.leaving)

    def result(self, encoded: Encoded, admitted: Admitted) -> EmbedResult:
        """What is answered, on the terms of an order."""
        return EmbedResult(
            admitted.request_id,
            self.model.facts,
            self.queries,
            self.refused,
            encoded.rows,
            admitted,
            self.call.timing,
        )
