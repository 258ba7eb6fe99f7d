"""A small student, and a real `client serve` of its run that the tests of this folder share."""

import json
import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from torch.nn import functional

from client.data.images import Pixels
from client.learning.classifier import StudentClassifier
from client.learning.rejection import Rejection, sureness
from client.learning.reliability import Reliability
from client.learning.student import build_student
from client.results.onnx_export import export_onnx
from tests.client.results.test_records import SUMMARY
from tests.client.toy import CLASSES, draw, tiny_backbone
from tests.support.student_process import StudentProcess

SIDE = 32
PROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))
# What a deployed student is installed with: `pip install --group student`.
DEPLOYED: list[str] = PROJECT["dependency-groups"]["student"]


def absent() -> set[str]:
    """The installed modules that a deployed student is without, and httpx, which only those who ask take."""
    there, found = {"tuition"}, [Requirement(line) for line in DEPLOYED]
    for each in found:
        if canonicalize_name(each.name) not in there and _is_installed(each):
            there.add(canonicalize_name(each.name))
            needed = map(Requirement, distribution(each.name).requires or ())
            found += [one for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return {"httpx"} | {
        module
        for module, names in packages_distributions().items()
        if there.isdisjoint(map(canonicalize_name, names)) and module not in ("client", "shared")
    }


def _is_installed(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def _shapes() -> Pixels:
    """Pictures like those that it is asked about in these tests."""
    drawn = [draw(CLASSES[n % 3], "white", "red", seed=n).resize((SIDE, SIDE)) for n in range(60)]
    noise = np.random.default_rng(0).integers(0, 60, (len(drawn), SIDE, SIDE, 3), dtype=np.uint8)
    return np.stack([np.asarray(each) for each in drawn]) // 2 + noise


def untrained_run(folder: Path) -> Path:
    """A finished run in a new folder: its student, which is not trained, as ONNX, and its summary."""
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
    metadata["reliability"] = Reliability((0.35, 0.5, 0.9), (0.4, 0.6, 0.9), (20, 20, 60)).to_json()
    metadata["teacher_accuracy"] = "0.95"
    export_onnx(student, metadata, folder / "student.onnx")
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    return folder


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a run."""
    return untrained_run(tmp_path_factory.mktemp("runs") / "shapes")


@pytest.fixture(scope="session")
def served(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudentProcess]:
    """The run, served where nothing of `absent` can be imported."""
    code = f"sys.modules.update(dict.fromkeys({absent()!r}))"
    with StudentProcess(run, tmp_path_factory.mktemp("served"), code=code) as process:
        yield process


@pytest.fixture(scope="session")
def http(served: StudentProcess) -> Iterator[httpx.Client]:
    """A connection to it."""
    with httpx.Client(base_url=served.url, timeout=60) as client:
        yield client
