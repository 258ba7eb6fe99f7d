"""The rounds in which an acquisition has images bought; a resumed run goes through them again for nothing."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from client.purchase.buyer import Buyer
from client.purchase.plan import TrancheName
from client.purchase.selection import Acquisition, PoolState, chosen
from client.runs.config import RunConfig
from client.runs.dataset import Dataset
from client.runs.supervision import known_of
from client.runs.teacher_queries import TeacherQueries
from client.vendors.query import Query

# Of positions of images: features of shape (n, f).
Features = Callable[[Sequence[int]], NDArray[np.float32]]


class Rounds:
    """The rounds of one run.

    Only what they chose themselves is shown to the next round, and not what else the cache has: the same run
    chooses the same images whoever bought others before.
    """

    def __init__(
        self, acquisition: Acquisition, config: RunConfig, dataset: Dataset, features: Features
    ) -> None:
        self._acquisition = acquisition
        self._config = config
        self._dataset = dataset
        self._features = features

    def lots(self, name: TrancheName, asked: TeacherQueries, teacher: Buyer) -> Iterator[list[Query]]:
        """The queries of each round of a tranche, to be bought before the next round is asked for."""
        tranche = asked.of(name)
        if not tranche.positions:
            return
        state = self._begin(tranche.positions, asked, teacher)
        while state.left:
            picks = chosen(self._acquisition, state)
            if not picks:
                return
            queries = [tranche.queries[pick] for pick in picks]
            yield queries
            vectors, was_asked = state.vectors.copy(), state.asked.copy()
            vectors[picks], _ = teacher.lookup(queries)
            was_asked[picks] = True
            state = self._at(replace(state, vectors=vectors, asked=was_asked), state.round + 1)

    def _begin(self, positions: Sequence[int], asked: TeacherQueries, teacher: Buyer) -> PoolState:
        dataset, count = self._dataset, len(positions)
        known, _ = known_of(self._config, dataset, replace(asked, images=()), teacher)
        texts = (
            np.zeros((0, teacher.model.dimensions), np.float32) if known is None else known.text_head.numpy()
        )
        examples = [dataset.examples[position] for position in positions]
        state = PoolState(
            domains=[example.domain for example in examples],
            labels=np.array([example.label for example in examples]),
            asked=np.zeros(count, bool),
            vectors=np.full((count, texts.shape[1]), np.nan, np.float32),
            texts=texts,
            features=cache(lambda: self._features(positions)),
            order=range(count),
            round=0,
            random=np.random.default_rng(),
        )
        return self._at(state, 0)

    def _at(self, state: PoolState, number: int) -> PoolState:
        return replace(state, round=number, random=np.random.default_rng((self._config.seed, number)))
