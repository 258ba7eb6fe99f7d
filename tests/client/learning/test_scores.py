"""How class scores do on hold-outs."""

import math

import pytest
import torch

from client.learning.scores import score


def test_a_half_is_scored_as_if_it_were_all_of_the_hold_outs() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 0.0], [0.0, 2.0]])
    labels, domains = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([4, 4, 4, 7, 7])
    halves = torch.tensor([0, 1, 0, 1, 1])
    found = score(logits, labels, domains, halves)
    losses = [math.log(1 + math.exp(-gap)) for gap in (2, -1, 3, 0, 2)]
    assert found.accuracy == pytest.approx((2 / 3 + 1 / 2) / 2)
    first, second = found.halves
    assert first.accuracy == 1
    assert second.accuracy == pytest.approx((0 + 1 / 2) / 2)
    assert first.loss == pytest.approx((losses[0] + losses[2]) / 2)
    assert second.loss == pytest.approx((losses[1] + (losses[3] + losses[4]) / 2) / 2)
    whole = score(logits, labels, domains)
    assert (whole.accuracy, whole.loss, whole.halves) == (found.accuracy, found.loss, ())
    assert score(logits, labels, domains, torch.zeros(5, dtype=torch.long)).halves == ()
