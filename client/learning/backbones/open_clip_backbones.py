"""The image encoder of an open_clip model as a student's backbone, for students that began as a CLIP.

A model is named `open_clip:` and

- `MODEL/PRETRAINED`: open_clip's name and the tag of its weights (or a file of them), `ViT-B-16/openai`;
- `FOLDER`: a folder with `open_clip_config.json` and the weights;
- `NAME`: a folder that an installed package offers as an entry point of the group `tuition.open_clip_models`
  (Tuition's vendor offers `icon-clip`).
"""

import json
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional

from client.errors import UsageError
from client.learning.backbones import OPEN_CLIP
from client.paths import is_file

ENTRY_POINTS = "tuition.open_clip_models"

# The files of a folder: open_clip takes its weights from one of those that are called so.
_CONFIG = "open_clip_config.json"
_WEIGHTS = ("*.safetensors", "*.bin", "*.pth")

# A text tower as small as open_clip builds it, for an encoder that needs none.
_NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 1, "heads": 1, "layers": 1}
_MOST_LAYERS = 512


@dataclass(frozen=True)
class _Source:
    """A model as open_clip is asked for it, and its configuration."""

    name: str
    pretrained: str | None
    config: dict[str, Any]
    folder: Path | None = None


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
    size = _find(name).config["vision_cfg"].get("image_size", 224)
    return int(size if isinstance(size, int) else size[0])


def load(name: str, image_size: int | None, weights: Path | None) -> ClipBackbone:
    """The image encoder of a model, with its weights.

    Raises:
        UsageError: there is no such model, its weights cannot be had, or others are to be used.
    """
    if weights is not None:
        raise UsageError(f"--student-weights is for timm backbones: name {OPEN_CLIP}MODEL/FILE instead.")
    source = _find(name)
    model = _create(source, image_size)
    config = source.config
    vision = {**config["vision_cfg"], "image_size": image_size or native_image_size(name)}
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    if vision.get("output_tokens"):  # CoCa's encoder gives its decoder an embedding of each patch as well
        vision["output_tokens"] = model.visual.output_tokens = False
    architecture = {"embed_dim": config["embed_dim"], "vision_cfg": vision}
    if _quick_gelu(source):
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
        _check_vision(described["vision_cfg"])
        return ClipBackbone(open_clip.CLIP(**described, text_cfg=_NO_TEXT).visual, described, mean, std)
    except Exception as error:  # open_clip and timm answer what makes no sense with almost any
        raise ValueError(f"no architecture of an open_clip image encoder: {error!r}") from error


def local_files(name: str) -> tuple[Path, ...]:
    """The files here that a model is read from: of a folder, its configuration and weights.

    Raises:
        UsageError: there is no such model.
    """
    source = _find(name)
    if source.folder is not None:
        weights = (file for pattern in _WEIGHTS for file in source.folder.glob(pattern))
        return (source.folder / _CONFIG, *sorted(weights))
    if source.pretrained in open_clip.list_pretrained_tags_by_model(source.name):
        return ()
    return (Path(cast(str, source.pretrained)),)


def class_texts(name: str, prompts: Sequence[str]) -> Tensor:
    """The unit embeddings that a model's own text encoder gives these, shape (prompts, dimensions).

    Raises:
        UsageError: there is no such model, or its weights cannot be had.
    """
    source = _find(name)
    model = _create(source, None).eval()
    with warnings.catch_warnings():
        # open_clip leaves its vocabulary file to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        tokenizer = open_clip.get_tokenizer(source.name)
    with torch.inference_mode():
        texts = model.encode_text(tokenizer(list(prompts)))
    return functional.normalize(texts.float(), dim=1).clone()


def _find(name: str) -> _Source:
    model = name.removeprefix(OPEN_CLIP)
    folder = _offered_folder(model) or Path(model).expanduser()
    if is_file(folder / _CONFIG):
        return _Source(f"local-dir:{folder}", None, _folder_config(folder / _CONFIG), folder)
    architecture, _, pretrained = model.rpartition("/")
    known = open_clip.list_models()
    if architecture not in known:
        wanted = architecture or model
        offered = entry_points(group=ENTRY_POINTS).names
        close = get_close_matches(wanted, [*offered, *known], n=4, cutoff=0.4)
        raise UsageError(
            f"There is no open_clip model {wanted!r}, and no folder of that name with an "
            f"open_clip_config.json. Close: {', '.join(close) or 'none'}. Name it as "
            f"{OPEN_CLIP}MODEL/PRETRAINED, e.g. {OPEN_CLIP}ViT-B-16/openai, or {OPEN_CLIP}FOLDER."
        )
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if pretrained not in tags and not is_file(pretrained):
        raise UsageError(
            f"open_clip has no weights {pretrained!r} of {architecture}; its tags: "
            f"{', '.join(tags) or 'none'}."
        )
    return _Source(architecture, pretrained, cast(dict[str, Any], open_clip.get_model_config(architecture)))


def _offered_folder(name: str) -> Path | None:
    """The folder that an installed package offers under this name."""
    for entry in entry_points(group=ENTRY_POINTS, name=name):
        spec = find_spec(entry.value)
        if spec is not None and spec.submodule_search_locations:
            return Path(next(iter(spec.submodule_search_locations)))
    return None


def _folder_config(path: Path) -> dict[str, Any]:
    """A folder's configuration, which names nothing that open_clip would fetch from a hub.

    Raises:
        UsageError: it cannot be read, or names such a thing.
    """
    try:
        config = cast(dict[str, Any], json.loads(path.read_text(encoding="utf-8"))["model_cfg"])
        _check_vision(config.get("vision_cfg", {}))
        if hub := sorted(each for each in config.get("text_cfg", {}) if each.startswith("hf_")):
            raise ValueError(f"{hub[0]} names what is on a model hub")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read as an open_clip configuration: {error!r}") from error
    return config


def _check_vision(config: dict[str, Any]) -> None:
    """Refuse an encoder that would be fetched from a hub, or that takes long to build.

    Raises:
        ValueError: it is one.
    """
    layers = config.get("layers", 0)
    if config.get("timm_model_pretrained") or ":" in config.get("timm_model_name", ""):
        raise ValueError("it names weights on a model hub")
    if sum(layers if isinstance(layers, list) else [layers]) > _MOST_LAYERS:
        raise ValueError(f"it has more than {_MOST_LAYERS} layers")


def _quick_gelu(source: _Source) -> bool:
    """Whether the weights were trained with the fast GELU, which open_clip leaves to its caller."""
    tag = open_clip.get_pretrained_cfg(source.name, source.pretrained) if source.pretrained else {}
    return bool(tag.get("quick_gelu") or source.config.get("quick_gelu"))


def _create(source: _Source, image_size: int | None) -> Any:  # noqa: ANN401 (open_clip is not typed)
    try:
        return open_clip.create_model(
            source.name,
            source.pretrained,
            force_image_size=image_size,
            force_quick_gelu=_quick_gelu(source),
            require_pretrained=True,
        )
    except Exception as error:  # its own, its hub's and its transport's
        raise UsageError(
            f"The open_clip model {source.name!r} cannot be loaded ({type(error).__name__}: {error}). "
            "Is the network up? A folder on disk needs none."
        ) from error
