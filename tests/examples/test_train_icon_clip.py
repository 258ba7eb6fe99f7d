"""Training of the bundled teacher."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import vendor_service
from examples import train_icon_clip
from examples.icon_corpus import Corpus
from examples.train_icon_clip import (
    CONTEXT,
    SIZE,
    Lesson,
    Schedule,
    contrastive_loss,
    first_stages,
    new_model,
    similarities,
    train,
    write,
)


class CutShort(Exception):
    """The end of the first attempt."""


def _corpus() -> Corpus:
    generator = np.random.default_rng(0)
    ink = generator.integers(0, 256, (6, 96, 96), dtype=np.uint8)
    regions, colours = np.zeros_like(ink), np.zeros((0, 96, 96, 4), np.uint8)
    return Corpus(ink, regions, colours, ["sun", "tent", "sun", "disc", "moon", "tent"], ["line"] * 6)


@pytest.mark.slow
def test_training_that_was_cut_short_ends_in_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = _corpus()
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


def test_the_network_is_that_of_the_bundled_model(tmp_path: Path) -> None:
    model = new_model()
    write(model, tmp_path)
    bundled = Path(vendor_service.__file__).parent / "models" / "icon_clip"
    config = "open_clip_config.json"
    assert json.loads((tmp_path / config).read_text()) == json.loads((bundled / config).read_text())
    weights = "open_clip_model.safetensors"
    begun, taught = load_file(tmp_path / weights), load_file(bundled / weights)
    assert {k: v.shape for k, v in begun.items()} == {k: v.shape for k, v in taught.items()}
    # What stays frozen is in the bundled file as it was before: it began with the same weights.
    modules = {id(part) for stage in first_stages(model.visual.trunk) for part in stage.parameters()}
    frozen = [name for name, each in model.named_parameters() if id(each) in modules]
    assert len(frozen) == 27
    assert all(torch.equal(begun[name], taught[name]) for name in frozen)


def test_the_first_steps_are_those_of_the_code_that_trained_the_bundled_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses = []

    def noted(*given: Any) -> torch.Tensor:
        losses.append(contrastive_loss(*given))
        return losses[-1]

    monkeypatch.setattr(train_icon_clip, "contrastive_loss", noted)
    train(_corpus(), Schedule(steps=3, batch=4), seed=1)
    # What commit f026bbaa, which has the bundled weights, gives for the same.
    assert [each.item() for each in losses] == pytest.approx([1.8914, 1.4005, 1.2784], rel=0.02)


def test_a_picture_is_not_held_against_another_name_for_its_kind() -> None:
    torch.manual_seed(0)
    model = new_model().eval()
    pictures, tokens = torch.randn(3, 3, SIZE, SIZE), torch.randint(1, 999, (3, CONTEXT))
    names = torch.tensor([0, 1, 2])  # a ship, a sailboat, a bell

    apart, together = (
        Lesson(pictures, tokens, names, torch.tensor(kinds)) for kinds in ([0, 1, 2], [0, 0, 2])
    )
    with torch.no_grad():
        logits = similarities(model, apart)
        losses = contrastive_loss(model, apart), contrastive_loss(model, together)
    assert losses[0] == pytest.approx(_expected(logits, [[1, 1, 1], [1, 1, 1], [1, 1, 1]]), rel=1e-4)
    assert losses[1] == pytest.approx(_expected(logits, [[1, 0, 1], [0, 1, 1], [1, 1, 1]]), rel=1e-4)


def _expected(logits: torch.Tensor, counted: list[list[int]]) -> float:
    """CLIP's loss by hand: minus the log of the right pair's share, of the pairs that count."""
    weights, total = torch.tensor(counted) * logits.double().exp(), 0.0
    for each in range(3):
        right = weights[each, each]
        total -= float((right / weights[each].sum()).log() + (right / weights[:, each].sum()).log())
    return total / 6
