"""The paper's equations against arithmetic written out by hand."""

import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from client.learning.losses import cosine_logits, cosine_loss, teacher_targets


def _unit(rng: np.random.Generator, n: int, d: int) -> NDArray[np.float64]:
    rows = rng.normal(size=(n, d))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_the_loss_is_the_weighted_sum_of_two_cosines(seed: int, weight: float) -> None:
    rng = np.random.default_rng(seed)
    n, d = 7, 5
    images, texts, outputs = _unit(rng, n, d), _unit(rng, n, d), 3 * rng.normal(size=(n, d))
    bought = rng.random(n) < 0.6
    total = 0.0
    for p, image, text, have in zip(outputs, images, texts, bought, strict=True):
        length = math.sqrt(sum(v * v for v in p))
        to_image = sum(a * b for a, b in zip(p, image, strict=True)) / length
        to_text = sum(a * b for a, b in zip(p, text, strict=True)) / length
        total -= weight * to_image + (1 - weight) * to_text if have else to_text
    targets = teacher_targets(*map(torch.tensor, (images, bought, texts)), image_weight=weight)
    assert math.isclose(cosine_loss(torch.tensor(outputs), targets).item(), total / n, abs_tol=1e-9)


def test_what_was_not_bought_leaves_no_trace() -> None:
    texts = torch.eye(2, 3)
    nothing = torch.full((2, 3), torch.nan)
    targets = teacher_targets(nothing, torch.tensor([False, False]), texts, image_weight=0.5)
    assert torch.equal(targets, texts)


def test_logits_are_a_hundred_cosines() -> None:
    logits = cosine_logits(torch.tensor([[3.0, 4.0]]), torch.eye(2))
    assert torch.allclose(logits, torch.tensor([[60.0, 80.0]]))
