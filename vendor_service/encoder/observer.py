"""The observer of the engine: the encoder measures, and leaves it to others to publish."""

from typing import Protocol

from shared.kinds import Kind
from shared.processes import pool as processes


class Observer(processes.Observer, Protocol):
    """Is told of every step; its methods are called from the engine's threads and must be quick."""

    def waited(self, kind: Kind, seconds: float) -> None:
        """The first of one caller's queries leaves the queue."""

    def ran(self, kind: Kind, size: int, seconds: float) -> None:
        """The model answered a batch of `size` queries."""

    def died(self) -> None:
        """The worker of a device died."""

    def looked_up(self, *, hits: int, misses: int) -> None:
        """Texts were looked for in the cache."""
