"""Depthwise convolutions whose weights can be trained in good time on a CPU, however small their maps are."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class _Reach:
    """Along one axis, the part of a kernel that meets the map, and the zeros that it needs there."""

    first: int
    last: int
    before: int
    after: int

    @classmethod
    def of(cls, size: int, *, kernel: int, stride: int, padding: int) -> "_Reach":
        """For a map of `size`; all that a kernel of one place more or less would see are zeros."""
        last_place = (size + 2 * padding - kernel) // stride * stride
        before, beyond = min(padding, last_place), min(kernel - 1 - padding, size - 1)
        return cls(padding - before, padding + beyond, before, last_place + beyond + 1 - size)


class DepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d`, whose place it takes, but for maps that are smaller than its kernel.

    oneDNN works out the gradient of the weights there by its reference code, which takes up to thirty times
    as long. With the zeros put there before, and without the weights that meet nothing else, it does not:
    the same sums, in another order.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (nn.Conv2d's name for it)
        """The convolution of maps of shape (n, channels, height, width)."""
        small = input.shape[-2] < self.kernel_size[0] or input.shape[-1] < self.kernel_size[1]
        trains = self.training and self.weight.requires_grad
        if not (small and trains and input.device.type == "cpu"):
            return super().forward(input)
        assert not isinstance(self.padding, str)
        y, x = (
            _Reach.of(size, kernel=kernel, stride=stride, padding=padding)
            for size, kernel, stride, padding in zip(
                input.shape[-2:], self.kernel_size, self.stride, self.padding, strict=True
            )
        )
        weight = self.weight[:, :, y.first : y.last + 1, x.first : x.last + 1]
        padded = functional.pad(input, (x.before, x.after, y.before, y.after))
        return functional.conv2d(padded, weight, self.bias, self.stride, groups=self.groups)


def with_depthwise(module: nn.Module) -> nn.Module:
    """The same module, its depthwise convolutions (a group a channel) of the class above."""
    for each in module.modules():
        if type(each) is nn.Conv2d and _is_depthwise(each):
            each.__class__ = DepthwiseConv2d
    return module


def _is_depthwise(layer: nn.Conv2d) -> bool:
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros" or set(layer.dilation) != {1}:
        return False
    within = all(padding < kernel for padding, kernel in zip(layer.padding, layer.kernel_size, strict=True))
    return within and 1 < layer.in_channels == layer.groups
