"""Metrics of each account's use and spending, read from the database whenever Prometheus asks."""

import logging
from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import and_, case, select
from sqlalchemy.exc import SQLAlchemyError

from vendor_service.clock import Clock, month_start
from vendor_service.database.session import Database
from vendor_service.database.tables import Account
from vendor_service.errors import APIError

# Those that spend most: a series for each of a million accounts would help nobody.
_MOST_ACCOUNTS = 200

_log = logging.getLogger(__name__)


class AccountMetrics(Collector):
    """Series of the accounts that spent most in their present quota period."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """Queries, quota, spending and coverage by account; nothing while the database does not answer."""
        now = self._clock()
        names = ["account"]
        used = GaugeMetricFamily("tuition_account_queries_used", "Queries charged this period.", labels=names)
        quota = GaugeMetricFamily("tuition_account_quota", "Queries agreed for a period.", labels=names)
        spent = GaugeMetricFamily("tuition_account_spent_micros", "Charges of this period.", labels=names)
        covered = GaugeMetricFamily(
            "tuition_account_buckets_covered", "Buckets of the embedding space covered.", labels=names
        )
        for account in self._accounts(now):
            over = account.is_period_over(account, now)
            used.add_metric([account.name], 0 if over else account.queries_used)
            spent.add_metric([account.name], 0 if over else account.spent_micros)
            covered.add_metric([account.name], account.buckets_covered)
            if account.quota is not None:
                quota.add_metric([account.name], account.quota)
        yield from (used, quota, spent, covered)

    def _accounts(self, now: int) -> list[Account]:
        # An account's next admission is what rolls its counters: until then, they are of an earlier month.
        month = month_start(now)
        over = and_(Account.quota_period == "month", Account.period_started_at < month)
        spent = case((over, 0), else_=Account.spent_micros)
        most = select(Account).order_by(spent.desc(), Account.name).limit(_MOST_ACCOUNTS)
        try:
            with self._database.read() as session:
                return list(session.scalars(most))
        except (APIError, SQLAlchemyError) as error:
            _log.warning("the accounts' metrics cannot be read: %s", error)
            return []
