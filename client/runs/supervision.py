"""The knowledge that a run has of its images: labels, and the teacher's answers in the cache."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from client.learning.supervision import ROWS_AT_ONCE, Supervision
from client.purchase.buyer import Buyer
from client.runs.config import RunConfig
from client.runs.dataset import Dataset
from client.runs.mapped import mapped_zeros
from client.runs.teacher_queries import ImageQueries, TeacherQueries
from client.vendors.query import Query


def nothing_bought(config: RunConfig, dataset: Dataset, text_head: Tensor) -> Supervision:
    """The labels, and class texts of shape (classes, d), without an image's embedding."""
    count = len(dataset.examples)
    return Supervision(
        labels=torch.tensor(dataset.labels),
        text_head=text_head,
        images=torch.zeros(1, text_head.shape[1]).expand(count, -1),  # which takes no memory
        bought=torch.zeros(count, dtype=torch.bool),
        image_weight=config.recipe.image_weight,
    )


def known_of(
    config: RunConfig,
    dataset: Dataset,
    asked: TeacherQueries,
    teacher: Buyer,
    *,
    folder: Path | None = None,
) -> tuple[Supervision | None, list[Query]]:
    """The cache's answers to what is asked, and the queries that it lacks.

    Without all class prompts there is no knowledge, and the queries are the prompts that are missing.

    Args:
        config: the run.
        dataset: its images.
        asked: what it asks.
        teacher: whose cache it is.
        folder: where the images' embeddings may lie in a file (`mapped_zeros`).
    """
    texts, have_texts = teacher.lookup(asked.prompts)
    if not have_texts.all():
        return None, [query for query, ok in zip(asked.prompts, have_texts, strict=True) if not ok]
    text_head, styled = map(torch.from_numpy, asked.sentences.class_texts(texts))
    images = mapped_zeros(len(dataset.examples), text_head.shape[1], folder=folder)
    known = replace(nothing_bought(config, dataset, text_head), styled_texts=styled, images=images)
    return known, [query for tranche in asked.images for query in _look_up(known, tranche, teacher)]


def _look_up(known: Supervision, asked: ImageQueries, teacher: Buyer) -> list[Query]:
    """Add what the teacher says of some examples; returns those of which it says nothing."""
    missing: list[Query] = []
    for start in range(0, len(asked.queries), ROWS_AT_ONCE):
        queries, positions = (
            asked.queries[start : start + ROWS_AT_ONCE],
            asked.positions[start : start + ROWS_AT_ONCE],
        )
        vectors, have = teacher.lookup(queries)
        known.images[positions] = torch.from_numpy(np.nan_to_num(vectors))
        known.bought[positions] = torch.from_numpy(have)
        missing += [query for query, ok in zip(queries, have, strict=True) if not ok]
    return missing
