"""Weights that were hashed at one start are not hashed again at the next, unless they have changed."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from tests.support.tiny_clip import write_tiny_clip
from vendor_service.encoder.clip import ClipModel
from vendor_service.encoder.known_fingerprints import KnownFingerprints
from vendor_service.encoder.precision import Dtype
from vendor_service.encoder.sources import find_model

CPU = [torch.device("cpu")]
WEIGHTS = "open_clip_model.safetensors"
REMEMBERED = "fp_remembered"

pytestmark = pytest.mark.usefixtures("without_graphs")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model whose fingerprint is remembered, wrongly, so that it shows who remembers it."""
    folder = tmp_path / "model"
    write_tiny_clip(folder, seed=1)
    store = tmp_path / "cache" / "fingerprints.json"
    start(folder)
    (key,) = json.loads(store.read_text())
    store.write_text(json.dumps({key: REMEMBERED}))
    return folder


def start(folder: Path, dtype: Dtype = "float32", large: int = 0) -> str:
    """The fingerprint that a vendor tells which starts now."""
    known = KnownFingerprints(folder.parent / "cache" / "fingerprints.json", large)
    source = find_model(f"local-dir:{folder}", None)
    return ClipModel(source, CPU, dtype, known=known).fingerprint


def test_it_is_remembered(folder: Path) -> None:
    assert start(folder) == start(folder) == REMEMBERED


def test_weights_that_changed_are_hashed_again_whatever_their_size_and_date_say(
    folder: Path, tmp_path: Path
) -> None:
    path = folder / WEIGHTS
    before, content = path.stat(), bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    unchanged = find_model(write_tiny_clip(tmp_path / "unchanged", seed=1), None)
    assert start(folder) not in (REMEMBERED, ClipModel(unchanged, CPU, "float32").fingerprint)


def test_another_preprocessing_or_dtype_is_another_fingerprint(folder: Path) -> None:
    assert start(folder, "bfloat16") != REMEMBERED
    config = folder / "open_clip_config.json"
    config.write_text(config.read_text().replace("bicubic", "bilinear"))
    assert start(folder) != REMEMBERED


def test_small_weights_are_not_worth_remembering(folder: Path) -> None:
    assert start(folder, large=2**30) != REMEMBERED


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": '])
def test_a_damaged_store_is_made_anew(folder: Path, content: str) -> None:
    store = folder.parent / "cache" / "fingerprints.json"
    store.write_text(content)
    told = start(folder)
    assert told.startswith("fp_")
    assert list(json.loads(store.read_text()).values()) == [told]


def test_where_nothing_can_be_written_nothing_is_remembered(folder: Path) -> None:
    shutil.rmtree(folder.parent / "cache")
    (folder.parent / "cache").write_text("a file, where a folder should be")
    assert start(folder).startswith("fp_")
