"""Metrics of the receivers of events, read from the database whenever Prometheus asks."""

import logging
from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from vendor_service.database.session import Database
from vendor_service.database.tables import WebhookDelivery
from vendor_service.errors import APIError

# A receiver that restarts fails once or twice; the third try comes half an hour later.
_TRIES = 3
_log = logging.getLogger(__name__)


class ReceiverMetrics(Collector):
    """How many receivers do not take what is sent to them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def collect(self) -> Iterator[Metric]:
        """A number of receivers; nothing while the database does not answer."""
        failing = select(func.count(WebhookDelivery.endpoint_id.distinct())).where(
            WebhookDelivery.state == "pending", WebhookDelivery.attempts >= _TRIES
        )
        try:
            with self._database.read() as session:
                receivers = session.scalars(failing).one()
        except (APIError, SQLAlchemyError) as error:
            _log.warning("the metrics of receivers cannot be read: %s", error)
            return
        told = "Receivers of events that failed three times or more to take one that waits."
        yield GaugeMetricFamily("tuition_receivers_failing", told, receivers)
