"""The observer of the engine: the encoder measures, and leaves it to others to publish."""

from typing import Protocol

from shared.embeddings import Kind


class Observer(Protocol):
    """Is told of every step; its methods are called from the engine's threads and must be quick."""

    def decoded(self, kind: Kind, seconds: float) -> None:
        """An input was checked and prepared, or found to be bad."""

    def restarted(self, kind: Kind, reason: str) -> None:
        """A process that prepares inputs ended, and another takes its place.

        `time`: an input took more processor time than it may; `killed`: by the system or an operator;
        `crash`: of its own fault, or the input's.
        """

    def waited(self, kind: Kind, seconds: float) -> None:
        """The first of one caller's queries leaves the queue."""

    def ran(self, kind: Kind, size: int, seconds: float) -> None:
        """The model answered a batch of `size` queries."""

    def died(self) -> None:
        """The worker of a device died."""

    def looked_up(self, *, hits: int, misses: int) -> None:
        """Texts were looked for in the cache."""
