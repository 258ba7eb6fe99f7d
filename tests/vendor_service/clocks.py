"""A clock for tests."""

from datetime import datetime

from vendor_service.clock import SECOND, from_datetime


class FakeClock:
    """A clock that moves only when told to; it starts in the middle of a month.

    Setting `now` lets time pass, whichever way; `step` has somebody set the clock wrong.
    """

    def __init__(self) -> None:
        self.now = from_datetime(datetime(2026, 11, 15, 12))
        self._stepped = 0

    def __call__(self) -> int:
        return self.now

    def steady(self) -> int:
        """What a clock says that nobody can set."""
        return self.now - self._stepped

    def advance(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)

    @property
    def wrong(self) -> float:
        """By how many seconds it is set wrong."""
        return self._stepped / SECOND

    def step(self, seconds: float) -> None:
        """Be set forward, or back."""
        self._stepped += round(seconds * SECOND)
        self.advance(seconds)


class OtherClock:
    """The clock of another machine: off by some seconds, and by `wrong` more where somebody set it wrong."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.off = 0.0
        self.wrong = 0.0

    def __call__(self) -> int:
        return self._clock.steady() + round((self.off + self.wrong) * SECOND)
