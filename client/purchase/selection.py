"""In which order images are bought, so that wherever a budget ends, it has bought a good training set."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast, get_args

import numpy as np
from numpy.typing import NDArray

from client.errors import ClientError, UsageError
from client.plugins import Plugins, named, of_others

Stratum = tuple[str, str]
SelectionStrategy = Literal["stratified", "random"]
ACQUISITIONS = Plugins("selection", option="--select", group="tuition.acquisitions")


@dataclass(frozen=True)
class PoolState:
    """What a choice of images to buy may look at: nothing of a domain that is held out is among it.

    Attributes:
        domains: the domain of each image that may be bought; of one without a label, its pool.
        labels: its class, shape (n,), int64; -1 where there is no label.
        asked: which images were chosen in earlier rounds, shape (n,), bool.
        vectors: what the teacher said of those, unit embeddings of shape (n, d), float32; NaN of the others,
            and where it refused.
        texts: the teacher's unit class texts, shape (classes, d).
        features: asked for features of all images by the student's network as it begins, shape (n, f); they
            are computed once.
        order: the images as they would be bought otherwise: the same number of each class and domain.
        round: counted from 0.
        random: draws what is to be drawn: the same in each run of this seed and round.
    """

    domains: Sequence[str]
    labels: NDArray[np.int64]
    asked: NDArray[np.bool_]
    vectors: NDArray[np.float32]
    texts: NDArray[np.float32]
    features: Callable[[], NDArray[np.float32]]
    order: Sequence[int]
    round: int
    random: np.random.Generator

    @property
    def left(self) -> list[int]:
        """The images that have not been chosen yet, in `order`."""
        return [position for position in self.order if not self.asked[position]]


class Acquisition(Protocol):
    """Chooses round by round which images are bought: `next`, by what the rounds before it brought.

    An attribute `per_round` says how many images a round has (100 without it). It does not follow the budget,
    so that a run goes on with a larger one where it stopped.
    """

    def next(self, state: PoolState, n: int) -> Sequence[int]:
        """Positions of at most n images of `state.left`, the most wanted first; none, and buying ends."""


def acquisition_name(given: Any) -> str:  # noqa: ANN401 (a name, or an acquisition)
    """The name of what stands in options: an acquisition there is registered.

    Raises:
        UsageError: it stands for none.
    """
    name = named(given, ACQUISITIONS)
    acquisition_of(name)
    return name


def is_known(name: str) -> bool:
    """Whether images can be chosen by this name, as far as can be told without loading anything."""
    return name in get_args(SelectionStrategy) or ACQUISITIONS.knows(name)


def acquisition_of(name: str) -> Acquisition | None:
    """The acquisition of a name; `None` of a `SelectionStrategy`, which needs no rounds.

    Raises:
        UsageError: there is none.
    """
    if name in get_args(SelectionStrategy):
        return None
    found: Any = ACQUISITIONS.load(name)
    if isinstance(found, type):
        with of_others(f"--select {name}"):
            found = found()
    if not callable(getattr(found, "next", None)):
        raise UsageError(
            f"--select {name} is of type {type(found).__name__}: it needs a method `next(state, n)`."
        )
    return cast(Acquisition, found)


def chosen(acquisition: Acquisition, state: PoolState) -> list[int]:
    """The next round of an acquisition.

    Raises:
        ClientError: it raises, or does not give positions of images that are left, each once.
    """
    name, most = type(acquisition).__name__, round_of(acquisition)
    with of_others(f"The acquisition {name}"):
        picks = [int(position) for position in acquisition.next(state, most)]
    left = set(state.left)
    if len(picks) > most or len(set(picks)) < len(picks) or not left.issuperset(picks):
        raise ClientError(
            f"The acquisition {name} chose {len(picks)} images, {len(left.intersection(picks))} of them of "
            f"the {len(left)} that are left: it has to give at most {most} positions of these, each once. "
            "What was bought is kept."
        )
    return picks


def round_of(acquisition: Acquisition) -> int:
    """How many images a round has.

    Raises:
        UsageError: that is no number from 1.
    """
    most = getattr(acquisition, "per_round", 100)
    if not isinstance(most, int) or most < 1:
        raise UsageError(f"`per_round` of {type(acquisition).__name__} is {most!r}, and not a number from 1.")
    return most


def image_order(select: str, strata: Sequence[Stratum], seed: int) -> list[int]:
    """Positions of the images in the order of purchase; it follows from the arguments alone.

    - "stratified": each (domain, class) in turn, and within each as drawn. So it is of an acquisition, too,
      where the budget reaches all images.
    - "random": as drawn from all alike.

    Args:
        strata: (domain, class) of each image.
    """
    rng = random.Random(f"purchase:{seed}")
    if select == "random":
        return rng.sample(range(len(strata)), len(strata))
    members: dict[Stratum, list[int]] = {}
    for position, stratum in enumerate(strata):
        members.setdefault(stratum, []).append(position)
    names = sorted(members)
    rng.shuffle(names)
    queues = [rng.sample(members[name], len(members[name])) for name in names]
    rounds = max(map(len, queues), default=0)
    return [queue[turn] for turn in range(rounds) for queue in queues if turn < len(queue)]
