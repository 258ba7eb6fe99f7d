"""The student: a backbone, a projector into the teacher's space, and a text head."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from client.errors import UsageError
from client.learning.backbones import BUNDLED_TEACHER, load_backbone
from client.learning.backbones.timm_backbones import thawed, width_of
from client.learning.convolutions import with_fast_gradients
from client.learning.methods import cosine_logits


@dataclass(frozen=True)
class Preprocessing:
    """The backbone's inputs in training: side in pixels, mean and deviation of each channel (0 to 1)."""

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Size:
    """Parameters of a model, and the memory of their float32 weights in MiB."""

    parameters: int
    weights_mib: float

    @property
    def described(self) -> str:
        """In words; training with Adam holds the weights, their gradients and two moments."""
        return (
            f"{self.parameters / 1e6:.1f} million parameters, {self.weights_mib:.0f} MiB "
            f"(about {4 * self.weights_mib:.0f} MiB in training, and the activations)"
        )


class ClassifyingProjector(nn.Module):
    """A projector into the teacher's space, and behind it a classifier that starts as the class texts.

    Its outputs, shape (n, d + classes), are the embedding and its class scores side by side: RISE's loss
    compares both (Huang et al., ICCV 2023).
    """

    def __init__(self, features: int, texts: Tensor) -> None:
        super().__init__()
        classes, self.width = texts.shape
        self.space = nn.Linear(features, self.width)
        self.classifier = nn.Linear(self.width, classes)
        with torch.no_grad():
            self.classifier.weight.copy_(texts)

    def forward(self, features: Tensor) -> Tensor:
        """Embeddings and class scores, shape (n, d + classes), of f(x), shape (n, features)."""
        embeddings = self.space(features)
        return torch.cat([embeddings, self.classifier(embeddings)], dim=1)


class StudentNetwork(nn.Module):
    """`P f(x)`: images to the teacher's space, and from there to classes.

    With a text head (classes, d) the class scores are 100 x cosine to the class texts (the paper's
    "predict"). Without one, the projector is an ordinary classifier, whose outputs are the scores, or a
    `ClassifyingProjector`. The probabilities are the softmax of the scores divided by the temperature, a
    number. Otherwise the projector is a linear layer, or the identity where the backbone's own outputs are
    in the teacher's space. BatchNorm statistics are frozen, always; its affine parameters train with the
    backbone.
    """

    text_head: Tensor | None
    temperature: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        projector: nn.Module,
        text_head: Tensor | None,
        preprocessing: Preprocessing,
    ) -> None:
        super().__init__()
        self.backbone = with_fast_gradients(backbone)
        self.projector = projector
        self.register_buffer("text_head", text_head)
        self.register_buffer("temperature", torch.ones(()))
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

    @torch.no_grad()
    def embed(self, pixels: Tensor) -> Tensor:
        """Unit embeddings, shape (n, d), of uint8 pixels (n, 3, size, size): what a teacher would answer."""
        return functional.normalize(self(pixels), dim=1)

    def embeddings(self, pixels: Tensor) -> Tensor:
        """Unit vectors, shape (n, d), of uint8 pixels (n, 3, size, size).

        They are in the teacher's space where the student has a projector into it, else f(x).
        """
        vectors = self.features(pixels)
        if isinstance(self.projector, ClassifyingProjector):
            vectors = self.projector.space(vectors)
        elif self.text_head is not None:
            vectors = self.projector(vectors)
        return functional.normalize(vectors, dim=1)

    def logits(self, outputs: Tensor) -> Tensor:
        """Class scores, shape (n, classes), of the outputs of `forward`."""
        if isinstance(self.projector, ClassifyingProjector):
            return outputs[:, self.projector.width :]
        return outputs if self.text_head is None else cosine_logits(outputs, self.text_head)

    def probabilities(self, scores: Tensor) -> Tensor:
        """How likely each class is by the scores of `logits`, shape (n, classes)."""
        return (scores / self.temperature.to(scores.device)).softmax(dim=1)

    def trainable(self, parts: frozenset[str], *, frozen: float) -> list[nn.Parameter]:
        """The parameters of some parts ("backbone", "projector"); of the backbone, those of `thawed`."""
        chosen = thawed(self.backbone, frozen=frozen) if "backbone" in parts else []
        if "projector" in parts:
            chosen += self.projector.parameters()
        return chosen

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return next(self.parameters()).device

    @property
    def size(self) -> Size:
        """How large it is."""
        weights = sum(parameter.numel() for parameter in self.parameters())
        return Size(weights, round(4 * weights / 2**20, 1))


def _channels(values: tuple[float, float, float]) -> Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)


def build_student(
    backbone: nn.Module,
    *,
    outputs: int,
    text_head: Tensor | None,
    image_size: int | None = None,
    preprocessing: Preprocessing | None = None,
    own_projector: bool = False,
    trains_texts: bool = False,
) -> StudentNetwork:
    """A student on a backbone of `load_backbone`; its projector is initialised from torch's global seed.

    Args:
        backbone: f, without a head.
        outputs: the projector's width: the teacher's dimensions, or without a text head the classes.
        text_head: unit class texts, shape (classes, outputs), or `None` for a classifier.
        image_size: side in pixels; the backbone's own where it is `None`.
        preprocessing: what its images are prepared by; what the backbone was trained with where it is `None`.
        own_projector: the backbone ends with a projection into the teacher's space, and is given no other.
        trains_texts: the class texts are where a classifier behind the projector starts (see
            `ClassifyingProjector`), and no head.

    Raises:
        UsageError: the backbone's own outputs are not as wide as the teacher's.
    """
    features = width_of(backbone)
    if own_projector and features != outputs:
        raise UsageError(
            f"The student's own embeddings have {features} dimensions and the teacher's {outputs}, so it is "
            "not the same model: --method vl2v-adip gives the student a projector into the teacher's space."
        )
    projector: nn.Module
    if own_projector:
        projector = nn.Identity()
    elif trains_texts:
        assert text_head is not None
        projector, text_head = ClassifyingProjector(features, text_head), None
    else:
        projector = nn.Linear(features, outputs)
    seen = preprocessing or _preprocessing_of(backbone, image_size)
    student = StudentNetwork(backbone, projector, text_head, seen)
    return cast(Callable[..., StudentNetwork], student.to)(memory_format=torch.channels_last)


def _preprocessing_of(backbone: nn.Module, image_size: int | None) -> Preprocessing:
    """The preprocessing that a backbone's weights were trained with, but for the side."""
    config = cast(dict[str, Any], backbone.pretrained_cfg)
    side = image_size or config["input_size"][-1]
    return Preprocessing(image_size=side, mean=tuple(config["mean"]), std=tuple(config["std"]))


def bundled_teacher() -> StudentNetwork:
    """The image encoder of the CLIP that comes with Tuition, to be asked without a vendor.

    Raises:
        UsageError: the package that offers it is not installed.
    """
    encoder = load_backbone(BUNDLED_TEACHER)
    return build_student(encoder, outputs=width_of(encoder), text_head=None, own_projector=True).eval()
