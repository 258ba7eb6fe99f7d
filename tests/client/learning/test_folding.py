"""BatchNorm folded into the convolution before it: the same function and gradients, where it is asked for."""

from collections.abc import Callable

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from client.learning.backbones import load_backbone
from client.learning.folding import fold_norms, folded_answers
from client.learning.student import build_student

SIDE = 16


class Block(nn.Module):
    """A convolution, BatchNorm, and whatever else a test wants of them."""

    def __init__(self, conv: nn.Module, norm: nn.Module, joined: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.norm, self.joined = conv, norm, joined

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images)
        return self.joined(maps, self.norm(maps))


def _through(_: Tensor, normalised: Tensor) -> Tensor:
    return normalised


def _learnt(module: nn.Module) -> nn.Module:
    """The module in double precision, its BatchNorm layers as if they had learnt something."""
    generator = torch.Generator().manual_seed(0)
    module = module.double().train()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
            for tensor in (layer.running_mean, layer.running_var, layer.weight, layer.bias):
                assert tensor is not None
                tensor.data.uniform_(0.5, 1.5, generator=generator)
    return module


def _worked_out(module: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """What a module makes of images, and the gradients of a fixed function of that."""
    module.zero_grad(set_to_none=True)
    outputs = module(images)
    weights = torch.linspace(-1, 1, outputs.numel(), dtype=outputs.dtype).view_as(outputs)
    (outputs * weights).sum().backward()
    gradients = {name: each.grad for name, each in module.named_parameters() if each.grad is not None}
    return {"outputs": outputs.detach(), **gradients}


IMAGES = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(
    ("conv", "norm"),
    [
        (nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)),
        (nn.Conv2d(3, 8, 1), BatchNormAct2d(8, act_layer=nn.ReLU6)),
        (nn.Conv2d(3, 3, 5, 1, 2, groups=3), BatchNormAct2d(3, act_layer=nn.ReLU)),
        (nn.Conv2d(3, 3, 3, groups=3), BatchNormAct2d(3, act_layer=nn.SiLU)),
        (nn.Conv2d(3, 8, 1), BatchNormAct2d(8, apply_act=False)),
    ],
)
def test_function_and_gradients_stay(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    block = _learnt(Block(conv, norm, _through))
    before = _worked_out(block, IMAGES)
    names = list(block.state_dict())
    assert fold_norms(block, SIDE) == 1
    assert list(block.state_dict()) == names
    torch.testing.assert_close(_worked_out(block, IMAGES), before)
    assert fold_norms(block, SIDE) == 0  # it is folded
    torch.testing.assert_close(_worked_out(block, IMAGES), before)


def test_every_norm_of_the_default_student_is_folded_and_what_it_learns_stays() -> None:
    student = build_student(load_backbone("tf_efficientnet_lite0"), outputs=4, text_head=None, image_size=32)
    _learnt(student)
    student.requires_grad_(False)
    for parameter in student.trainable(frozenset({"backbone", "projector"}), frozen=0.375):
        parameter.requires_grad_(True)
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.float64)
    before = _worked_out(student, pixels)
    norms = sum(isinstance(layer, nn.BatchNorm2d) for layer in student.modules())
    assert fold_norms(student.backbone, 32) == norms
    torch.testing.assert_close(_worked_out(student, pixels), before)
    assert len(before) > norms


def test_maps_that_also_go_elsewhere_are_left_alone() -> None:
    block = _learnt(Block(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), torch.add))
    before = _worked_out(block, IMAGES)
    assert fold_norms(block, SIDE) == 0
    torch.testing.assert_close(_worked_out(block, IMAGES), before, rtol=0, atol=0)


def test_what_only_answers_or_still_takes_statistics_is_left_alone() -> None:
    norm = nn.BatchNorm2d(8)
    block = _learnt(Block(nn.Conv2d(3, 8, 1), norm, _through))
    norm.train()
    assert fold_norms(block, SIDE) == 0
    plain = block.eval()(IMAGES)
    block.train()
    norm.eval()
    assert fold_norms(block, SIDE) == 1
    assert torch.equal(block.eval()(IMAGES), plain)
    block.train()
    norm.eval()
    with torch.autocast("cpu"):
        assert block.float()(IMAGES.float()).dtype == torch.bfloat16


def test_answers_are_folded_where_a_run_asks_for_it_and_nowhere_else() -> None:
    norm = BatchNormAct2d(8, act_layer=nn.ReLU6)
    block = _learnt(Block(nn.Conv2d(3, 8, 1), norm, _through))
    assert fold_norms(block, SIDE) == 1
    maps: list[Tensor] = []
    norm.register_forward_hook(lambda _, inputs, outputs: maps.append((outputs - inputs[0]).abs().sum()))
    block.eval()
    with torch.no_grad():
        before = block(IMAGES)
        with folded_answers(block):
            torch.testing.assert_close(block(IMAGES), before)
        assert torch.equal(block(IMAGES), before)
    assert [bool(changed) for changed in maps] == [True, False, True]  # whether the layer itself did anything
