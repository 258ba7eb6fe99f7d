"""BatchNorm with frozen statistics, folded into the convolution before it while a student trains on a CPU.

Such a layer only scales and shifts each channel, and so it can scale the convolution's weights instead, which
are far fewer than the values of its maps. Function and gradients stay what they were, those of its own weight
and bias among them; what is saved is a pass over the maps forward and one backward, and with the activation
behind it one more each.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from client.learning.convolutions import (
    DepthwiseConv2d,
    SameConv2d,
    SameDepthwiseConv2d,
    convolution,
    is_plain,
    zeros_around,
)

_INFINITY = float("inf")
_BOUNDS: dict[type[nn.Module], tuple[float, float]] = {nn.ReLU: (0.0, _INFINITY), nn.ReLU6: (0.0, 6.0)}
_ALIKE = 1e-3  # how far rounding may move a backbone's outputs, of the largest of them


class _FoldingConv2d(nn.Conv2d):
    """A convolution that does the work of the layer behind it as well, in training on a CPU."""

    norm: tuple[nn.BatchNorm2d]  # a tuple, or else torch would take it for a part of this module
    answers = False

    def folds(self, maps: Tensor) -> bool:
        """Whether it does so for these maps: where it only answers, both layers are as they were, but within
        `folded_answers`."""
        return (self.training or self.answers) and is_plain(maps)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (nn.Conv2d's name for it)
        """Maps of shape (n, channels, height, width): convolved, normalised, and clamped if that is next."""
        if not self.folds(input):
            return super().forward(input)
        (norm,) = self.norm
        assert norm.running_var is not None
        assert norm.running_mean is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        shift = norm.bias - scale * norm.running_mean
        if self.bias is not None:
            shift = shift + scale * self.bias
        weight, stride = self.weight * scale.view(-1, 1, 1, 1), cast(tuple[int, int], self.stride)
        return convolution(input, weight, shift, stride, zeros_around(self, input), _bounds(norm))


class _FoldingDepthwiseConv2d(_FoldingConv2d, DepthwiseConv2d):
    """The same of a depthwise convolution."""


class _FoldingSameConv2d(_FoldingConv2d, SameConv2d):
    """The same of one that is padded as TensorFlow does."""


class _FoldingSameDepthwiseConv2d(_FoldingConv2d, SameDepthwiseConv2d):
    """The same of one that is both."""


_FOLDING: dict[type[nn.Module], type[_FoldingConv2d]] = {
    nn.Conv2d: _FoldingConv2d,
    DepthwiseConv2d: _FoldingDepthwiseConv2d,
    SameConv2d: _FoldingSameConv2d,
    SameDepthwiseConv2d: _FoldingSameDepthwiseConv2d,
}


class _FoldedNorm(nn.BatchNorm2d):
    """The layer behind it, which does what is left."""

    convolution: tuple[_FoldingConv2d]

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """What the layer makes of maps, or what is left of it where they come from a folding convolution."""
        if not self.convolution[0].folds(input):
            return super().forward(input)
        if _bounds(self) is not None or not hasattr(self, "act"):
            return input
        return cast(Tensor, cast(Any, self).act(cast(Any, self).drop(input)))


def _bounds(norm: nn.Module) -> tuple[float, float] | None:
    """Of the activation that is a part of timm's BatchNorm layers, if it clamps."""
    if not isinstance(getattr(norm, "drop", None), nn.Identity):
        return None
    return _BOUNDS.get(type(cast(nn.Module, norm.act)))


@cache
def _folded(kind: Hashable) -> type[_FoldedNorm]:
    """A kind of BatchNorm layer that is folded."""
    assert isinstance(kind, type)
    return cast(type[_FoldedNorm], type(f"Folded{kind.__name__}", (_FoldedNorm, kind), {}))


def fold_norms(backbone: nn.Module, side: int) -> int:
    """Fold what can be folded of a backbone whose BatchNorm layers are in evaluation mode; returns how many.

    Names and parameters stay as they are. A backbone that would compute something else, because the maps of a
    convolution also go elsewhere than into the layer behind it, is left as it was.

    Args:
        backbone: in training mode, but for those layers.
        side: of its images, in pixels.
    """
    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(
        next(backbone.parameters())
    )
    if not is_plain(image):
        return 0
    before, pairs = _traced(backbone, image)
    kinds = [(layer, type(layer)) for pair in pairs for layer in pair]
    for conv, norm in pairs:
        conv.__class__ = _FOLDING[type(conv)]
        norm.__class__ = _folded(cast(Hashable, type(norm)))
        cast(_FoldingConv2d, conv).norm = (norm,)
        cast(_FoldedNorm, norm).convolution = (cast(_FoldingConv2d, conv),)
    after = _answer(backbone, image)
    if (after - before).abs().max() <= _ALIKE * before.abs().max():
        return len(pairs)
    for layer, kind in kinds:
        layer.__class__ = kind
    return 0


@contextmanager
def folded_answers(backbone: nn.Module) -> Iterator[None]:
    """Have the folded layers of a backbone do their work also where it only answers, for a training run's own
    answers about many images: they take three quarters of the time, and differ in the last digits."""
    layers = [each for each in backbone.modules() if isinstance(each, _FoldingConv2d)]
    for layer in layers:
        layer.answers = True
    try:
        yield
    finally:
        for layer in layers:
            layer.answers = False


def is_folded(module: nn.Module) -> bool:
    """Whether a module answers by folded layers now, as within `folded_answers`."""
    return any(isinstance(each, _FoldingConv2d) and each.answers for each in module.modules())


def _traced(backbone: nn.Module, image: Tensor) -> tuple[Tensor, list[tuple[nn.Conv2d, nn.BatchNorm2d]]]:
    """What a backbone answers, and which BatchNorm layers are given just what a convolution made.

    Both are called once, and are of a kind that can be folded.
    """
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    calls: Counter[nn.Module] = Counter()
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def convolved(module: nn.Module, _: Any, outputs: Tensor) -> None:  # noqa: ANN401
        calls[module] += 1
        made[id(outputs)] = (cast(nn.Conv2d, module), outputs)  # kept, so that no other has its id

    def normalised(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls[module] += 1
        if (maker := made.get(id(inputs[0]))) is not None:
            pairs.append((maker[0], cast(nn.BatchNorm2d, module)))

    with _hooked(backbone, convolved, normalised):
        answer = _answer(backbone, image)
    taken = Counter(conv for conv, _ in pairs)
    return answer, [pair for pair in pairs if calls[pair[0]] == calls[pair[1]] == taken[pair[0]] == 1]


@contextmanager
def _hooked(
    backbone: nn.Module, convolved: Callable[..., None], normalised: Callable[..., None]
) -> Iterator[None]:
    handles = []
    for module in backbone.modules():
        if type(module) in _FOLDING and _is_simple(cast(nn.Conv2d, module)):
            handles.append(module.register_forward_hook(convolved))
        elif (
            isinstance(module, nn.BatchNorm2d) and not isinstance(module, _FoldedNorm) and _is_frozen(module)
        ):
            handles.append(module.register_forward_pre_hook(normalised))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _is_simple(conv: nn.Conv2d) -> bool:
    return conv.padding_mode == "zeros" and not isinstance(conv.padding, str) and set(conv.dilation) == {1}


def _is_frozen(norm: _BatchNorm) -> bool:
    """Whether it scales and shifts by what it has learnt, and does nothing else that is not known."""
    known = type(norm) is nn.BatchNorm2d or (hasattr(norm, "drop") and hasattr(norm, "act"))
    return known and not norm.training and norm.affine and norm.running_var is not None


@torch.no_grad()
def _answer(backbone: nn.Module, image: Tensor) -> Tensor:
    """Of a backbone that may drop some of what it computes, the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return cast(Tensor, backbone(image))
