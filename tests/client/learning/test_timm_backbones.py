"""timm's backbones without a hub: weights from a file, each with its own normalisation and input size."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from client.errors import UsageError
from client.learning.backbones import load_backbone, native_image_size
from client.learning.student import build_student
from client.learning.student_file import load_student, save_student

VIT = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
IMAGENET = (0.485, 0.456, 0.406)
HALF = (0.5, 0.5, 0.5)

# Backbone, its own side and mean (timm's model cards), and whether its shape depends on the side.
KINDS = [
    ("resnet10t.c3_in1k", 176, IMAGENET),
    ("mobilenetv3_small_050.lamb_in1k", 224, IMAGENET),
    ("convnext_atto.d2_in1k", 224, IMAGENET),
    ("mobilevit_xxs.cvnets_in1k", 256, (0.0, 0.0, 0.0)),
    (VIT, 224, HALF),
]


def _model(name: str) -> nn.Module:
    """timm's model with its classifier and random weights, BatchNorm statistics included."""
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, pretrained=False)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(0.05 * torch.rand_like(tensor) + (0.5 if tensor.dim() == 1 else 0.0))
    return model.eval()


def _file(model: nn.Module, path: Path) -> Path:
    state: dict[str, Tensor] = model.state_dict()
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize(("name", "side", "mean"), KINDS, ids=lambda value: str(value))
def test_a_backbone_from_a_file_computes_what_timms_model_does(
    tmp_path: Path, name: str, side: int, mean: tuple[float, float, float]
) -> None:
    model = _model(name)
    weights = _file(model, tmp_path / ("w.pth" if name == VIT else "w.safetensors"))
    student = build_student(load_backbone(name, weights=weights), outputs=4, text_head=None).eval()
    assert native_image_size(name) == student.preprocessing.image_size == side
    assert student.preprocessing.mean == mean

    pixels = torch.randint(0, 256, (2, 3, side, side), generator=torch.Generator().manual_seed(1)).byte()
    config = timm.data.resolve_data_config({}, model=model)
    means, deviations = (torch.tensor(config[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        theirs = model.forward_head(  # type: ignore[operator]
            model.forward_features((pixels / 255 - means) / deviations),  # type: ignore[operator]
            pre_logits=True,
        )
        torch.testing.assert_close(student.features(pixels), theirs, rtol=1e-3, atol=1e-4)
        assert student(pixels).shape == (2, 4)

    parameters = sum(p.numel() for p in student.parameters())
    assert student.size.parameters == parameters
    assert f"{parameters / 1e6:.1f} million parameters" in student.size.described


@pytest.mark.parametrize("name", ["resnet10t.c3_in1k", VIT])
def test_a_backbone_works_at_another_side_and_survives_its_file(tmp_path: Path, name: str) -> None:
    weights = _file(_model(name), tmp_path / "w.safetensors")
    backbone = load_backbone(name, image_size=64, weights=weights)
    student = build_student(backbone, outputs=4, text_head=None, image_size=64).eval()
    save_student(student, name, tmp_path / "s.safetensors", {})
    loaded, _ = load_student(tmp_path / "s.safetensors")
    pixels = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(1)).byte()
    with torch.no_grad():
        assert torch.equal(student(pixels), loaded(pixels))
    assert student(pixels).isfinite().all()


@pytest.mark.parametrize(
    ("name", "size"), [("efficientformer_l1", 64), ("levit_128s", 64), ("resmlp_12_224", 60)]
)
def test_a_side_that_a_backbone_does_not_take_is_refused(tmp_path: Path, name: str, size: int) -> None:
    model = timm.create_model(name, pretrained=False)
    weights = _file(model, tmp_path / "w.pth")
    with pytest.raises(UsageError, match=f"{name} takes no images of {size} pixels.*--image-size 224"):
        load_backbone(name, image_size=size, weights=weights)


def test_a_backbone_without_layer_groups_trains_whole(tmp_path: Path) -> None:
    name = "poolformerv2_s12"
    student = build_student(
        load_backbone(name, weights=_file(timm.create_model(name), tmp_path / "w.pth")),
        outputs=4,
        text_head=None,
    )
    trained = student.trainable(frozenset({"backbone"}), frozen=0.375)
    assert len(trained) == len(list(student.backbone.parameters()))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda state: {k: v for k, v in state.items() if k != "conv1.0.weight"}, "lacks conv1.0.weight"),
        (lambda state: state | {"conv1.0.weight": torch.zeros(1)}, "another shape of conv1.0.weight"),
        (lambda state: list(state.values()), "it should be a safetensors file, or a state dictionary"),
        (lambda _: Path("not tensors"), "code in it is never run"),
    ],
    ids=["missing", "misshapen", "no names", "code"],
)
def test_weights_that_do_not_fit_are_named(
    tmp_path: Path, damage: Callable[[dict[str, Any]], Any], message: str
) -> None:
    name = "resnet10t.c3_in1k"
    torch.save(damage(_model(name).state_dict()), tmp_path / "w.pth")
    with pytest.raises(UsageError, match=message):
        load_backbone(name, weights=tmp_path / "w.pth")


def test_a_students_file_gives_its_backbones_weights(tmp_path: Path) -> None:
    taught = load_backbone("tf_efficientnet_lite0")
    with torch.no_grad():
        for parameter in taught.parameters():
            parameter.add_(0.01)
    student = build_student(taught, outputs=4, text_head=None)
    save_student(student, "tf_efficientnet_lite0", tmp_path / "student.safetensors", {"classes": "[]"})
    again = load_backbone("tf_efficientnet_lite0", weights=tmp_path / "student.safetensors").state_dict()
    assert all(torch.equal(again[key], value) for key, value in taught.state_dict().items())


def test_a_students_file_of_another_network_is_refused_also_where_its_tensors_fit(tmp_path: Path) -> None:
    """The two have the same layers: one of them pads and normalises as TensorFlow does."""
    taught, other, file = "tf_efficientnet_lite0", "efficientnet_lite0", tmp_path / "student.safetensors"
    backbone = load_backbone(taught)
    save_student(build_student(backbone, outputs=4, text_head=None), taught, file, {"classes": "[]"})
    with pytest.raises(UsageError, match=f"are of a {taught}, and not of a {other}: --student {taught}"):
        load_backbone(other, weights=file)
    of_backbone = _file(backbone, tmp_path / "backbone.pth")  # it does not say whose it is
    assert load_backbone(other, weights=of_backbone).state_dict().keys() == backbone.state_dict().keys()


def _file_of_student(name: str, path: Path) -> Path:
    """A student's file of a backbone with random weights."""
    backbone = load_backbone(name, weights=_file(_model(name), path.with_name("w.safetensors")))
    save_student(build_student(backbone, outputs=4, text_head=None), name, path, {"classes": "[]"})
    return path


@pytest.mark.parametrize(
    ("taught", "name"),
    [
        ("test_resnet", "test_resnet.r160_in1k"),
        ("test_resnet.r160_in1k", "test_resnet"),
        ("resnet18.tv_in1k", "resnet18"),
    ],
)
def test_a_students_file_of_the_same_network_under_another_tag_is_taken(
    tmp_path: Path, taught: str, name: str
) -> None:
    file = _file_of_student(taught, tmp_path / "student.safetensors")
    tensors = load_student(file)[0].backbone.state_dict()
    again = load_backbone(name, weights=file).state_dict()
    assert all(torch.equal(again[key], value) for key, value in tensors.items())


def test_a_students_file_of_weights_that_see_images_otherwise_is_refused(tmp_path: Path) -> None:
    """Two tags of one network: the images of one are normalised by another mean and deviation."""
    taught, other = "tf_efficientnet_b0.ap_in1k", "tf_efficientnet_b0.in1k"
    file = _file_of_student(taught, tmp_path / "student.safetensors")
    with pytest.raises(UsageError, match=rf"are of a {taught} .* the mean \[0\.5, .* {other} .* \[0\.485, "):
        load_backbone(other, weights=file)
    load_backbone(taught, weights=file)


@pytest.mark.parametrize(("name", "side"), [("resnet10t.c3_in1k", 96), (VIT, 64), (VIT, 96), (VIT, None)])
def test_a_students_file_of_another_side_than_the_backbones_own_gives_its_weights(
    tmp_path: Path, name: str, side: int | None
) -> None:
    """A student of 64 pixels, whose next generation may have another side."""
    first = load_backbone(name, image_size=64, weights=_file(_model(name), tmp_path / "w.safetensors"))
    student = build_student(first, outputs=4, text_head=None, image_size=64)
    save_student(student, name, tmp_path / "student.safetensors", {"classes": "[]"})
    again = load_backbone(name, image_size=side, weights=tmp_path / "student.safetensors").eval()
    taught = first.state_dict()
    resized = {key for key, value in again.state_dict().items() if value.shape != taught[key].shape}
    assert resized == ({"pos_embed"} if name == VIT and side != 64 else set())
    kept = {key: value for key, value in again.state_dict().items() if key not in resized}
    assert all(torch.equal(value, taught[key]) for key, value in kept.items())
    shown = side or native_image_size(name)
    with torch.no_grad():
        assert again(torch.rand(1, 3, shown, shown)).isfinite().all()


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a file"):
        load_backbone("resnet10t.c3_in1k", weights=tmp_path / "missing.pth")
