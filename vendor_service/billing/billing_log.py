"""The billing log: one line for every decision about money, apart from the log of requests.

Lines go to the logger `tuition.billing`, which an operator sends to a file of its own. They name the
request, the account and the key, never a secret and nothing of what was asked.
"""

import logging

from vendor_service.billing.orders import Order
from vendor_service.database.tables import Hold

LOGGER = "tuition.billing"

_log = logging.getLogger(LOGGER)


def admitted(order: Order, cost_micros: int, replayed: bool, seconds: float) -> None:
    """A request may be encoded: its price is held, or it was paid before."""
    _order("replayed" if replayed else "held", order, cost_micros, seconds)


def refused(order: Order, code: str, seconds: float) -> None:
    """A request was turned away, free of charge."""
    _order("refused", order, 0, seconds, code=code)


def finished(hold: Hold, now: int) -> None:
    """A hold became a charge or was released."""
    _line(
        hold.state,
        request_id=hold.id,
        account_id=hold.account_id,
        key_id=hold.key_id,
        images=hold.images,
        texts=hold.texts,
        cost_micros=hold.cost_micros if hold.state == "settled" else 0,
        milliseconds=round((now - hold.created_at) / 1000, 1),
    )


def _order(outcome: str, order: Order, cost_micros: int, seconds: float, **more: str) -> None:
    _line(
        outcome,
        request_id=order.request_id,
        account_id=order.account_id,
        key_id=order.key_id,
        images=order.images,
        texts=order.texts,
        cost_micros=cost_micros,
        milliseconds=round(1000 * seconds, 1),
        **more,
    )


def _line(outcome: str, **fields: object) -> None:
    _log.info(outcome, extra={"fields": {"outcome": outcome, **fields}})
