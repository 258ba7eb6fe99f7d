"""The context that the runs of one command share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client.learning.processes import SINGLE_PROCESS, Processes
from client.progress import Display
from client.runs.memo import Memo


def _agreed(_: Any) -> None:  # noqa: ANN401 (whatever is asked)
    """Agree to everything."""


@dataclass(frozen=True)
class RunContext:
    """The context that the runs of one command share.

    Attributes:
        display: what a person sees meanwhile.
        device: where to train.
        pixels: the folder of decoded images.
        memo: results that several runs use.
        processes: those that train together; the first of them does everything else alone.
        approve: called with the price before anything is bought; it raises to stop.
        agree: called with the reason before a finished student is replaced, or anything is bought for its
            successor; it raises to stop.
    """

    display: Display
    device: str
    pixels: Path
    memo: Memo = field(default_factory=Memo)
    processes: Processes = SINGLE_PROCESS
    approve: Callable[[int], None] = _agreed
    agree: Callable[[str], None] = _agreed
