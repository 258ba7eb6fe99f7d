"""Figures that tests compare with limits: `make bench-attacks` shows how near attacks come to them."""

from typing import NamedTuple


class Figure(NamedTuple):
    """What was measured, and the most that it may be, in the same unit."""

    value: float
    limit: float
    unit: str

    @property
    def share(self) -> float:
        """How much of the limit was reached; of a limit of 0 nothing or all."""
        return self.value / self.limit if self.limit else float(self.value > 0)

    def __str__(self) -> str:
        return f"{_written(self.value)} of {_written(self.limit)} {self.unit}"


def _written(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


_kept: list[Figure] = []


def holds(value: float, limit: float, unit: str) -> bool:
    """Whether a figure is within its limit; write `assert holds(...)`, and the scoreboard shows it."""
    _kept.append(Figure(value, limit, unit))
    return value <= limit


def taken() -> list[Figure]:
    """The figures since the last call."""
    found = _kept.copy()
    _kept.clear()
    return found
