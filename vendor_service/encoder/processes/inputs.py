"""Inputs that are decoded or tokenized for a caller, and what became of them."""

import asyncio
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vendor_service.errors import APIError

# A `large` input needs more memory than every process may have at the same time, a `long` one so much time
# that a process is to be left to others. The process that is given one finds out, and hands it back.
Grade = Literal["small", "long", "large"]
# The bytes that a process made of an input, or why there are none.
Outcome = NDArray[np.uint8] | APIError


@dataclass(eq=False)
class InputJob:
    """One caller's inputs, and their outcomes so far; those of the `background` wait for all others."""

    account: str
    done: "asyncio.Future[list[Outcome]]"
    outcomes: list[Outcome | None]
    background: bool = False
    left: int = field(init=False)
    seconds: list[float] = field(init=False)  # of a processor, that each of them took so far

    def __post_init__(self) -> None:
        self.left = len(self.outcomes)
        self.seconds = [0.0] * self.left

    def put(self, index: int, outcome: Outcome) -> None:
        """Take the outcome of one input; the caller is told when it was the last."""
        if self.outcomes[index] is None:
            self.outcomes[index] = outcome
            self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result([each for each in self.outcomes if each is not None])


@dataclass(eq=False)
class Input:
    """One input: its bytes, or text of which the bytes are base64 (`encoded`)."""

    job: InputJob
    index: int
    content: bytes | str
    encoded: bool = False
    deaths: int = 0  # of processes that worked on it
    grade: Grade = "small"
    more_bytes: int = 0  # that a large one needs beyond what every process may have

    @property
    def gone(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.job.done.done()

    def took(self, seconds: float) -> None:
        """Note the processor time that it took, in vain or not."""
        self.job.seconds[self.index] += seconds

    def put(self, outcome: Outcome) -> None:
        """Note what became of it."""
        self.job.put(self.index, outcome)
