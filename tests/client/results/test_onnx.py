"""A student as ONNX: the same answers for any batch, without PyTorch, and no file that is not the student."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch.nn import functional

from client.api.students import load_student
from client.cli.main import main
from client.errors import ClientError, UsageError
from client.learning.backbones import empty_backbone, load_backbone
from client.learning.classifier import StudentClassifier
from client.learning.student import StudentNetwork, build_student
from client.results.onnx_classifier import OnnxClassifier, import_onnxruntime
from client.results.onnx_export import Parity, compare, export_onnx, made_up_pictures
from client.results.onnx_quantization import write_int8
from tests.client.toy import CLASSES, draw, tiny_backbone

SIDE = 32
METADATA = {"classes": json.dumps(CLASSES), "method": "vl2v-adip"}


def _student(
    name: str = "test_efficientnet",
    *,
    head: Literal["texts", "linear", "tuned"] = "texts",
    seed: int = 0,
) -> StudentNetwork:
    torch.manual_seed(seed)
    if name == "test_efficientnet":
        backbone = tiny_backbone(SIDE)
    else:
        backbone = (empty_backbone if name.startswith("vit") else load_backbone)(name, image_size=SIDE)
    texts = functional.normalize(torch.randn(3, 16), dim=1)
    return build_student(
        backbone,
        outputs=3 if head == "linear" else 16,
        text_head=None if head == "linear" else texts,
        image_size=SIDE,
        trains_texts=head == "tuned",
    ).eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a student, which nobody changes."""
    path = tmp_path_factory.mktemp("exported") / "s.onnx"
    export_onnx(_student(), METADATA, path)
    return path


def test_below_a_file_nothing_is_written_and_the_reason_is_said(tmp_path: Path, exported: Path) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "s.onnx"
    with pytest.raises(ClientError, match=r"s\.onnx cannot be written|s\.onnx was not written"):
        export_onnx(_student(), METADATA, out)
    with pytest.raises(ClientError, match=r"s\.onnx cannot be written|s\.onnx was not written"):
        write_int8(exported, out, [made_up_pictures(SIDE)])


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("tf_efficientnet_lite0", "texts"),
        ("test_efficientnet", "linear"),
        ("test_efficientnet", "tuned"),
        ("vit_tiny_patch16_224", "texts"),
        ("open_clip:icon-clip", "texts"),
    ],
)
def test_the_file_answers_as_the_student_does(
    tmp_path: Path, name: str, head: Literal["texts", "linear", "tuned"]
) -> None:
    student, path = _student(name, head=head), tmp_path / "s.onnx"
    student.temperature.fill_(7)
    parity = export_onnx(student, METADATA, path)
    assert parity.max_difference < 1e-4
    assert "33 images, all of the same class" in parity.described
    file = OnnxClassifier(path)
    original = StudentClassifier(student, CLASSES)
    for count in (1, 7):
        pictures = made_up_pictures(SIDE)[:count]
        assert np.allclose(file.probabilities(pictures), original.probabilities(pictures), atol=1e-4)
    assert file.probabilities(made_up_pictures(SIDE)[:5]).sum(axis=1) == pytest.approx(1)
    assert (file.classes, file.side) == (list(CLASSES), SIDE)
    assert file.texts["mean"] == json.dumps(student.preprocessing.mean)
    assert "without a crop" in file.texts["preprocessing"]


def test_another_student_is_told_apart(exported: Path) -> None:
    file = OnnxClassifier(exported)
    assert compare(_student(seed=1), file, [made_up_pictures(SIDE)]).labels_differ > 0


def test_a_file_that_does_not_agree_is_not_written(tmp_path: Path) -> None:
    student = _student()
    with torch.no_grad():
        next(iter(student.projector.parameters()))[0, 0] = torch.nan
    with pytest.raises(ClientError, match="not the student"):
        export_onnx(student, METADATA, tmp_path / "s.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("parity", [Parity(33, 2e-3, 0), Parity(33, 9e-4, 1)])
def test_a_file_that_differs_a_little_is_not_written_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parity: Parity
) -> None:
    monkeypatch.setattr("client.results.onnx_export.compare", lambda *_: parity)
    with pytest.raises(ClientError, match="not the student"):
        export_onnx(_student(), METADATA, tmp_path / "s.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"no model" * 99])
def test_a_damaged_file_is_said_to_be_one(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s.onnx").write_bytes(content)
    with pytest.raises(ClientError, match=r"s\.onnx is damaged"):
        OnnxClassifier(tmp_path / "s.onnx")
    with pytest.raises(ClientError, match="does not exist"):
        OnnxClassifier(tmp_path / "missing.onnx")


@pytest.mark.parametrize("device", ["banana", "cuda:", "", "cuda", "cuda:1"])
def test_a_device_that_is_not_here_is_a_usage_error(exported: Path, device: str) -> None:
    with pytest.raises(UsageError, match="cannot be used by onnxruntime on this machine"):
        load_student(exported, device=device)


@pytest.mark.parametrize(("device", "index"), [("auto", 0), ("cuda", 0), ("cuda:1", 1), ("cpu", None)])
def test_a_gpu_is_asked_for_by_its_number_and_only_one_that_was_named_must_be_there(
    exported: Path, monkeypatch: pytest.MonkeyPatch, device: str, index: int | None
) -> None:
    asked: list[Any] = []
    onnxruntime = import_onnxruntime()
    session = onnxruntime.InferenceSession

    def without_gpu(path: Path, options: Any, *, providers: Sequence[Any]) -> Any:
        asked.extend(providers)
        return session(path, options, providers=["CPUExecutionProvider"])

    there = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)
    monkeypatch.setattr(onnxruntime, "InferenceSession", without_gpu)
    with pytest.raises(UsageError) if device.startswith("cuda") else nullcontext():
        assert load_student(exported, device=device).classes == CLASSES
    gpu = [] if index is None else [("CUDAExecutionProvider", {"device_id": index})]
    assert asked == [*gpu, "CPUExecutionProvider"]


def test_predicting_from_the_file_needs_no_pytorch_and_leaves_nothing_to_tell_onnxruntimes_makers(
    exported: Path, tmp_path: Path
) -> None:
    draw("circle", "white", "black", seed=1).save(tmp_path / "one.png")
    (tmp_path / "home").mkdir()
    code = "import sys; sys.modules['torch'] = None; from client.cli.main import main; main(sys.argv[1:])"
    outer = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    words = ("predict", str(exported), str(tmp_path / "one.png"), "--top-k", "2", "--json")
    shown = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=False,
        env=outer | {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": ""},
    )
    assert shown.returncode == 0, shown.stderr
    (row,) = json.loads(shown.stdout)
    assert len(row["classes"]) == 2
    assert not list((tmp_path / "home").rglob("*onnxruntime*"))


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (("predict", "{exported}", "{exported}"), "onnxruntime"),
        (("export", "{folder}", "--out", "{folder}/s.onnx"), "onnx"),
        (("export", "{folder}", "--web", "{folder}/s.onnx"), "onnx"),
    ],
    ids=" ".join,
)
def test_what_takes_a_package_that_is_missing_says_how_to_get_it(
    exported: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    missing: str,
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SystemExit) as end:
        main([word.format(exported=exported, folder=tmp_path) for word in words])
    assert end.value.code == 2
    assert "pip install 'tuition[onnx]'" in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_a_student_that_cannot_be_exported_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object, **__: object) -> None:
        raise RuntimeError("an operator that nobody knows")

    monkeypatch.setattr(torch.onnx, "export", unsupported)
    with pytest.raises(ClientError, match="cannot export"):
        export_onnx(_student(), METADATA, tmp_path / "s.onnx")
    assert not list(tmp_path.iterdir())
