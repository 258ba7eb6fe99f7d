"""A small student, and a real `client serve` of its run that the tests of this folder share."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from torch.nn import functional

from client.data.images import Pixels
from client.learning.classifier import StudentClassifier
from client.learning.rejection import Rejection, sureness
from client.learning.student import build_student
from client.results.onnx_export import export_onnx
from tests.client.results.test_records import SUMMARY
from tests.client.toy import CLASSES, draw, tiny_backbone
from tests.support.student_process import StudentProcess

SIDE = 32
# What a deployed student does without: an import of any of these fails.
ABSENT = ("torch", "torchvision", "timm", "open_clip", "accelerate", "safetensors", "httpx", "onnx")


def _shapes() -> Pixels:
    """Pictures like those that it is asked about in these tests."""
    drawn = [draw(CLASSES[n % 3], "white", "red", seed=n).resize((SIDE, SIDE)) for n in range(60)]
    noise = np.random.default_rng(0).integers(0, 60, (len(drawn), SIDE, SIDE, 3), dtype=np.uint8)
    return np.stack([np.asarray(each) for each in drawn]) // 2 + noise


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: its student, which is not trained, as ONNX, and its summary."""
    folder = tmp_path_factory.mktemp("runs") / "shapes"
    folder.mkdir()
    torch.manual_seed(0)
    student = build_student(
        tiny_backbone(SIDE),
        outputs=16,
        text_head=functional.normalize(torch.randn(len(CLASSES), 16), dim=1),
        image_size=SIDE,
        trains_texts=False,
    ).eval()
    student.temperature.fill_(30)  # so that it is not sure
    metadata = {"classes": json.dumps(CLASSES), "method": "vl2v-adip", "student": "test_efficientnet"}
    metadata["rejection"] = Rejection.of(
        sureness(StudentClassifier(student, CLASSES).probabilities(_shapes()))
    ).to_json()
    export_onnx(student, metadata, folder / "student.onnx")
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    return folder


@pytest.fixture(scope="session")
def served(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudentProcess]:
    """The run, served where none of `ABSENT` can be imported."""
    code = f"sys.modules.update(dict.fromkeys({ABSENT!r}))"
    with StudentProcess(run, tmp_path_factory.mktemp("served"), code=code) as process:
        yield process


@pytest.fixture(scope="session")
def http(served: StudentProcess) -> Iterator[httpx.Client]:
    """A connection to it."""
    with httpx.Client(base_url=served.url, timeout=60) as client:
        yield client
