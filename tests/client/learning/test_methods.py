"""The paper's equations against arithmetic written out by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from client.learning.methods import METHODS, cosine_logits
from client.learning.methods.rise import rise_loss
from client.learning.methods.simkd import squared_loss
from client.learning.methods.vl2v import cosine_loss
from client.learning.supervision import Supervision


def _known(
    images: NDArray[np.float64],
    bought: NDArray[np.bool_],
    texts: NDArray[np.float64],
    labels: NDArray[np.int64],
    weight: float,
) -> Supervision:
    labelled, heads, embeddings, have = map(torch.tensor, (labels, texts, images, bought))
    return Supervision(labelled, heads, embeddings, have, weight)


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
    targets = METHODS["vl2v-adip"].targets(_known(images, bought, texts, np.arange(n), weight))
    assert math.isclose(cosine_loss(torch.tensor(outputs), targets).item(), total / n, abs_tol=1e-9)


def test_what_was_not_bought_leaves_no_trace() -> None:
    texts, labels = np.eye(2, 3), np.arange(2)
    known = _known(np.full((2, 3), np.nan), np.zeros(2, np.bool_), texts, labels, 0.5)
    assert torch.equal(METHODS["vl2v-adip"].targets(known), torch.tensor(texts))


def test_logits_are_a_hundred_cosines() -> None:
    logits = cosine_logits(torch.tensor([[3.0, 4.0]]), torch.eye(2))
    assert torch.allclose(logits, torch.tensor([[60.0, 80.0]]))


def _softmax(values: list[float]) -> list[float]:
    shares = [math.exp(value - max(values)) for value in values]
    return [share / sum(shares) for share in shares]


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    dot, lengths = sum(x * y for x, y in zip(a, b, strict=True)), math.hypot(*a) * math.hypot(*b)
    return float(dot / lengths)


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_soft_labels_mix_the_label_with_the_teachers_answer(seed: int, weight: float) -> None:
    rng = np.random.default_rng(seed)
    images, heads, labels = _unit(rng, 4, 5), _unit(rng, 3, 5), rng.integers(0, 3, 4)
    bought = rng.random(4) < 0.6
    images[~bought] = np.nan
    made = METHODS["kd"].targets(_known(images, bought, heads, labels, weight))
    for row, image, have, label in zip(made.tolist(), images, bought, labels, strict=True):
        answer = _softmax([100 * _cosine(image, head) for head in heads]) if have else None
        for k, share in enumerate(row):
            own = float(k == label)
            expected = own if answer is None else weight * answer[k] + (1 - weight) * own
            assert math.isclose(share, expected, abs_tol=1e-9)


@given(st.integers(0, 10_000))
def test_the_squared_loss_counts_what_was_bought(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images, outputs = _unit(rng, 6, 4), rng.normal(size=(6, 4))
    bought = rng.random(6) < 0.5
    distances = [sum((p - i) ** 2) for p, i, have in zip(outputs, images, bought, strict=True) if have]
    images[~bought] = np.nan
    targets = METHODS["simkd"].targets(_known(images, bought, images, np.arange(6), 0.5))
    expected = sum(distances) / len(distances) if distances else 0.0
    assert math.isclose(squared_loss(torch.tensor(outputs), targets).item(), expected, abs_tol=1e-9)


def test_an_image_that_was_not_bought_moves_nothing_where_only_images_teach() -> None:
    outputs = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    texts, unknown = np.eye(3, 4), np.full((3, 4), np.nan)
    nothing = _known(unknown, np.zeros(3, np.bool_), texts, np.arange(3), 0.5)
    for name, loss in (("image-only", cosine_loss), ("simkd", squared_loss)):
        (gradient,) = torch.autograd.grad(loss(outputs, METHODS[name].targets(nothing)), outputs)
        assert not gradient.any()


def _shares(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Softmax of each row."""
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_rises_loss_is_its_four_terms(seed: int, weight: float) -> None:
    rng = np.random.default_rng(seed)
    n, classes, styles, d = 5, 3, 4, 6
    images, heads, styled = _unit(rng, n, d), _unit(rng, classes, d), _unit(rng, classes * styles, d)
    styled = styled.reshape(classes, styles, d)
    embeddings, scores = rng.normal(size=(n, d)), 4 * rng.normal(size=(n, classes))
    labels, bought = rng.integers(0, classes, n), rng.random(n) < 0.7
    distilled = classified = absolute = relative = 0.0
    for e, s, image, have, y in zip(embeddings, scores, images, bought, labels, strict=True):
        q, p = _shares(100 * heads @ image / 3), _shares(s / 3)
        own_weight = weight if have else 0.0
        distilled += float(own_weight * 9 * np.sum(q * (np.log(q + 1e-300) - np.log(p))))
        classified -= (1 - own_weight) * np.log(_shares(s)[y])
        absolute += 1 - _cosine(e, heads[y])
        student = _shares(np.array([_cosine(e, each) for each in styled[y]]))
        teacher = _shares(np.array([_cosine(heads[y], each) for each in styled[y]]))
        relative += float(np.mean((student - teacher) ** 2))
    images[~bought] = np.nan
    known = Supervision(
        torch.tensor(labels),
        torch.tensor(heads),
        torch.tensor(images),
        torch.tensor(bought),
        weight,
        styled_texts=torch.tensor(styled),
    )
    rise = METHODS["rise"]
    texts = rise.texts_of_loss(known)
    assert texts is not None
    outputs = torch.cat([torch.tensor(embeddings), torch.tensor(scores)], dim=1)
    found = rise_loss(outputs, rise.targets(known), texts).item()
    assert math.isclose(found, (distilled + classified + absolute + 10 * relative) / n, rel_tol=1e-9)


def test_a_twin_and_a_vendor_with_the_same_answers_give_the_same_targets() -> None:
    images, texts = torch.eye(2), torch.eye(2).flip(0)
    known = Supervision(torch.tensor([0, 1]), texts, images, torch.tensor([True, True]), image_weight=0.3)
    left_for_the_twin = METHODS["vl2v-sd"].targets(known)
    assert torch.allclose(left_for_the_twin + 0.3 * images, METHODS["vl2v-sd-bought"].targets(known))


def test_each_end_of_the_image_weight_is_a_method() -> None:
    images, texts = torch.eye(3), torch.eye(3).flip(0)
    bought = torch.tensor([True, True, True])

    def targets(name: str, weight: float) -> torch.Tensor:
        rows: torch.Tensor = METHODS[name].targets(
            Supervision(torch.arange(3), texts, images, bought, weight)
        )
        return rows

    assert torch.equal(targets("image-only", 0.5), targets("vl2v-adip", 1.0))
    assert torch.equal(targets("text-only", 0.5), targets("vl2v-adip", 0.0))


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.learns_unlabelled])
def test_an_unlabelled_image_is_taught_by_its_embedding_alone(name: str) -> None:
    images, texts = torch.eye(4)[:3], torch.eye(4)[1:4]
    labels, bought = torch.tensor([0, 1, -1]), torch.tensor([True, True, True])
    targets = METHODS[name].targets(Supervision(labels, texts, images, bought, image_weight=0.3))
    labelled = METHODS[name].targets(Supervision(labels[:2], texts, images[:2], bought[:2], 0.3))
    assert torch.equal(targets[:2], labelled)
    alone = (100 * images[2] @ texts.T).softmax(0) if name == "kd" else images[2]
    assert torch.allclose(targets[2], alone)
