"""The timing of a request: when each of its steps began and ended."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, get_args

StepName = Literal["decode", "queue", "model", "books"]


@dataclass(frozen=True)
class Step:
    """Something that took from `began` to `ended`, in nanoseconds since 1970."""

    name: str
    began: int
    ended: int

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.ended - self.began) / 1e9


@dataclass
class Timing:
    """The steps of one request, in the order in which they ended; the books are asked up to three times."""

    steps: list[Step] = field(default_factory=list)

    @contextmanager
    def timed(self, name: StepName) -> Iterator[None]:
        """Note a step that is done here."""
        began = time.time_ns()
        try:
            yield
        finally:
            self.steps.append(Step(name, began, time.time_ns()))

    def encoded(self, began: int, *, waited: float, ran: float) -> None:
        """Note that the model has answered: seconds that queries waited since `began`, and that it ran."""
        ended = time.time_ns()
        self.steps.append(Step("queue", began, began + round(1e9 * waited)))
        self.steps.append(Step("model", ended - round(1e9 * ran), ended))

    def __str__(self) -> str:
        """The value of a `Server-Timing` header, in milliseconds."""
        sums = dict.fromkeys(get_args(StepName), 0.0)
        for step in self.steps:
            sums[step.name] += step.seconds
        return ", ".join(f"{name};dur={1000 * seconds:.1f}" for name, seconds in sums.items())
