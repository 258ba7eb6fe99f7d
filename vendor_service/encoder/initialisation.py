"""A model that is about to be given its weights, without those that it would draw first."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import init
from torch.overrides import TorchFunctionMode

# What layers fill their weights with: PyTorch's own, and by it those of open_clip, timm and transformers.
_DRAWS = frozenset(
    {
        *(torch.Tensor.normal_, torch.Tensor.uniform_),
        *(init.normal_, init.uniform_, init.trunc_normal_, init.kaiming_normal_, init.kaiming_uniform_),
        *(init.xavier_normal_, init.xavier_uniform_),
    }
)


class WithoutDrawing(TorchFunctionMode):
    """While it is entered, tensors that would be filled with random numbers keep what they have in them.

    A ViT-B-32 of open_clip draws 151 million numbers, a second and more of a processor, before it is loaded.
    It is for models whose every weight is read from a file afterwards, or else loading fails.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """The call, or the tensor of one that draws."""
        given = kwargs or {}
        if func in _DRAWS:
            return args[0] if args else given["tensor"]
        return func(*args, **given)
