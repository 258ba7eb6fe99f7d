"""Rivals of the benchmarks train by the public interface; styles that are sealed stay so."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from benchmarks import unseen
from benchmarks.rivals import RIVALS, by_cache, by_probe, propagated
from client.learning.methods import Method
from client.learning.stages import align, align_features, distill
from client.learning.supervision import Supervision
from client.runs.targets import target_rows
from tests.client.learning.toy_lessons import RECIPE, toy_lesson
from tests.client.toy import make_folder

BRIEF = replace(RECIPE, align_views=1, align_steps=2, steps=2, images_per_domain=2)


@pytest.mark.parametrize("method", RIVALS, ids=lambda method: method.name)
def test_a_rival_trains_on_images_with_and_without_labels(tmp_path: Path, method: Method) -> None:
    student, data = toy_lesson(make_folder(tmp_path / "toy", images=5), "vl2v-adip")
    labels, domains = data.labels.clone(), data.domains.clone()
    labels[data.train[::3]], domains[data.train[::3]] = -1, -1
    assert student.text_head is not None
    images = functional.normalize(torch.randn(len(labels), student.text_head.shape[1]), dim=1)
    bought = torch.arange(len(labels)) % 5 > 0
    if method.asks:  # what was not bought is not trained on where it has no label
        data = replace(data, train=[i for i in data.train if bought[i] or labels[i] >= 0])
    known = Supervision(labels, student.text_head, images, bought, 0.5)
    rows, texts = target_rows(known, method, tmp_path), method.texts_of_loss(known)
    data = replace(data, labels=labels, domains=domains, targets=rows, texts=texts)
    align(student, data, align_features(student, data, BRIEF, seed=0), method, BRIEF, seed=0)
    before = {key: tensor.clone() for key, tensor in student.state_dict().items()}
    distill(student, data, method, BRIEF, seed=0)
    after = student.state_dict()
    assert all(tensor.isfinite().all() for tensor in after.values())
    assert any(not torch.equal(after[key], before[key]) for key in before)


def test_labels_spread_along_neighbours_to_images_that_no_text_is_near() -> None:
    """A chain of images leads from a labelled one away from its text; a second class lies apart."""
    steps = torch.linspace(0, 1.2, 8)
    chain = torch.stack([steps.cos(), steps.sin(), 0 * steps, 0 * steps], dim=1)
    other = functional.normalize(torch.tensor([[0.0, 0.0, 1.0, 0.1 * i] for i in range(6)]), dim=1)
    texts = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.4, 0.9, 0.0]])
    texts = functional.normalize(texts, dim=1)
    labels = torch.tensor([0, 0, 0, 0, 0, -1, -1, -1, 1, 1, 1, 1, -1, -1])
    images = torch.cat([chain, other])
    known = Supervision(labels, texts, images, torch.ones(14, dtype=torch.bool), 0.5)
    spread = (2 * propagated(known) - images).round(decimals=4)
    assert torch.allclose(spread[:8], texts[:1].expand(8, -1), atol=1e-3)
    assert torch.allclose(spread[8:], texts[1:].expand(6, -1), atol=1e-3)


@pytest.mark.parametrize("targets", [by_probe, by_cache])
def test_sure_answers_by_labelled_embeddings_are_labels_and_others_are_none(
    targets: Callable[[Supervision], Tensor],
) -> None:
    """Two classes whose texts are exchanged: labelled images say what the texts do not."""
    torch.manual_seed(0)
    centres = torch.eye(8)[:2]
    labels = torch.tensor([0] * 20 + [1] * 20 + [-1] * 3)
    own = centres[labels[:40]] + 0.05 * torch.randn(40, 8)
    images = functional.normalize(torch.cat([own, centres, torch.eye(8)[7:]]), dim=1)
    texts = functional.normalize(torch.eye(8)[2:4] + 0.1 * centres.flip(0), dim=1)
    known = Supervision(labels, texts, images, torch.ones(43, dtype=torch.bool), 0.5)
    answered = 2 * targets(known)[40:] - images[40:]
    torch.testing.assert_close(answered[:2], texts)
    torch.testing.assert_close(targets(known)[42], images[42])  # which is like none: no label


def test_a_style_is_taken_only_as_it_was_sealed_and_each_opening_is_written_down_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (30, 10), "red").save(tmp_path / "car.png")
    Image.new("RGB", (30, 10), "blue").save(tmp_path / "house.png")
    style = {
        "folder": ".",
        "classes": {"car": "car"},
        "sealed": True,
        "seal": "",
        "package": "",
        "sha256": "",
    }
    monkeypatch.setitem(unseen.STYLES, "drawn", style)
    monkeypatch.setattr(unseen, "_unpacked", lambda *_: tmp_path)
    with pytest.raises(SystemExit, match="not the images") as refused:
        unseen.pictures_of("drawn", None)
    style["seal"] = str(refused.value).split("seal ")[1].split(":")[0]
    ((label, name, picture),) = unseen.pictures_of("drawn", None)
    assert (label, name, picture.size) == ("car", "car", (96, 96))
    assert picture.getpixel((48, 48)) == (255, 0, 0)
    assert picture.getpixel((48, 30)) == (255, 255, 255)
    monkeypatch.setattr(unseen, "OPENINGS", tmp_path / "openings.csv")
    for steps in (600, 600, 1200):
        unseen.log_openings(["drawn", "bitmap"], steps)
    lines = (tmp_path / "openings.csv").read_text().splitlines()
    assert [line.split(",")[1:3] for line in lines[1:]] == 2 * [["drawn", style["seal"]]]
