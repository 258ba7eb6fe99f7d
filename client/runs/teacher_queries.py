"""What a run asks its teacher: class prompts, training images, and further views of these."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from client.buying.budget import Plan, purchase_order
from client.buying.queries import Query
from client.buying.selection import Stratum
from client.buying.teacher import Teacher
from client.data.domains import Example
from client.data.manifests import styles_of
from client.errors import UsageError
from client.learning.methods import parse_method
from client.runs.folder import RunConfig
from client.runs.sources import Sources, asks


@dataclass(frozen=True)
class Questions:
    """What a run asks the teacher.

    Attributes:
        prompts: the sentences about each class, class by class; one each, unless the method asks more.
        images: one query a training image. Hold-outs need none.
        positions: which of `Sources.examples` each of `images` is.
        strata: the domain and class name of each of `images`.
        views: the further views of each of `images`.
        view_positions: which of `Sources.examples` each of `views` is.
        features: what each of `images` looks like, shape (n, f), where they are chosen by coverage.
    """

    prompts: list[Query]
    images: list[Query]
    positions: list[int]
    strata: list[Stratum]
    views: list[list[Query]]
    view_positions: list[list[int]]
    features: NDArray[np.float32] | None = None

    @property
    def all(self) -> list[Query]:
        """Every query, some of them perhaps alike."""
        return [*self.prompts, *self.images, *chain(*self.views)]

    @property
    def further(self) -> tuple[list[Query], list[int]]:
        """The further views one after the other, and which example each is."""
        return list(chain(*self.views)), list(chain(*self.view_positions))


def questions(config: RunConfig, sources: Sources, features: NDArray[np.float32] | None = None) -> Questions:
    """What the run's method asks about, up to the first `use_at_most` queries in the order of purchase.

    Args:
        config: the run.
        sources: its images.
        features: of each training image, shape (n, f), where they are chosen by coverage.

    Raises:
        UsageError: the run may use fewer than the class prompts.
    """
    asked = _questions(config, sources, features)
    if config.use_at_most is None:
        return asked
    if config.use_at_most < len(asked.prompts):
        raise UsageError(
            f"{config.use_at_most} queries a run do not reach the {len(asked.prompts)} class prompts of "
            f"{config.method}, without which no student can name its classes. Raise --budget."
        )
    order = purchase_order(
        asked.prompts,
        asked.images,
        asked.strata,
        seed=config.seed,
        select=config.select,
        features=asked.features,
        views=asked.views,
    )
    return _only(asked, set(order[: config.use_at_most]))


def _questions(config: RunConfig, sources: Sources, features: NDArray[np.float32] | None) -> Questions:
    classes, examples = sources.folder.classes, sources.examples
    asked_for = asks(config)
    positions, views = (sources.train, sources.views) if "images" in asked_for else ([], [])
    return Questions(
        prompts=_prompts(config, sources) if "texts" in asked_for else [],
        images=[query_of(examples[position]) for position in positions],
        positions=positions,
        strata=[(examples[position].domain, classes[examples[position].label]) for position in positions],
        views=[[query_of(examples[position]) for position in further] for further in views],
        view_positions=views,
        features=features if positions else None,
    )


def _prompts(config: RunConfig, sources: Sources) -> list[Query]:
    method, _ = parse_method(config.method, config.recipe)
    styles = styles_of(sources.folder, sources.domains)
    return [Query.text(each) for each in method.prompts.sentences(sources.folder.classes, styles)]


def query_of(example: Example) -> Query:
    """The query of an image, or of a further view, whose bytes are read or made when they are sent."""
    view = f" (view {example.view.index})" if example.view.index else ""
    return Query("image", example.digest, f"{example.path}{view}", example.content)


def _only(asked: Questions, chosen: set[Query]) -> Questions:
    """The same without the image queries that were not chosen."""
    kept = [row for row, query in enumerate(asked.images) if query in chosen]

    def views_of(row: int) -> Iterator[tuple[Query, int]]:
        for query, position in zip(asked.views[row], asked.view_positions[row], strict=True):
            if query in chosen:
                yield query, position

    return Questions(
        prompts=asked.prompts,
        images=[asked.images[row] for row in kept],
        positions=[asked.positions[row] for row in kept],
        strata=[asked.strata[row] for row in kept],
        views=[[query for query, _ in views_of(row)] for row in kept],
        view_positions=[[position for _, position in views_of(row)] for row in kept],
        features=None if asked.features is None else asked.features[kept],
    )


def plan_of(config: RunConfig, asked: Questions, teacher: Teacher) -> Plan:
    """What the run would buy."""
    return teacher.plan(
        asked.prompts,
        asked.images,
        asked.strata,
        seed=config.seed,
        select=config.select,
        features=asked.features,
        views=asked.views,
    )
