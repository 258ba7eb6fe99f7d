"""Convolutions that train in good time on a CPU: depthwise ones, and those that BatchNorm follows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from client.learning.libraries import timm

_PADDED_BY_TIMM: type[nn.Conv2d] = timm.layers.Conv2dSame

_WIDEST = 3  # columns of a kernel whose gradient oneDNN has fast code for


class DepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d`, whose place it takes, with a faster gradient of the weights where oneDNN's is slow.

    For kernels wider than three columns, and for maps smaller than the kernel, oneDNN takes code that is not
    made for depthwise convolutions, and up to thirty times as long. Here such a kernel is cut into strips of
    three columns, each over a map that has its zeros beside it; weights that meet nothing but zeros are left
    out: the same sums, in another order.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (nn.Conv2d's name for it)
        """The convolution of maps of shape (n, channels, height, width)."""
        trains = self.training and self.weight.requires_grad
        if not (trains and is_plain(input) and _is_slow(input, self.weight)):
            return super().forward(input)
        stride, padding = cast(tuple[int, int], self.stride), cast(tuple[int, int], self.padding)
        return convolution(input, self.weight, self.bias, stride, padding)


class SameConv2d(nn.Conv2d):
    """timm's `Conv2dSame`, whose place it takes: zeros around the maps as TensorFlow has them.

    There are as many as the last place of the kernel needs, and where that is an odd number, the one more
    stands behind. This class adds them, and the next one of a class that has both convolves.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """The convolution of maps of shape (n, channels, height, width)."""
        zeros: list[int] = []
        for axis in (1, 0):  # columns first
            side = int(input.shape[axis - 2])  # a constant, also where the layer is traced for an export
            missing = timm.layers.get_same_padding(side, self.kernel_size[axis], self.stride[axis], 1)
            zeros += [missing // 2, missing - missing // 2]
        return super().forward(functional.pad(input, zeros))


class SameDepthwiseConv2d(SameConv2d, DepthwiseConv2d):
    """The same of a depthwise convolution."""


def convolution(
    maps: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    bounds: tuple[float, float] | None = None,
) -> Tensor:
    """What `functional.conv2d` makes of maps (n, channels, height, width), and where `bounds` are given,
    clamped to these; with fast gradients on a CPU.

    There are as many groups as the weights, (outputs, channels / groups, height, width), say. The gradients
    of depthwise weights are worked out in strips where that is faster, those of the bias apart from those of
    the weights, and what is clamped is kept once.
    """
    apply = cast(Callable[..., Tensor], _Convolution.apply)
    return apply(maps, weight, bias, stride, padding, bounds)


class _Convolution(Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 (a FunctionCtx, which declares none of what is used of it)
        maps: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
        bounds: tuple[float, float] | None,
    ) -> Tensor:
        outputs = functional.conv2d(maps, weight, bias, stride, padding, groups=_groups(maps, weight))
        if bounds is not None:
            outputs.clamp_(*bounds)
        ctx.save_for_backward(maps, weight, None if bounds is None else outputs)
        ctx.stride, ctx.padding, ctx.bounds = stride, padding, bounds
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        maps, weight, outputs = ctx.saved_tensors
        if ctx.bounds is not None:
            gradient = torch.ops.aten.hardtanh_backward(gradient, outputs, *ctx.bounds)
        of_maps, of_weight, of_bias = ctx.needs_input_grad[:3]
        in_strips = of_weight and _groups(maps, weight) == len(weight) and _is_slow(maps, weight)
        wanted = (of_maps, of_weight and not in_strips, False)
        for_maps, for_weight, _ = _gradients(gradient, maps, weight, ctx.stride, ctx.padding, wanted)
        if in_strips:
            for_weight = _weight_gradient(gradient, maps, weight, ctx.stride, ctx.padding)
        for_bias = gradient.sum((0, 2, 3)) if of_bias else None
        return for_maps, for_weight, for_bias, None, None, None


def _groups(maps: Tensor, weight: Tensor) -> int:
    return maps.shape[1] // weight.shape[1]


def _is_slow(maps: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN has no fast code for the gradient of depthwise weights."""
    small = maps.shape[-2] < weight.shape[-2] or maps.shape[-1] < weight.shape[-1]
    return small or weight.shape[-1] > _WIDEST


def _weight_gradient(
    gradient: Tensor, maps: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """A strip of the kernel at a time, over maps that have their zeros around them."""
    y, x = (_Axis(maps.shape[i], gradient.shape[i], weight.shape[i], stride[i], padding[i]) for i in (-2, -1))
    small = y.size < y.kernel
    top, bottom = (y.first, y.last) if small else (0, y.kernel - 1)
    zeros, within = (y.zeros(top, bottom), 0) if small else ((0, 0), y.padding)
    strips = []
    for left in range(x.first, x.last + 1, _WIDEST):
        right = min(left + _WIDEST - 1, x.last)
        padded = functional.pad(maps, (*x.zeros(left, right), *zeros))
        kernel = weight[:, :, top : bottom + 1, left : right + 1]
        strips.append(_gradients(gradient, padded, kernel, stride, (within, 0), (False, True, False))[1])
    around = (x.first, x.kernel - 1 - x.last, top, y.kernel - 1 - bottom)
    return functional.pad(torch.cat(strips, dim=3), around)


@dataclass(frozen=True)
class _Axis:
    """One axis of a convolution: from `size` places of the map to `places` of the outputs."""

    size: int
    places: int
    kernel: int
    stride: int
    padding: int

    @property
    def first(self) -> int:
        """The first place of the kernel that meets the map anywhere."""
        return max(0, self.padding - self._last_start)

    @property
    def last(self) -> int:
        """The last place of the kernel that meets the map anywhere."""
        return min(self.kernel - 1, self.padding + self.size - 1)

    @property
    def _last_start(self) -> int:
        return (self.places - 1) * self.stride

    def zeros(self, first: int, last: int) -> tuple[int, int]:
        """What part of a kernel needs before the map and after it; less than none is what it leaves out."""
        before = self.padding - first
        return before, self._last_start + last + 1 - self.padding - self.size


def _gradients(
    gradient: Tensor,
    maps: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Of maps, weights and bias; what is not wanted is not worked out."""
    groups = _groups(maps, weight)
    return torch.ops.aten.convolution_backward(  # type: ignore[no-any-return]
        gradient, maps, weight, [len(weight)], stride, padding, (1, 1), False, (0, 0), groups, wanted
    )


def is_plain(maps: Tensor) -> bool:
    """Whether maps are on a CPU and are not cast on the way, which is what this module is made for."""
    return maps.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def with_depthwise(module: nn.Module) -> nn.Module:
    """The same module, its depthwise convolutions (a group a channel) and timm's of the classes above."""
    for each in module.modules():
        if type(each) is nn.Conv2d and _is_depthwise(each):
            each.__class__ = DepthwiseConv2d
        elif isinstance(each, _PADDED_BY_TIMM) and set(each.dilation) == {1}:
            each.__class__ = SameDepthwiseConv2d if _is_depthwise(each) else SameConv2d
    return module


def _is_depthwise(layer: nn.Conv2d) -> bool:
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros" or set(layer.dilation) != {1}:
        return False
    within = all(padding < kernel for padding, kernel in zip(layer.padding, layer.kernel_size, strict=True))
    return within and 1 < layer.in_channels == layer.groups
