"""Metrics of the bulk jobs in progress, read from the database whenever Prometheus asks."""

import logging
from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from vendor_service.clock import SECOND, Clock
from vendor_service.database.session import Database
from vendor_service.database.tables import BatchJob
from vendor_service.errors import APIError

_log = logging.getLogger(__name__)


class JobMetrics(Collector):
    """How much bulk work there is, and how old the oldest of it is."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """Jobs, lines and an age; nothing while the database does not answer."""
        left = func.sum(BatchJob.lines - BatchJob.completed - BatchJob.failed)
        asked = select(func.count(), left, func.min(BatchJob.created_at))
        try:
            with self._database.read() as session:
                jobs, lines, oldest = session.execute(asked.where(BatchJob.state == "in_progress")).one()
        except (APIError, SQLAlchemyError) as error:
            _log.warning("the metrics of bulk jobs cannot be read: %s", error)
            return
        age = 0.0 if oldest is None else max(0, self._clock() - oldest) / SECOND
        yield GaugeMetricFamily("tuition_bulk_jobs", "Bulk jobs in progress.", jobs)
        yield GaugeMetricFamily("tuition_bulk_lines", "Lines of them that are not done.", int(lines or 0))
        yield GaugeMetricFamily("tuition_bulk_oldest_seconds", "Age of the oldest of them.", age)
