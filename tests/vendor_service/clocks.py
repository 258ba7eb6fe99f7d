"""A clock for tests."""

from datetime import datetime

from vendor_service.clock import SECOND, from_datetime


class FakeClock:
    """A clock that moves only when told to; it starts in the middle of a month."""

    def __init__(self) -> None:
        self.now = from_datetime(datetime(2026, 11, 15, 12))

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)
