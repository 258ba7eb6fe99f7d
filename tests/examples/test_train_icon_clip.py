"""Training of the bundled teacher: cut short, it goes on, and ends in the same weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from examples import train_icon_clip
from examples.icon_corpus import Corpus
from examples.train_icon_clip import Schedule, contrastive_loss, train


class CutShort(Exception):
    """The end of the first attempt."""


def test_training_that_was_cut_short_ends_in_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    ink = generator.integers(0, 256, (6, 96, 96), dtype=np.uint8)
    regions, colours = np.zeros_like(ink), np.zeros((0, 96, 96, 4), np.uint8)
    corpus = Corpus(ink, regions, colours, ["sun", "tent", "sun", "disc", "moon", "tent"], ["line"] * 6)
    schedule = Schedule(steps=4, batch=4)
    whole = train(corpus, schedule, seed=1)

    steps: list[int] = []

    def failing_once(*given: Any) -> torch.Tensor:
        steps.append(len(steps) + 1)
        if len(steps) == 4:
            raise CutShort
        return contrastive_loss(*given)

    monkeypatch.setattr(train_icon_clip, "_CHECKPOINT_EVERY", 2)
    monkeypatch.setattr(train_icon_clip, "contrastive_loss", failing_once)
    checkpoint = tmp_path / "checkpoint.pt"
    with pytest.raises(CutShort):
        train(corpus, schedule, seed=1, checkpoint=checkpoint)
    resumed = train(corpus, schedule, seed=1, checkpoint=checkpoint)
    assert len(steps) == 4 + 2  # the first two were not taken again
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
