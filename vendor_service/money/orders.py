"""Orders: what a request asks for, and on which terms it was admitted."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Generic, Self, TypeVar

from shared.kinds import Counts, UnitPrices, queries

Job = TypeVar("Job")


@dataclass(frozen=True)
class Order:
    """A request for queries; `body_hash` (SHA-256, hex) tells a retry from another request.

    `secret_hash` is that of the secret by which the caller was known, if it is to be checked once more. What
    `may_shrink` is answered although some of it may turn out not to be readable. A bulk job is held at its
    own price, outside of the rate, `held_until` some moment.
    """

    request_id: str
    account_id: str
    key_id: str
    model: str
    model_fingerprint: str
    counts: Counts
    body_hash: str
    idempotency_key: str | None = None
    max_cost_micros: int | None = None
    secret_hash: str | None = None
    held_until: int | None = None
    may_shrink: bool = False

    @cached_property
    def queries(self) -> int:
        """How many queries it asks."""
        return queries(self.counts)

    @property
    def is_bulk(self) -> bool:
        """Whether it is a bulk job's."""
        return self.held_until is not None

    def least(self, prices: UnitPrices) -> Self:
        """The least that may be left of it to be answered: its cheapest query, where it may shrink."""
        if not self.may_shrink:
            return self
        cheapest = min((kind for kind, number in self.counts.items() if number), key=prices.__getitem__)
        return replace(self, counts={cheapest: 1})


@dataclass(frozen=True)
class RateLimitStatus:
    """The account's bucket after this request, in queries; `reset_seconds` until it is full again."""

    limit: int
    remaining: int
    reset_seconds: int

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the contract, which answers and refusals carry alike."""
        return {
            "x-ratelimit-limit-queries": str(self.limit),
            "x-ratelimit-remaining-queries": str(self.remaining),
            "x-ratelimit-reset-queries": str(self.reset_seconds),
        }


@dataclass(frozen=True)
class JobPart:
    """A part of a bulk job that is done: what was `held` for it, and what of that was `answered`.

    `request_id` is the part's own, and `buckets` are those that its answers lie in.
    """

    request_id: str
    held: Counts
    answered: Counts
    buckets: Collection[int] = ()


@dataclass(frozen=True)
class Charged:
    """The charge of an order: its place in the ledger, its moment, its key and its amount."""

    seq: int
    entry_hash: str
    created_at: int
    key_id: str
    cost_micros: int


@dataclass(frozen=True)
class Admitted:
    """An order that may be answered: held, charged, or paid before and `replayed` with the bill of that time.

    `quota_left` counts this order as used; it and `rate` are `None` where the account has no such limit.
    `charged` is the entry that it was paid by, and `None` where nothing is charged yet.
    """

    request_id: str
    counts: Counts
    cost_micros: int
    replayed: bool
    quota_left: int | None
    rate: RateLimitStatus | None
    charged: Charged | None = None
    prices: UnitPrices | None = None


@dataclass(frozen=True)
class HeldJob(Generic[Job]):
    """A bulk job whose price is held; or one that was found, and for which nothing is held anew."""

    job: Job
    admitted: Admitted
