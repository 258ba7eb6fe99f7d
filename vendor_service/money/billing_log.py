"""The billing log: one line for every decision about money, apart from the log of requests.

Lines go to the logger `LOG`, which an operator sends to a file of its own. They name the
request, the account and the key, never a secret and nothing of what was asked.
"""

import logging
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session

from shared.errors import ErrorCode
from shared.http.logging import JsonFormatter
from shared.kinds import count_fields
from vendor_service.database.working_set import HoldRow
from vendor_service.errors import APIError, CommitInDoubt, OperatorError
from vendor_service.money.orders import Admitted, HeldJob, Order

LOG = logging.getLogger("tuition.billing")
_vendor_log = logging.getLogger(__name__)


def decided(order: Order, decision: "Future[Admitted] | Future[HeldJob[Any]]", seconds: float) -> None:
    """A request or a job may be answered: its price is held, was paid before, or was charged at once.

    Or it was turned away, free; or nobody knows (`in_doubt`), and the ledger tells by the request's id.
    """
    if decision.cancelled():
        return
    error = decision.exception()
    if error is None:
        result = decision.result()
        admitted = result.admitted if isinstance(result, HeldJob) else result
        if not admitted.counts:  # nothing is decided yet
            return
        outcome = "held" if admitted.charged is None else "settled"
        _order("replayed" if admitted.replayed else outcome, order, admitted.cost_micros, seconds)
    else:
        code = error.code if isinstance(error, APIError) else ErrorCode.INTERNAL_ERROR
        outcome = "in_doubt" if isinstance(error, CommitInDoubt) else "refused"
        _order(outcome, order, 0, seconds, code=code)


def finished(session: Session, hold: HoldRow, now: int) -> None:
    """A hold becomes a charge or is released, once this transaction is committed.

    Of what is charged at once `decided` tells, since nothing was held before.
    """
    fields = {
        "request_id": hold.id,
        "account_id": hold.account_id,
        "key_id": hold.key_id,
        **count_fields(hold.counts),
        "cost_micros": hold.cost_micros if hold.state == "settled" else 0,
        "milliseconds": round((now - hold.created_at) / 1000, 1),
    }
    outcome = hold.state
    event.listen(session, "after_commit", lambda _: _line(outcome, **fields), once=True)


def _order(outcome: str, order: Order, cost_micros: int, seconds: float, **more: str) -> None:
    _line(
        outcome,
        request_id=order.request_id,
        account_id=order.account_id,
        key_id=order.key_id,
        cost_micros=cost_micros,
        milliseconds=round(1000 * seconds, 1),
        **count_fields(order.counts),
        **more,
    )


def _line(outcome: str, **fields: object) -> None:
    LOG.info(outcome, extra={"fields": {"outcome": outcome, **fields}})


class _LogFile(WatchedFileHandler):
    """The file. A line that cannot be written to it goes to the vendor's log; the next one is tried again.

    Whatever is wrong with the file, a decision about money is made by then, and nothing may fail for it.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        try:
            super().emit(record)
        except Exception:  # the file that was renamed could not be opened anew
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Say why, with the line's fields."""
        line, why = getattr(record, "fields", {}), sys.exc_info()[1]
        _vendor_log.error("the billing log cannot be written: %s", why, extra={"fields": line})


@contextmanager
def open_billing_log(path: Path) -> Iterator[None]:
    """Append the billing log to a file, one JSON object a line; another program may rotate the file.

    Raises:
        OperatorError: the file cannot be opened.
    """
    try:
        handler = _LogFile(path, encoding="utf-8")
    except OSError as error:
        raise OperatorError(f"the billing log cannot be written: {error}") from error
    handler.setFormatter(JsonFormatter())
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(logging.NOTSET)
        LOG.propagate = True
        handler.close()
