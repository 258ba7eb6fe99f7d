"""What runs over the same images have in common, done by the first of them alone."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass
class SharedWork:
    """Results by what they depend on: images read, features computed, projectors aligned.

    Attributes:
        kept: how many results of each kind are kept, the least recently used going first; one of the kinds
            that are not named. A run on its own shares with nobody and needs no more than one of each.
    """

    kept: dict[str, int] = field(default_factory=dict)
    _done: dict[str, OrderedDict[str, tuple[Any, float]]] = field(default_factory=dict)

    def once(self, kind: str, key: str, work: Callable[[], T]) -> tuple[T, float]:
        """The result of this work, and the seconds that it took, whoever did it.

        Args:
            kind: what it is ("features").
            key: names everything that the result depends on.
            work: does it; called unless the result is there.
        """
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
