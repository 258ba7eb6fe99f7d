"""Depthwise convolutions in training on a CPU: what nn.Conv2d computes, gradients included."""

import copy
from typing import Any

import pytest
import timm
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

from client.learning import convolutions
from client.learning.backbones import load_backbone
from client.learning.convolutions import DepthwiseConv2d, SameConv2d, SameDepthwiseConv2d, with_fast_gradients
from client.learning.student import build_student

CHANNELS = 3
SIDES = st.integers(1, 8)


def _pair(kernel: tuple[int, int], stride: int, padding: tuple[int, int]) -> tuple[nn.Module, nn.Module]:
    """A convolution of torch's, and the same one as a student has it."""
    plain = nn.Conv2d(CHANNELS, CHANNELS, kernel, stride, padding, groups=CHANNELS, dtype=torch.float64)
    twin = nn.Conv2d(CHANNELS, CHANNELS, kernel, stride, padding, groups=CHANNELS, dtype=torch.float64)
    twin.load_state_dict(plain.state_dict())
    return plain, with_fast_gradients(twin)


def _worked_out(layer: nn.Module, maps: Tensor) -> list[Tensor]:
    """What a layer makes of maps, and the gradients of a fixed function of that."""
    inputs = maps.clone().requires_grad_()
    outputs = layer(inputs)
    (outputs * torch.linspace(-1, 1, outputs.numel(), dtype=outputs.dtype).view_as(outputs)).sum().backward()
    return [outputs, *(each.grad for each in (inputs, *layer.parameters()) if each.grad is not None)]


@given(
    kernel=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    stride=st.integers(1, 3),
    share=st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)),
    size=st.tuples(SIDES, SIDES),
)
def test_values_and_gradients_are_those_of_torch(
    kernel: tuple[int, int], stride: int, share: tuple[float, float], size: tuple[int, int]
) -> None:
    padding = (int(share[0] * kernel[0]), int(share[1] * kernel[1]))
    assume(all(s + 2 * p >= k for s, p, k in zip(size, padding, kernel, strict=True)))
    plain, ours = _pair(kernel, stride, padding)
    assert isinstance(ours, DepthwiseConv2d)
    maps = torch.randn(2, CHANNELS, *size, dtype=torch.float64)
    theirs = _worked_out(plain, maps)
    assert len(theirs) == 4
    torch.testing.assert_close(_worked_out(ours, maps), theirs)


def test_only_what_is_slow_in_torch_is_worked_out_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    strips = []
    gradients = convolutions._gradients

    def noted(*given: Any) -> tuple[Tensor, Tensor, Tensor]:
        _, maps, kernel, *_, (_, of_weight, _) = given
        if of_weight:
            strips.append((tuple(maps.shape[-2:]), tuple(kernel.shape[-2:])))
        return gradients(*given)

    monkeypatch.setattr(convolutions, "_gradients", noted)
    _, ours = _pair((5, 5), 1, (2, 2))
    _, narrow = _pair((3, 3), 1, (1, 1))
    maps = torch.randn(1, CHANNELS, 6, 6, dtype=torch.float64)
    _worked_out(ours, maps)
    assert strips == [((6, 8), (5, 3)), ((6, 7), (5, 2))]
    strips.clear()
    _worked_out(ours, maps[..., :4, :4])
    assert strips == [((8, 6), (5, 3)), ((8, 5), (5, 2))]
    strips.clear()
    _worked_out(ours, maps[..., :2, :2])  # what a map of 2 meets of a kernel of 5 is its middle 3
    assert strips == [((4, 4), (3, 3))]
    strips.clear()
    _worked_out(narrow, maps)
    _worked_out(ours.eval(), maps)
    _worked_out(ours.train().requires_grad_(False), maps)
    with torch.autocast("cpu"):
        _worked_out(ours.float().requires_grad_(True), maps.float())
    assert not strips


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(
    ("kernel", "stride", "side"), [(3, 2, 8), (3, 2, 7), (5, 2, 8), (5, 1, 6), (3, 1, 1)]
)
def test_maps_are_padded_as_timm_does(groups: int, kernel: int, stride: int, side: int) -> None:
    theirs = timm.layers.Conv2dSame(4, 4, kernel, stride, groups=groups).double().train()
    ours = with_fast_gradients(copy.deepcopy(theirs))
    assert type(ours) is (SameDepthwiseConv2d if groups > 1 else SameConv2d)
    maps = torch.randn(2, 4, side, side, dtype=torch.float64)
    torch.testing.assert_close(_worked_out(ours, maps), _worked_out(theirs, maps))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_zeros_are_constants_in_what_is_traced_for_an_export() -> None:
    ours = with_fast_gradients(timm.layers.Conv2dSame(4, 4, (3, 5), (2, 1)))
    traced = torch.jit.trace(ours, torch.zeros(1, 4, 8, 9))  # type: ignore[no-untyped-call]
    assert "aten::size" not in str(traced.graph)
    maps = torch.randn(3, 4, 8, 9)
    torch.testing.assert_close(traced(maps), ours(maps))
    plain = timm.layers.Conv2dSame(4, 4, (3, 5), (2, 1))
    plain.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(maps), plain(maps))


def test_a_student_has_them_and_only_where_they_are() -> None:
    student = build_student(load_backbone("tf_efficientnet_lite0"), outputs=4, text_head=None, image_size=64)
    for layer in student.backbone.modules():
        if isinstance(layer, nn.Conv2d):
            assert isinstance(layer, DepthwiseConv2d) == (layer.groups > 1)
    for other in (
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(1, 1, 3),
        nn.Conv2d(4, 4, 3, groups=4, dilation=2),
        nn.Conv2d(4, 4, 3, groups=4, padding="same"),
        nn.Conv2d(4, 4, 3, groups=4, padding=1, padding_mode="reflect"),
    ):
        assert type(with_fast_gradients(other)) is nn.Conv2d
