"""What a customer is told about money and quota: the account, and what it used."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel

QuotaPeriod = Literal["month", "total"]
GroupBy = Literal["day", "key", "kind"]


class RateLimit(BaseModel):
    """A token bucket, in queries."""

    queries_per_second: int
    burst: int


class AccountStatus(BaseModel):
    """The answer of `GET /v1/account`; money in millionths of the vendor's currency unit.

    `queries_used` and `spent_micros` count the current quota period; `None` means no limit,
    and for `credit_micros` that the account is invoiced rather than prepaid.
    """

    account: str
    quota: int | None
    quota_period: QuotaPeriod
    queries_used: int
    queries_held: int
    resets_at: datetime | None
    spend_limit_micros: int | None
    spent_micros: int
    credit_micros: int | None
    rate_limit: RateLimit | None

    @property
    def quota_left(self) -> int | None:
        """Queries that may still be asked for in this period, or `None` where there is no quota."""
        return None if self.quota is None else max(0, self.quota - self.queries_used - self.queries_held)


class UsageRow(BaseModel):
    """What one group (a day, a key, a kind) used and was billed."""

    group: str
    requests: int
    images: int
    texts: int
    billed_queries: int
    cost_micros: int


class UsageReport(BaseModel):
    """The answer of `GET /v1/usage`: the rows of a period and their sum."""

    account: str
    group_by: GroupBy
    rows: list[UsageRow]
    total: UsageRow
