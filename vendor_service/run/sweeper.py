"""The sweeper: renews and sweeps holds, and notes the use of keys, beside the requests."""

import logging
from collections.abc import Callable

from vendor_service.accounts.authentication import Authentication
from vendor_service.errors import APIError
from vendor_service.metrics import Metrics
from vendor_service.money.admission import Admission
from vendor_service.money.clock_watch import ClockWatch

_log = logging.getLogger(__name__)


class Sweeper:
    """Renews this process's holds, sweeps those of processes that are gone, notes when keys were used.

    While the clock is wrong it leaves holds alone: it would release those of others, or keep its own.
    """

    def __init__(
        self,
        admission: Admission,
        authentication: Authentication,
        metrics: Metrics,
        longest_hold_seconds: int,
        watch: ClockWatch,
        ask_clock: Callable[[], None],
    ) -> None:
        self._watch = watch
        self._ask_clock = ask_clock
        self._admission = admission
        self._metrics = metrics
        self._authentication = authentication
        self._longest_hold_seconds = longest_hold_seconds

    def once(self) -> None:
        """Do it now; a failure is logged, for the next time may succeed."""
        try:
            self._ask_clock()
            if self._watch.fault is not None:
                return
            self._admission.renew(self._longest_hold_seconds)
            swept = self._admission.sweep()
            self._authentication.record_use()
        except APIError as error:
            _log.warning("sweeping holds was put off: %s", error)
        except Exception:
            _log.exception("sweeping holds failed; it will be tried again")
        else:
            self._metrics.decided("expired", swept)
            if swept:
                _log.warning("swept %d expired holds; nothing was charged for them", swept)
