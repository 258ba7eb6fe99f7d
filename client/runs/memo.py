"""What runs over the same images have in common, done by the first of them alone."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from client.data.file_memory import FileMemory
from client.runs.digest import StageInputs, digest_of

T = TypeVar("T")


@dataclass
class Memo:
    """Results by what they depend on: images read, features computed, projectors aligned.

    Attributes:
        kept: how many results of each kind of inputs are kept, the least recently used going first; one of
            the kinds that are not named. A run on its own shares with nobody and needs no more.
        files: what is known of image files, over all commands.
    """

    kept: dict[type[StageInputs], int] = field(default_factory=dict)
    files: FileMemory = field(default_factory=lambda: FileMemory(None))
    _done: dict[type[StageInputs], OrderedDict[str, tuple[Any, float]]] = field(default_factory=dict)

    def once(self, inputs: StageInputs, work: Callable[[], T]) -> tuple[T, float]:
        """The result of this work, and the seconds that it took, whoever did it.

        Args:
            inputs: everything that the result depends on.
            work: does it; called unless the result is there.
        """
        kind, key = type(inputs), digest_of(inputs)
        done = self._done.setdefault(kind, OrderedDict())
        if key not in done:
            started = time.monotonic()
            result = work()
            done[key] = (result, time.monotonic() - started)
            while len(done) > self.kept.get(kind, 1):
                done.popitem(last=False)
        done.move_to_end(key)
        value, seconds = done[key]
        return value, seconds
