"""Students' networks of the user's own: a module of PyTorch's, or a function or class that makes one.

The network takes normalised pixels, float32 of shape (n, 3, side, side), and gives features of shape
(n, num_features). Where it has a `pretrained_cfg`, as timm's networks have, that says how its pixels are
normalised (`mean`, `std`) and which side is its own (`input_size`); otherwise it is ImageNet's, at 224.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from client.errors import UsageError
from client.learning.backbones import PLUGGED_IN, STUDENTS
from client.learning.backbones.timm_backbones import load_weights, student_in, width_of
from client.plugins import of_others

_USUAL = {"input_size": (3, 224, 224), "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
# What each name stands for, and the network that it gave.
_MADE: dict[str, tuple[Any, nn.Module]] = {}


def native_image_size(name: str) -> int:
    """The side of its input in pixels.

    Raises:
        UsageError: there is no such network.
    """
    return int(_usual_of(made(name))["input_size"][-1])


def load(name: str, image_size: int | None, weights: Path | None) -> nn.Module:
    """A copy of the network; see `load_backbone`.

    Raises:
        UsageError: there is no such network, it does not give features, or the weights are others'.
    """
    network = _ready(name)
    if weights is not None:
        before = student_in(weights)
        if before not in (None, name):
            raise UsageError(f"The weights in {weights} are of a {before}, and not of {name}.")
        load_weights(network, name, weights)
    _require_features(network, name, image_size or native_image_size(name))
    return network


def local_files(name: str) -> tuple[Path, ...]:  # noqa: ARG001 (`Family`)
    """None: what it is made of is digested as it is."""
    return ()


def empty(name: str, image_size: int, architecture: str | None) -> nn.Module:  # noqa: ARG001 (`Family`)
    """A copy of the network, for a saved student's weights.

    Raises:
        UsageError: nobody but the student's file names it.
    """
    if name not in _MADE and not STUDENTS.installed(name):
        raise UsageError(
            f"The student's network is {name}, which is code, and no file says what code runs here. Its "
            f"student.onnx needs none; a program says tuition.register_student({name!r}, ...) first, and a "
            f"package offers it as an entry point of {STUDENTS.group}."
        )
    return _ready(name)


def made(name: str) -> nn.Module:
    """The network that a name stands for, as it was first made: it is not to be changed.

    It is made with PyTorch's generators seeded, so that it begins with the same weights each time.

    Raises:
        UsageError: there is none.
    """
    thing = STUDENTS.load(name)
    if name in _MADE and _MADE[name][0] is thing:
        return _MADE[name][1]
    network = thing
    if not isinstance(thing, nn.Module):
        with torch.random.fork_rng(), torch.device("cpu"), of_others(f"The student {name}"):
            torch.manual_seed(0)
            network = thing()
    if not isinstance(network, nn.Module):
        raise UsageError(
            f"The student {name} is of type {type(network).__name__}: it has to be an nn.Module."
        )
    width = getattr(network, "num_features", None)
    if not isinstance(width, int) or width < 1:
        raise UsageError(f"The student {name} needs an attribute `num_features`: how many it gives an image.")
    _MADE[name] = thing, copy.deepcopy(network).cpu().eval()
    return _MADE[name][1]


def _ready(name: str) -> nn.Module:
    network = copy.deepcopy(made(name))
    for name, value in (("pretrained_cfg", _usual_of(network)), (PLUGGED_IN, True)):
        setattr(network, name, value)
    return network


def _usual_of(network: nn.Module) -> dict[str, Any]:
    told = getattr(network, "pretrained_cfg", None)
    return {**_USUAL, **{key: told[key] for key in _USUAL if told and key in told}}


@torch.no_grad()
def _require_features(network: nn.Module, name: str, side: int) -> None:
    """Check on two images of noise that a network gives as many features as it says.

    Raises:
        UsageError: it does not.
        ClientError: it raises.
    """
    noise = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with of_others(f"The student {name}, of images of {side} pixels,"):
        given = network.eval()(noise)
    width = width_of(network)
    if not isinstance(given, Tensor) or given.shape != (2, width) or not given.is_floating_point():
        what = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
        raise UsageError(
            f"The student {name} gives {what} for two images of {side} pixels: it has to give features of "
            f"shape (2, {width}), as its `num_features` says, without a classifier."
        )
    if not bool(torch.isfinite(given).all()):
        raise UsageError(f"The student {name} gives features that are not finite.")
