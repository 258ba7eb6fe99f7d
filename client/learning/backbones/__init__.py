"""Backbones of students, by name: a timm model without its head, or the image encoder of another family.

The prefix of a name is its family, and a family is one module here: `open_clip:ViT-B-16/openai` is read by
open_clip_backbones.py, and a name without a prefix by timm_backbones.py. Another family is another module
with the functions of `Family`. What is plugged in (`client.plugins`) is read by python_backbones.py, whatever
its name. Nothing heavy is imported before a backbone is asked for.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from client.errors import UsageError
from client.plugins import PYTHON, Plugins, named

if TYPE_CHECKING:  # torch takes seconds to import
    from torch import nn

DEFAULT_BACKBONE = "tf_efficientnet_lite0"
OPEN_CLIP = "open_clip:"
BUNDLED_TEACHER = f"{OPEN_CLIP}icon-clip"

# The attribute of a network that was plugged in.
PLUGGED_IN = "is_plugged_into_tuition"
STUDENTS = Plugins("student", option="--student", group="tuition.students")

_MODULES = "_backbones"


class Family(Protocol):
    """The functions that the module of a family has.

    A backbone of it says of itself what timm's do: `pretrained_cfg` (with `input_size`, `mean` and `std`) and
    `num_features`; `group_matcher`, if layers of it can be frozen; and `architecture`, a text to build it
    from again, where its name does not suffice for that.
    """

    def native_image_size(self, name: str) -> int:
        """The side, in pixels, at which a backbone's weights were trained."""

    def load(self, name: str, image_size: int | None, weights: Path | None) -> nn.Module:
        """A backbone with its pre-trained weights; see `load_backbone`."""

    def local_files(self, name: str) -> tuple[Path, ...]:
        """The files here that weights known by this name are read from."""

    def empty(self, name: str, image_size: int, architecture: str | None) -> nn.Module:
        """A backbone of this shape for a saved student's weights; see `empty_backbone`."""


def native_image_size(name: str) -> int:
    """The side, in pixels, at which a backbone's weights were trained.

    Raises:
        UsageError: there is no such model.
    """
    return _family(name).native_image_size(name)


def load_backbone(name: str, *, image_size: int | None = None, weights: Path | None = None) -> nn.Module:
    """The backbone `name` with its pre-trained weights.

    Args:
        name: as timm names it, with or without a tag for its weights; or the prefix of a family, and a model.
        image_size: side in pixels that it will be used at; its own where it is `None`.
        weights: a file of weights to use instead of those of the name: safetensors, or a state dictionary
            that torch saved; a student's file gives its backbone's.

    Raises:
        UsageError: there is no such model, its weights cannot be had or do not fit, or it takes no images of
            this size.
    """
    return _family(name).load(name, image_size, weights)


def local_files(name: str, weights: Path | str | None) -> tuple[Path, ...]:
    """The files here that `load_backbone` reads; none of a backbone whose weights are known by its name.

    Raises:
        UsageError: there is no such model.
    """
    return (Path(weights),) if weights is not None else _family(name).local_files(name)


def empty_backbone(name: str, *, image_size: int, architecture: str | None = None) -> nn.Module:
    """A backbone of this shape, freshly initialised, for a saved student's weights to be loaded into.

    Raises:
        UsageError: there is no such model.
        ValueError: `architecture` describes none.
    """
    return _family(name, architecture).empty(name, image_size, architecture)


def architecture_of(backbone: nn.Module) -> str | None:
    """A text to build the backbone from again; `None` where its name suffices."""
    if getattr(backbone, PLUGGED_IN, False):
        return PYTHON
    return cast("str | None", getattr(backbone, "architecture", None))


def register_student(name: str, network: Any) -> str:  # noqa: ANN401 (a module, or what makes one: torch is late)
    """Have `--student`, options and `load_student` know a network of one's own by a name; returns the name.

    Args:
        name: of letters, digits, ".", "_" and "-"; or as a student's file has it.
        network: a module of PyTorch's, or a function or class that makes one; see docs/extending.md.

    Raises:
        UsageError: it is neither, or the name is none.
    """
    if not callable(network):
        raise UsageError(
            f"The student {name} is of type {type(network).__name__}: it has to be an nn.Module."
        )
    return STUDENTS.register(name, network)


def student_name(given: Any) -> str:  # noqa: ANN401 (a name, a module, or what makes one)
    """The name of what stands in options: a network there is registered."""
    return named(given, STUDENTS)


def _family(name: str, architecture: str | None = None) -> Family:
    """The module of a name's family; timm's, which says that it has no such model, for an unknown prefix."""
    if architecture == PYTHON or STUDENTS.knows(name):
        return cast(Family, import_module(f"{__name__}.{PYTHON}{_MODULES}"))
    prefix, colon, _ = name.partition(":")
    known = {module.name for module in pkgutil.iter_modules(__path__)}
    module = f"{prefix}{_MODULES}" if colon and f"{prefix}{_MODULES}" in known else f"timm{_MODULES}"
    return cast(Family, import_module(f"{__name__}.{module}"))
