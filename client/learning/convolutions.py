"""Convolutions that train in good time on a CPU: depthwise ones, and those that BatchNorm follows."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from client.learning.libraries import timm

_PADDED_BY_TIMM: type[nn.Conv2d] = timm.layers.Conv2dSame

# Rows before a map and behind it, and columns.
Zeros = tuple[tuple[int, int], tuple[int, int]]

_LONGEST_STRIDE = 2  # between columns, up to which strips of that width reach all of them
_WIDEST = 3  # columns of a kernel whose gradient oneDNN has fast code for


class DepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d`, whose place it takes, with a faster gradient of the weights where oneDNN's is slow.

    For kernels wider than three columns, and for maps smaller than the kernel, oneDNN takes code that is not
    made for depthwise convolutions, and up to thirty times as long. Here such a kernel is cut into strips of
    three columns, and weights that meet nothing but zeros are left out: the same sums, in another order.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (nn.Conv2d's name for it)
        """The convolution of maps of shape (n, channels, height, width)."""
        trains = self.training and self.weight.requires_grad
        stride, zeros = cast(tuple[int, int], self.stride), zeros_around(self, input)
        if not (trains and is_plain(input) and _in_strips(input, self.weight, stride, zeros)):
            return super().forward(input)
        return convolution(input, self.weight, self.bias, stride, zeros)


class SameConv2d(nn.Conv2d):
    """timm's `Conv2dSame`, whose place it takes: zeros around the maps as TensorFlow has them.

    There are as many as the last place of the kernel needs, and where that is an odd number, the one more
    stands behind.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """The convolution of maps of shape (n, channels, height, width)."""
        rows, columns = zeros_around(self, input)
        return super().forward(functional.pad(input, (*columns, *rows)))


class SameDepthwiseConv2d(DepthwiseConv2d, SameConv2d):
    """The same of a depthwise convolution."""


def zeros_around(layer: nn.Conv2d, maps: Tensor) -> Zeros:
    """How many rows of zeros a layer has before these maps and behind them, and how many columns."""
    if not isinstance(layer, SameConv2d):
        rows, columns = cast(tuple[int, int], layer.padding)
        return (rows, rows), (columns, columns)
    zeros = []
    for axis in (0, 1):
        side = int(maps.shape[axis - 2])  # a constant, also where the layer is traced for an export
        missing = timm.layers.get_same_padding(side, layer.kernel_size[axis], layer.stride[axis], 1)
        zeros.append((missing // 2, missing - missing // 2))
    return zeros[0], zeros[1]


def convolution(
    maps: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    zeros: Zeros,
    bounds: tuple[float, float] | None = None,
) -> Tensor:
    """What `functional.conv2d` makes of maps (n, channels, height, width) with zeros around them, and where
    `bounds` are given, clamped to these; with fast gradients on a CPU.

    There are as many groups as the weights, (outputs, channels / groups, height, width), say. The gradients
    of depthwise weights are worked out in strips where that is faster, those of the bias apart from those of
    the weights, and what is clamped is kept once. Where there are more zeros on one side, the kernel is given
    zeros instead of the maps, of which it is a small part.
    """
    apply = cast(Callable[..., Tensor], _Convolution.apply)
    return apply(maps, weight, bias, stride, zeros, bounds)


class _Convolution(Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 (a FunctionCtx, which declares none of what is used of it)
        maps: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        zeros: Zeros,
        bounds: tuple[float, float] | None,
    ) -> Tensor:
        kernel, padding = _symmetric(weight, zeros)
        outputs = functional.conv2d(maps, kernel, bias, stride, padding, groups=_groups(maps, weight))
        if bounds is not None:
            outputs.clamp_(*bounds)
        ctx.save_for_backward(maps, weight, None if bounds is None else outputs)
        ctx.stride, ctx.zeros, ctx.bounds = stride, zeros, bounds
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        maps, weight, outputs = ctx.saved_tensors
        if ctx.bounds is not None:
            gradient = torch.ops.aten.hardtanh_backward(gradient, outputs, *ctx.bounds)
        of_maps, of_weight, of_bias = ctx.needs_input_grad[:3]
        in_strips = (
            of_weight
            and _groups(maps, weight) == len(weight)
            and _in_strips(maps, weight, ctx.stride, ctx.zeros)
        )
        kernel, padding = _symmetric(weight, ctx.zeros)
        wanted = (of_maps, of_weight and not in_strips, False)
        for_maps, for_weight, _ = _gradients(gradient, maps, kernel, ctx.stride, padding, wanted)
        if in_strips:
            for_weight = _weight_gradient(gradient, maps, weight, ctx.stride, ctx.zeros)
        elif of_weight:
            for_weight = for_weight[:, :, -weight.shape[2] :, -weight.shape[3] :]
        for_bias = gradient.sum((0, 2, 3)) if of_bias else None
        return for_maps, for_weight, for_bias, None, None, None


def _symmetric(weight: Tensor, zeros: Zeros) -> tuple[Tensor, tuple[int, int]]:
    """A kernel that needs as many zeros on both sides of a map, and how many rows and columns.

    It does what the other one does: where that needs more behind the map than before it, it has zeros itself.
    """
    (above, below), (left, right) = zeros
    if (above, left) == (below, right):
        return weight, (above, left)
    return functional.pad(weight, (right - left, 0, below - above, 0)), (below, right)


def _groups(maps: Tensor, weight: Tensor) -> int:
    return maps.shape[1] // weight.shape[1]


def _in_strips(maps: Tensor, weight: Tensor, stride: tuple[int, int], zeros: Zeros) -> bool:
    """Whether oneDNN has no fast code for the gradient of these weights as they are, and strips do."""
    depthwise = _groups(maps, weight) == len(weight)
    small = maps.shape[-2] < weight.shape[-2] or maps.shape[-1] < weight.shape[-1]
    uneven = any(before != behind for before, behind in zeros)
    slow = small or uneven or weight.shape[-1] > _WIDEST
    return depthwise and slow and stride[-1] <= _LONGEST_STRIDE


def _weight_gradient(
    gradient: Tensor, maps: Tensor, weight: Tensor, stride: tuple[int, int], zeros: Zeros
) -> Tensor:
    """A strip of the kernel at a time: the map, or else the gradient, is moved by zeros beside it."""
    y, x = (_Axis(maps.shape[i], gradient.shape[i], weight.shape[i], stride[i], *zeros[i]) for i in (-2, -1))
    top, bottom, more, within = 0, y.kernel, y.behind - y.before, y.behind
    rows = (0, 0)
    if y.size < y.kernel + more:  # a small map has its zeros around it, as far as anything else meets them
        top, bottom, more, within = y.first, y.last + 1, 0, 0
        rows = y.zeros(top, bottom)
    parts = []
    for strip in _strips(x):
        kernel = weight.new_empty((len(weight), 1, more + bottom - top, strip.width))
        part = _gradients(
            _padded(gradient, strip.around_gradient, (0, 0)),
            _padded(maps, strip.around_map, rows),
            kernel,
            stride,
            (within, strip.within),
            (False, True, False),
        )[1]
        parts.append(part[:, :, more:, strip.first : strip.end])
    return functional.pad(torch.cat(parts, dim=3), (x.first, x.kernel - 1 - x.last, top, y.kernel - bottom))


def _padded(maps: Tensor, columns: tuple[int, int], rows: tuple[int, int]) -> Tensor:
    """The same maps if there is nothing to add or to leave out: `functional.pad` makes a copy then too."""
    return functional.pad(maps, (*columns, *rows)) if any((*columns, *rows)) else maps


@dataclass(frozen=True)
class _Strip:
    """Columns of a kernel whose gradient is worked out at once: those from `first` to `end` of `width`.

    What is around map and gradient is added before, and the map has `within` zeros on both sides besides.
    """

    width: int
    first: int
    end: int
    within: int
    around_map: tuple[int, int]
    around_gradient: tuple[int, int]

    def __len__(self) -> int:
        return self.end - self.first


@dataclass(frozen=True)
class _Axis:
    """One axis of a convolution: from `size` places of the map to `places` of the outputs."""

    size: int
    places: int
    kernel: int
    stride: int
    before: int
    behind: int

    @property
    def first(self) -> int:
        """The first place of the kernel that meets the map anywhere."""
        return max(0, self.before - self._last_start)

    @property
    def last(self) -> int:
        """The last place of the kernel that meets the map anywhere."""
        return min(self.kernel - 1, self.before + self.size - 1)

    @property
    def _last_start(self) -> int:
        return (self.places - 1) * self.stride

    def zeros(self, first: int, end: int) -> tuple[int, int]:
        """What part of a kernel needs before the map and behind it; less than none is what it leaves out."""
        before = self.before - first
        return before, self._last_start + end - self.before - self.size

    def strip(self, first: int) -> _Strip:
        """From this place of the kernel on; the map is moved, and has its zeros then."""
        width = min(_WIDEST, self.last + 1 - first)
        return _Strip(width, 0, width, 0, self.zeros(first, first + width), (0, 0))

    def strip_of_moved(self, first: int, moved: int) -> _Strip:
        """The same with the gradient moved by so many places, as far as it loses nothing by that."""
        size = max(self.size, _WIDEST)
        starts = (size - 1) // self.stride + 1
        lost = [at for at in range(self.places) if not 0 <= at + moved < starts]
        column = first - self.before - self.stride * moved + 1
        end = column
        for place in range(first, self.last + 1):
            met = any(0 <= at * self.stride + place - self.before < self.size for at in lost)
            if met or not 0 <= end < _WIDEST:
                break
            end += 1
        return _Strip(_WIDEST, column, end, 1, (0, size - self.size), (moved, starts - self.places - moved))


@cache
def _strips(axis: _Axis) -> list[_Strip]:
    """Of all places that meet the map. Where there are fewer outputs than places, it is they that move."""
    strips = []
    place = axis.first
    while place <= axis.last:
        if axis.stride == 1:
            strip = axis.strip(place)
        else:
            moves = range(-axis.kernel, axis.kernel + 1)
            strip = max((axis.strip_of_moved(place, moved) for moved in moves), key=len)
        strips.append(strip)
        place += len(strip)
    return strips


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
