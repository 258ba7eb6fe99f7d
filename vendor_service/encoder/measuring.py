"""The measurement behind `--dtype auto`: by what a model computes fastest on this machine.

Each candidate answers a lone query and batches, in turns with the others, so that no slow moment is of one of
them alone. Its speed is the geometric mean of both rates. Flags of a processor say what it can
multiply, not how fast: bfloat16 is three times as fast as float32 on one that has it, and slower on another.
`torch.compile` takes minutes, so it is no candidate but an option.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from shared.embeddings import Kind
from vendor_service.encoder.choice import Timing, Way
from vendor_service.encoder.facts import Dtype
from vendor_service.encoder.replica import Replica

# A measurement may take so long, and no longer than one pass more.
SECONDS = 12.0
_ROUNDS = 12
_LONG_ROUND_SECONDS = 0.5  # after some of these there is no other
_LONG_ROUNDS = 3
# A batch has so many rows, or fewer where it would take longer than this.
_ROWS = {"cpu": 8, "cuda": 64}
_BATCH_SECONDS = 0.8
# What answers a lone query so many times slower than another is measured no further.
_HOPELESS = 1.6
_NO_PREPARATION = 5.0  # explains a first pass that takes so many times as long
# Another arithmetic is another fingerprint, so a few percent, which another day may not have, are no reason.
WORTH_ANOTHER_DTYPE = 1.25
_WORTH_ANOTHER_REPLICA = 1.1
# Ways differ in no digit that counts. A graph waits for Python's lock once and not once an operator, which no
# measurement without neighbours shows.
_WORTH_OF_WAY: Mapping[Way, float] = {"eager": 1.0, "channels-first": 1 / 1.05, "graph": 1.3}


@dataclass
class _Candidate:
    kind: Kind
    dtype: Dtype
    way: Way
    replica: Replica
    lone: list[float] = field(default_factory=list)
    batch: list[float] = field(default_factory=list)
    rows: int = 1

    @property
    def timing(self) -> Timing:
        """What was measured; of the fastest passes, for others were disturbed."""
        lone = min(self.lone)
        rows, batch = (self.rows, min(self.batch)) if self.batch else (1, lone)
        return Timing(
            kind=self.kind,
            dtype=self.dtype,
            way=self.way,
            lone_ms=1000 * lone,
            rows=rows,
            a_second=rows / batch,
        )


# Makes a replica of each way to compute a kind in an arithmetic.
Ways = Callable[[Dtype], Mapping[Kind, Mapping[Way, Replica]]]


def measure(dtypes: Sequence[Dtype], ways: Ways, canaries: Mapping[Kind, Sequence[Any]]) -> list[Timing]:
    """The timings of all ways in all arithmetics, or of as many, from the first, as there is time for."""
    over = time.monotonic() + SECONDS
    going: list[_Candidate] = []
    gone: list[Timing] = []
    for dtype in dtypes:
        if going and time.monotonic() > over:
            break
        for kind, by_way in ways(dtype).items():
            for way, replica in by_way.items():
                candidate = _Candidate(kind, dtype, way, replica)
                best = min((min(each.lone) for each in going if each.kind == kind), default=math.inf)
                if _may_win(candidate, canaries[kind], best):
                    going.append(candidate)
                else:  # and its copy of the model with it
                    gone.append(candidate.timing)
    for number in range(_ROUNDS):
        began = time.monotonic()
        for each in going:
            if time.monotonic() < over or not each.batch:
                _ask(each, canaries[each.kind])
        if number + 1 >= _LONG_ROUNDS and time.monotonic() > began + _LONG_ROUND_SECONDS:
            break
    return [each.timing for each in going] + gone


def _may_win(candidate: _Candidate, canaries: Sequence[Any], best: float) -> bool:
    """Whether a first pass, which also prepares, or the next one is near the best lone query so far."""
    for _ in range(2):
        candidate.lone = [_seconds(candidate, canaries, 1)]
        if candidate.lone[0] > _NO_PREPARATION * best:
            return False
    most = _ROWS[candidate.replica.device.type]
    candidate.rows = max(1, min(most, int(_BATCH_SECONDS / candidate.lone[0])))
    return candidate.lone[0] <= _HOPELESS * best


def _ask(candidate: _Candidate, canaries: Sequence[Any]) -> None:
    candidate.lone.append(_seconds(candidate, canaries, 1))
    candidate.batch.append(_seconds(candidate, canaries, candidate.rows))


def _seconds(candidate: _Candidate, canaries: Sequence[Any], rows: int) -> float:
    return _seconds_of(candidate.replica, candidate.kind, _filled(canaries, rows))


def _seconds_of(replica: Replica, kind: Kind, items: Sequence[Any]) -> float:
    staged = replica.stage(kind, items)
    began = time.perf_counter()
    replica.encode(kind, staged)
    return time.perf_counter() - began


def _filled(canaries: Sequence[Any], rows: int) -> list[Any]:
    return [canaries[number % len(canaries)] for number in range(rows)]


def ranked(timings: Sequence[Timing]) -> list[tuple[Dtype, Way]]:
    """Each arithmetic with the best way of its images, the one to take first; float32 ends the list.

    An arithmetic is as fast as the geometric mean of its images and texts. One that answers lone images or
    batches of them more slowly than float32 comes behind it.
    """
    scores: dict[Dtype, tuple[float, Way]] = {}
    for dtype in dict.fromkeys(each.dtype for each in timings):
        best = {
            kind: max(
                (_WORTH_OF_WAY[each.way] * each.speed, each.way)
                for each in timings
                if (each.dtype, each.kind) == (dtype, kind)
            )
            for kind in ("image", "text")
            if any((each.dtype, each.kind) == (dtype, kind) for each in timings)
        }
        if len(best) == 2 and not _is_slower(timings, dtype):
            worth = WORTH_ANOTHER_DTYPE if dtype == "float32" else 1.0
            scores[dtype] = worth * (best["image"][0] * best["text"][0]) ** 0.5, best["image"][1]
    order = sorted(scores, key=lambda dtype: -scores[dtype][0])
    if "float32" in order:
        order = order[: order.index("float32") + 1]
    return [(dtype, scores[dtype][1]) for dtype in order]


def _is_slower(timings: Sequence[Timing], dtype: Dtype) -> bool:
    """Whether an arithmetic is slower than float32 for lone images, or for batches of them."""
    own, exact = (
        [each for each in timings if (each.kind, each.dtype) == ("image", name)]
        for name in (dtype, "float32")
    )
    if not exact:
        return False
    lone = min(each.lone_ms for each in own) > min(each.lone_ms for each in exact)
    return lone or max(each.a_second for each in own) < max(each.a_second for each in exact)


def best_replicas(
    make: Callable[[int], Replica], threads: int, canaries: Sequence[Any], rows: int
) -> Literal[1, 2]:
    """Whether two replicas, each on half of the threads, answer images faster than one on all of them."""
    if threads < 2:
        return 1
    whole, halves = make(threads), [make(threads // 2) for _ in range(2)]
    items = _filled(canaries, rows)
    speeds: dict[int, list[float]] = {1: [], 2: []}
    with ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            lone, batch = (_seconds_of(whole, "image", each) for each in (items[:1], items))
            speeds[1].append((rows / batch / lone) ** 0.5)
            lone = _seconds_of(halves[0], "image", items[:1])
            began = time.perf_counter()
            list(pool.map(lambda each: _seconds_of(each, "image", items), halves))
            speeds[2].append((2 * rows / (time.perf_counter() - began) / lone) ** 0.5)
    return 2 if max(speeds[2]) > _WORTH_ANOTHER_REPLICA * max(speeds[1]) else 1
