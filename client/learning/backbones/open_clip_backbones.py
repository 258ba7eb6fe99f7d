"""The image encoder of an open_clip model as a student's backbone, for students that began as a CLIP.

`client.learning.backbones.open_clip_models` says how a model is named.
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional

from client.errors import UsageError
from client.learning.backbones import OPEN_CLIP
from client.learning.backbones.open_clip_models import (
    CONFIG,
    WEIGHTS,
    check_vision,
    create,
    find,
    tokenizer_of,
)

# A text tower as small as open_clip builds it, for an encoder that needs none.
_NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 1, "heads": 1, "layers": 1}


class ClipBackbone(nn.Module):
    """f(x): the embedding, not normalised, that an open_clip image encoder and its projection give.

    `architecture` is JSON to build it from again (`empty`); see `Family` for the rest.
    """

    def __init__(
        self, visual: nn.Module, architecture: dict[str, Any], mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.visual = visual
        size = architecture["vision_cfg"]["image_size"]
        self.pretrained_cfg = {"input_size": (3, size, size), "mean": tuple(mean), "std": tuple(std)}
        self.num_features: int = architecture["embed_dim"]
        self.architecture = json.dumps({**architecture, "mean": list(mean), "std": list(std)})

    def forward(self, pixels: Tensor) -> Tensor:
        """Embeddings, shape (n, num_features), of normalised pixels (n, 3, size, size)."""
        return cast(Tensor, self.visual(pixels))

    def group_matcher(self, *, coarse: bool) -> Callable[[str], int]:  # noqa: ARG002 (timm's convention)
        """Says of a parameter's name in which layer group it is, in the order of computation."""
        blocks = dict.fromkeys(_group_of(name) for name, _ in self.named_parameters())
        order = ["stem", *(block for block in blocks if block not in ("stem", "head")), "head"]
        return lambda name: order.index(_group_of(name))


def _group_of(name: str) -> str:
    """ "visual.transformer.resblocks.3.mlp.weight" is of block 3; what precedes all blocks is the stem."""
    block = re.search(r"\b(?:resblocks|blocks|stages|layers?)\.?\d+", name)
    if block:
        return block[0]
    last = r"^visual\.(ln_post|proj$|attn_pool|attnpool|head|trunk\.(conv_head|bn2|norm|head|fc_norm)\b)"
    return "head" if re.search(last, name) else "stem"


def native_image_size(name: str) -> int:
    """The side, in pixels, of the images that a model was trained on.

    Raises:
        UsageError: there is no such model.
    """
    size = find(name).config["vision_cfg"].get("image_size", 224)
    return int(size if isinstance(size, int) else size[0])


def load(name: str, image_size: int | None, weights: Path | None) -> ClipBackbone:
    """The image encoder of a model, with its weights.

    Raises:
        UsageError: there is no such model, its weights cannot be had, or others are to be used.
    """
    if weights is not None:
        raise UsageError(f"--student-weights is for timm backbones: name {OPEN_CLIP}MODEL/FILE instead.")
    source = find(name)
    model = create(source, image_size)
    config = source.config
    vision = {**config["vision_cfg"], "image_size": image_size or native_image_size(name)}
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    if vision.get("output_tokens"):  # CoCa's encoder gives its decoder an embedding of each patch as well
        vision["output_tokens"] = model.visual.output_tokens = False
    architecture = {"embed_dim": config["embed_dim"], "vision_cfg": vision}
    if source.quick_gelu:
        architecture["quick_gelu"] = True
    seen = model.visual.preprocess_cfg
    return ClipBackbone(model.visual, architecture, seen["mean"], seen["std"])


def empty(name: str, image_size: int, architecture: str | None) -> ClipBackbone:  # noqa: ARG001 (`Family`)
    """The encoder that a `ClipBackbone.architecture` describes, freshly initialised.

    Raises:
        ValueError: it describes none.
    """
    try:
        described = json.loads(architecture or "null")
        mean, std = described.pop("mean"), described.pop("std")
        check_vision(described["vision_cfg"])
        return ClipBackbone(open_clip.CLIP(**described, text_cfg=_NO_TEXT).visual, described, mean, std)
    except Exception as error:  # open_clip and timm answer what makes no sense with almost any
        raise ValueError(f"no architecture of an open_clip image encoder: {error!r}") from error


def local_files(name: str) -> tuple[Path, ...]:
    """The files here that a model is read from: of a folder, its configuration and weights.

    Raises:
        UsageError: there is no such model.
    """
    source = find(name)
    if source.folder is not None:
        weights = (file for pattern in WEIGHTS for file in source.folder.glob(pattern))
        return (source.folder / CONFIG, *sorted(weights))
    if source.pretrained in open_clip.list_pretrained_tags_by_model(source.name):
        return ()
    return (Path(cast(str, source.pretrained)),)


def class_texts(name: str, prompts: Sequence[str]) -> Tensor:
    """The unit embeddings that a model's own text encoder gives these, shape (prompts, dimensions).

    Raises:
        UsageError: there is no such model, or its weights cannot be had.
    """
    source = find(name)
    model = create(source).eval()
    tokenizer = tokenizer_of(source)
    with torch.inference_mode():
        texts = model.encode_text(tokenizer(list(prompts)))
    return functional.normalize(texts.float(), dim=1).clone()
