"""What a run knows of its images: labels, and what the cache has of the teacher."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from client.buying.queries import Query
from client.buying.teacher import Teacher
from client.learning.methods import Supervision, parse_method
from client.runs.dataset import Dataset
from client.runs.folder import RunConfig
from client.runs.teacher_queries import ImageQueries, TeacherQueries


def nothing_bought(config: RunConfig, dataset: Dataset, text_head: Tensor) -> Supervision:
    """The labels, and class texts of shape (classes, d), without an image's embedding."""
    count = len(dataset.examples)
    return Supervision(
        labels=torch.tensor(dataset.labels),
        text_head=text_head,
        images=torch.zeros(count, text_head.shape[1]),
        bought=torch.zeros(count, dtype=torch.bool),
        image_weight=config.recipe.image_weight,
    )


def known_of(
    config: RunConfig, dataset: Dataset, asked: TeacherQueries, teacher: Teacher
) -> tuple[Supervision | None, list[Query]]:
    """What the cache has of what is asked, and the queries that it lacks.

    Without all class prompts there is no knowledge, and the queries are the prompts that are missing.
    """
    texts, have_texts = teacher.lookup(asked.prompts)
    if not have_texts.all():
        return None, [query for query, ok in zip(asked.prompts, have_texts, strict=True) if not ok]
    method, _ = parse_method(config.method, config.recipe)
    text_head, styled = method.prompts.class_texts(torch.from_numpy(texts), len(dataset.classes))
    known = replace(nothing_bought(config, dataset, text_head), styled_texts=styled)
    return known, [query for tranche in asked.images for query in _look_up(known, tranche, teacher)]


def _look_up(known: Supervision, asked: ImageQueries, teacher: Teacher) -> Sequence[Query]:
    """Add what the teacher says of some examples; returns those of which it says nothing."""
    vectors, have = teacher.lookup(asked.queries)
    known.images[asked.positions] = torch.from_numpy(vectors)
    known.bought[asked.positions] = torch.from_numpy(have)
    return [query for query, ok in zip(asked.queries, have, strict=True) if not ok]
