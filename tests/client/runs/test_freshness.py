"""A student's stamp is of the weights that it begins with and of the model here that teaches it."""

import json
from pathlib import Path

import pytest
import torch

from client.progress import Display
from client.runs import freshness
from client.runs.dataset import read_dataset
from client.runs.freshness import student_stamp
from client.runs.targets import Targets
from tests.client.toy import make_folder, run_config


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The folder of an open_clip model."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {}}))
    (folder / "open_clip_model.safetensors").write_bytes(b"weights")
    return folder


def _stamp(tmp_path: Path, student: str, method: str = "vl2v-sd") -> str:
    data = tmp_path / "toy"
    folder = data if data.exists() else make_folder(data, images=1)
    config = run_config(folder, method=method, student=student)
    dataset = read_dataset(config, Display.of_nobody())
    return student_stamp(config, dataset, Targets(torch.zeros(1, 2), dataset.train, None, 2, ""))


@pytest.mark.parametrize("changed", ["open_clip_config.json", "open_clip_model.safetensors"])
def test_the_files_of_an_open_clip_folder_count_by_what_is_in_them(
    tmp_path: Path, model: Path, changed: str
) -> None:
    before = _stamp(tmp_path, f"open_clip:{model}")
    (model / "README.md").write_text("not read")
    assert _stamp(tmp_path, f"open_clip:{model}") == before
    (model / changed).write_text(json.dumps({"model_cfg": {"embed_dim": 3}}))
    assert _stamp(tmp_path, f"open_clip:{model}") != before


def test_a_file_of_weights_behind_an_open_clip_name_counts_by_what_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"weights")
    before = _stamp(tmp_path, f"open_clip:RN50/{weights.name}")
    weights.write_bytes(b"others")
    assert _stamp(tmp_path, f"open_clip:RN50/{weights.name}") != before


def test_the_bundled_teacher_counts_by_what_is_in_it_where_it_teaches(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freshness, "BUNDLED_TEACHER", f"open_clip:{model}")
    before = {method: _stamp(tmp_path, "test_efficientnet", method) for method in ("unlimited", "erm")}
    (model / "open_clip_model.safetensors").write_bytes(b"others")
    assert _stamp(tmp_path, "test_efficientnet", "unlimited") != before["unlimited"]
    assert _stamp(tmp_path, "test_efficientnet", "erm") == before["erm"]
