"""Work that runs over the same images share, done by the first of them alone."""

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
            the kinds that are not named. A run on its own shares with nobody and needs no more; 0 lets go of
            what is large.
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
        done, room = self._done.setdefault(kind, OrderedDict()), self.kept.get(kind, 1)
        if key not in done:
            while done and len(done) >= room:  # before the work, which may take as much memory again
                done.popitem(last=False)
            started = time.monotonic()
            result = work(), time.monotonic() - started
            if not room:
                return result
            done[key] = result
        done.move_to_end(key)
        value, seconds = done[key]
        return value, seconds
