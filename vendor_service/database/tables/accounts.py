"""Accounts, their projects and keys, and what limits them.

A quota period is a UTC calendar month that begins anew, or the account's whole life.
"""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint, false
from sqlalchemy.orm import Mapped, mapped_column, relationship

from vendor_service.clock import MOST_SKEW, month_start, next_month_start, to_datetime
from vendor_service.database.tables.base import STANDARD_PLAN, Base, Secret


class Limited:
    """Limits, and counters that are always the sums of the ledger's charges and of the open holds.

    `queries_used` and `spent_micros` count the period that began at `period_started_at`: the charges behind
    the entry `period_seq` of the ledger, the latter without what was given back of them. `NULL` is no limit.
    An account has its own, and each of its projects and keys may have narrower ones.
    """

    quota: Mapped[int | None]
    spend_limit_micros: Mapped[int | None]
    period_started_at: Mapped[int] = mapped_column(default=0, server_default="0")
    period_seq: Mapped[int] = mapped_column(default=0, server_default="0")
    queries_used: Mapped[int] = mapped_column(default=0, server_default="0")
    spent_micros: Mapped[int] = mapped_column(default=0, server_default="0")
    queries_held: Mapped[int] = mapped_column(default=0, server_default="0")
    held_micros: Mapped[int] = mapped_column(default=0, server_default="0")

    @property
    def quota_left(self) -> int | None:
        """Queries that may still be asked for in this period, or `None` where there is no quota."""
        return None if self.quota is None else max(0, self.quota - self.queries_used - self.queries_held)

    @property
    def spend_limit_left(self) -> int | None:
        """Micro-units that may still be spent in this period, or `None` where there is no limit."""
        limit = self.spend_limit_micros
        return None if limit is None else max(0, limit - self.spent_micros - self.held_micros)

    def is_period_over(self, account: "Account", now: int) -> bool:
        """Whether the period that these counters, the account's or of a part of it, count has ended.

        A clock that steps back ends none.
        """
        return self.period_started_at < account.period_start(now)


class Rated:
    """A rate, `NULL` for none, and its token bucket, in millionths of a query."""

    queries_per_second: Mapped[int | None]
    rate_tokens: Mapped[int] = mapped_column(default=0)
    rate_refilled_at: Mapped[int] = mapped_column(default=0)


class Account(Limited, Rated, Base):
    """A customer: what is agreed, and where it stands.

    `credit_micros` is what a prepaid account has left, `NULL` for one that is invoiced, and
    `credit_base_micros` what it had just after its last top-up; no ledger entry to come is dated before
    `ledger_at`. `buckets_covered` is how many bits the rows of its
    coverage have, and `coverage_limit` how many they may have, ever. `has_projects` is set for good with the
    first project beside the default one. `buyer` is that of invoices to come, as JSON.
    """

    __tablename__ = "accounts"
    __table_args__ = (
        CheckConstraint("queries_held >= 0 AND held_micros >= 0", name="held_is_not_negative"),
        CheckConstraint("queries_used >= 0 AND spent_micros >= 0", name="used_is_not_negative"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    status: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[int]

    plan: Mapped[str] = mapped_column(String(64), server_default=STANDARD_PLAN)
    quota_period: Mapped[str] = mapped_column(String(8))
    credit_micros: Mapped[int | None]
    credit_base_micros: Mapped[int | None]
    coverage_limit: Mapped[int | None]
    has_projects: Mapped[bool] = mapped_column(default=False, server_default=false())

    ledger_seq: Mapped[int] = mapped_column(default=0)
    ledger_hash: Mapped[str] = mapped_column(String(64))
    ledger_at: Mapped[int] = mapped_column(default=0, server_default="0")
    buckets_covered: Mapped[int] = mapped_column(default=0, server_default="0")
    buyer: Mapped[str | None] = mapped_column(Text)

    @property
    def coverage_left(self) -> int | None:
        """Queries that may still be asked if each opens a bucket, or `None` where coverage has no limit."""
        limit = self.coverage_limit
        return None if limit is None else max(0, limit - self.buckets_covered - self.queries_held)

    def instant(self, now: int) -> int:
        """The one instant that entries, counters and period have, when the clock says `now`.

        Clocks of several processes differ, and may step back: nothing is dated before what is there, nor into
        a month that was invoiced, nor counted in another period than it is dated into.
        """
        return max(now, self.ledger_at, self.period_started_at)

    def is_ahead(self, now: int) -> bool:
        """Whether the books go on to a date that clocks which differ a little cannot explain.

        Either this clock is wrong, or one was that wrote them.
        """
        return self.instant(now) > now + MOST_SKEW

    def period_start(self, now: int) -> int:
        """When the present period began."""
        return max(period_start(self.quota_period, self.instant(now)), self.period_started_at)

    def resets_at(self, now: int) -> datetime | None:
        """When the counters start anew, or `None` if never."""
        return None if self.quota_period != "month" else to_datetime(next_month_start(self.instant(now)))


class Project(Limited, Rated, Base):
    """A part of an account, with limits of its own inside the account's.

    All changes of it are made under the lock of its account. What belongs to no project belongs to the
    account's default one, which has no row.
    """

    __tablename__ = "projects"
    __table_args__ = (UniqueConstraint("account_id", "name"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    name: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[int]
    archived_at: Mapped[int | None]


class ApiKey(Limited, Rated, Secret, Base):
    """A key of an account: the public half names the row, of the secret half only a hash is kept.

    A rotated key keeps its row, and so its limits; the former secret is good until `former_until`.
    `scopes` are separated by spaces. It belongs to its project, or to the default one, for good.
    `requests_held` are its open holds but for those of bulk jobs: as many as its `concurrency` there may be.
    """

    __tablename__ = "api_keys"
    __table_args__ = (Index("ix_api_keys_account_id", "account_id", "created_at"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    label: Mapped[str]
    scopes: Mapped[str] = mapped_column(server_default="embed usage:read")
    created_at: Mapped[int]
    expires_at: Mapped[int | None]
    revoked_at: Mapped[int | None]
    last_used_at: Mapped[int | None]
    project_id: Mapped[str | None] = mapped_column(ForeignKey("projects.id"))
    concurrency: Mapped[int | None]
    requests_held: Mapped[int] = mapped_column(default=0, server_default="0")
    rate_tokens: Mapped[int] = mapped_column(default=0, server_default="0")
    rate_refilled_at: Mapped[int] = mapped_column(default=0, server_default="0")

    # Read with the key: a statement more, and that only where a key has a project.
    project: Mapped[Project | None] = relationship(lazy="selectin")


def limited_by(account: Account, key: ApiKey) -> tuple[Account | Project | ApiKey, ...]:
    """All that limits what a key may ask, the widest first."""
    return (account, key) if key.project is None else (account, key.project, key)


def period_start(period: str, now: int) -> int:
    """When the period that holds `now` began; the one period of a `total` quota began with time itself."""
    return month_start(now) if period == "month" else 0


def roll_periods(account: Account, key: ApiKey, now: int) -> None:
    """Start the counters of both, and of the key's project, anew if a new period has begun."""
    begun = account.period_start(now)
    for each in limited_by(account, key):
        if each.period_started_at < begun:
            each.period_started_at = begun
            each.period_seq = account.ledger_seq
            each.queries_used = 0
            each.spent_micros = 0
