"""By what a model computes: measured once for a model and a machine, remembered, and faithful to float32."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from shared.embeddings import Kind
from tests.support.quick import remembering
from tests.support.tiny_clip import write_tiny_clip
from vendor_service.encoder import choice as choices
from vendor_service.encoder import clip, measuring, precision
from vendor_service.encoder.choice import Choice, ChoiceMemory, Timing, Way
from vendor_service.encoder.clip import ClipModel
from vendor_service.encoder.facts import Dtype
from vendor_service.encoder.replica import Replica, using_threads
from vendor_service.encoder.sources import ModelSource, find_model

CPU = [torch.device("cpu")]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    return find_model(write_tiny_clip(tmp_path_factory.mktemp("models") / "tiny", seed=1), None)


class Memory(ChoiceMemory):
    """One that remembers, also in tests."""

    alone = remembering


def timing(kind: Kind, dtype: Dtype, speed: float, way: Way = "eager") -> Timing:
    return Timing(kind=kind, dtype=dtype, way=way, lone_ms=1000 / speed, rows=8, a_second=speed)


@pytest.mark.parametrize(
    ("bfloat16", "float16", "order"),
    [
        (0.7, 0.2, ["float32"]),  # an Intel with AVX512-BF16
        (3.3, 0.5, ["bfloat16", "float32"]),  # an AMD with it
        (1.2, 1.1, ["float32"]),  # a few percent are no reason for another fingerprint
        (2.0, 2.5, ["float16", "bfloat16", "float32"]),
    ],
)
def test_another_arithmetic_than_float32_is_taken_where_it_is_faster_by_a_quarter(
    bfloat16: float, float16: float, order: list[Dtype]
) -> None:
    speeds: dict[Dtype, float] = {"float32": 1.0, "bfloat16": bfloat16, "float16": float16}
    found = [timing(kind, dtype, 10 * each) for dtype, each in speeds.items() for kind in ("image", "text")]
    assert [dtype for dtype, _ in measuring.ranked(found)] == order


def test_an_arithmetic_that_is_slower_for_lone_images_is_not_taken_for_its_batches() -> None:
    slow = Timing(kind="image", dtype="bfloat16", way="eager", lone_ms=120, rows=8, a_second=90)
    texts = [timing("text", "float32", 10), timing("text", "bfloat16", 10)]
    found = [timing("image", "float32", 10), slow, *texts]
    assert measuring.ranked(found) == [("float32", "eager")]


def test_a_way_is_taken_for_lone_queries_and_batches_alike() -> None:
    def image(way: Way, lone_ms: float, a_second: float) -> Timing:
        return Timing(kind="image", dtype="float32", way=way, lone_ms=lone_ms, rows=8, a_second=a_second)

    text = timing("text", "float32", 50)
    for other, taken in (
        (image("channels-first", 50, 22), "channels-first"),
        (image("graph", 140, 19), "eager"),
    ):
        found = [text, image("eager", 70, 20), other]
        assert measuring.ranked(found) == [("float32", taken)]


def test_what_was_measured_is_remembered_for_this_model_and_machine(
    tiny: ModelSource, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "vendor_service")
    first = ClipModel(tiny, CPU, memory=Memory(tmp_path))
    assert first.choice.image in ("eager", "channels-first", "graph")
    assert {(each.kind, each.dtype) for each in first.choice.timings} >= {
        ("image", "float32"),
        ("text", "float32"),
    }
    monkeypatch.setattr(measuring, "measure", None)  # and not measured again
    again = ClipModel(tiny, CPU, memory=Memory(tmp_path))
    assert (again.choice, again.fingerprint) == (first.choice, first.fingerprint)
    (file,) = tmp_path.iterdir()
    file.write_text("{")
    monkeypatch.undo()
    ClipModel(tiny, CPU, memory=Memory(tmp_path))
    assert "is measured anew" in caplog.text
    assert Choice.model_validate_json(file.read_bytes()).image


def test_another_model_machine_or_share_of_it_is_another_choice() -> None:
    key = choices.key_of("fp_1", CPU, 2, "auto")
    others = {
        choices.key_of("fp_2", CPU, 2, "auto"),
        choices.key_of("fp_1", CPU, 1, "auto"),
        choices.key_of("fp_1", 2 * CPU, 2, "auto"),
        choices.key_of("fp_1", CPU, 2, "float32"),
    }
    with patch.object(choices, "_name", lambda _: "another processor"):
        others.add(choices.key_of("fp_1", CPU, 2, "auto"))
    assert len(others - {key}) == 5


def fast(monkeypatch: pytest.MonkeyPatch, dtype: Dtype) -> list[Sequence[Dtype]]:
    """Have a measurement find that dtype to be the fastest by far; what measurements were of."""
    asked: list[Sequence[Dtype]] = []

    def measure(dtypes: Sequence[Dtype], *_: Any) -> list[Timing]:
        asked.append(dtypes)
        return [
            timing(kind, each, 90.0 if each == dtype else 9.0)
            for each in dtypes
            for kind in ("image", "text")
        ]

    monkeypatch.setattr(measuring, "measure", measure)
    return asked


def test_an_upgrade_measures_anew_and_keeps_the_arithmetic(
    tiny: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast(monkeypatch, "bfloat16")
    before = ClipModel(tiny, CPU, memory=Memory(tmp_path))
    assert before.dtype == "bfloat16"
    assert all(each.cosine > precision.FAITHFUL for each in before.choice.taken if each.cosine)
    monkeypatch.setattr(clip, "programs", lambda: {"torch": "another"})
    asked = fast(monkeypatch, "float32")
    after = ClipModel(tiny, CPU, memory=Memory(tmp_path))
    assert asked == [("bfloat16",)]
    assert after.fingerprint == before.fingerprint
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text())["programs"] == {"torch": "another"}
    assert ClipModel(tiny, CPU, memory=Memory(tmp_path, anew=True)).dtype == "float32"


def test_an_arithmetic_that_is_not_faithful_is_not_taken_however_fast(
    tiny: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast(monkeypatch, "bfloat16")
    monkeypatch.setattr(precision, "FAITHFUL", 1.0 + 1e-5)
    model = ClipModel(tiny, CPU, memory=Memory(tmp_path))
    assert model.dtype == "float32"
    assert all(each.cosine for each in model.choice.timings if each.dtype == "bfloat16")


def test_an_option_says_the_arithmetic_and_a_measurement_the_way(
    tiny: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = fast(monkeypatch, "float32")
    model = ClipModel(tiny, CPU, "bfloat16", memory=Memory(tmp_path))
    assert (asked, model.dtype, model.choice.image) == ([("bfloat16",)], "bfloat16", "eager")


def test_where_nothing_can_be_kept_nothing_is_measured(tiny: ModelSource, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    model = ClipModel(tiny, CPU, memory=Memory(tmp_path / "file" / "folder"))
    assert (model.dtype, model.choice.timings) == ("float32", ())


def test_two_replicas_share_a_processor_where_that_is_faster(
    tiny: ModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ClipModel(tiny, CPU, "float32")
    images = [model.canaries()[0]]

    def make(threads: int) -> Replica:
        return model._replica(model.replicas[0].passes, CPU[0], "float32", threads=threads)

    with using_threads(2):
        assert measuring.best_replicas(make, 1, images, 2) == 1
        for worth, replicas in ((0.0, 2), (1e9, 1)):
            monkeypatch.setattr(measuring, "_WORTH_ANOTHER_REPLICA", worth)
            assert measuring.best_replicas(make, 2, images, 2) == replicas
