"""open_clip's models by name, with their weights: students' backbones, and teachers in this process.

A model is named `open_clip:` and

- `MODEL/PRETRAINED`: open_clip's name and the tag of its weights (or a file of them), `ViT-B-16/openai`;
- `FOLDER`: a folder with `open_clip_config.json` and the weights;
- `NAME`: a folder that an installed package offers as an entry point of the group `tuition.open_clip_models`
  (Tuition's vendor offers `icon-clip`).
"""

import json
import warnings
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import open_clip

from client.errors import UsageError
from client.learning.backbones import OPEN_CLIP
from client.paths import is_file

ENTRY_POINTS = "tuition.open_clip_models"

# The files of a folder: open_clip takes its weights from one of those that are called so.
CONFIG = "open_clip_config.json"
WEIGHTS = ("*.safetensors", "*.bin", "*.pth")
_MOST_LAYERS = 512


@dataclass(frozen=True)
class Source:
    """A model as open_clip is asked for it, and its configuration."""

    name: str
    pretrained: str | None
    config: dict[str, Any]
    folder: Path | None = None

    @property
    def quick_gelu(self) -> bool:
        """Whether the weights were trained with the fast GELU, which open_clip leaves to its caller."""
        tag = open_clip.get_pretrained_cfg(self.name, self.pretrained) if self.pretrained else {}
        return bool(tag.get("quick_gelu") or self.config.get("quick_gelu"))


def find(name: str) -> Source:
    """The model of a name.

    Raises:
        UsageError: there is none.
    """
    model = name.removeprefix(OPEN_CLIP)
    folder = _offered_folder(model) or Path(model).expanduser()
    if is_file(folder / CONFIG):
        return Source(f"local-dir:{folder}", None, _folder_config(folder / CONFIG), folder)
    architecture, _, pretrained = model.rpartition("/")
    known = open_clip.list_models()
    if architecture not in known:
        wanted = model if Path(model).is_absolute() else architecture or model
        offered = entry_points(group=ENTRY_POINTS).names
        close = get_close_matches(wanted, [*offered, *known], n=4, cutoff=0.4)
        hint = f" Close: {', '.join(close)}." if close else ""
        raise UsageError(
            f"There is no open_clip model {wanted!r}, and no folder of that name with an "
            f"open_clip_config.json.{hint} Name it as "
            f"{OPEN_CLIP}MODEL/PRETRAINED, e.g. {OPEN_CLIP}ViT-B-16/openai, or {OPEN_CLIP}FOLDER."
        )
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if pretrained not in tags and not is_file(pretrained):
        raise UsageError(
            f"open_clip has no weights {pretrained!r} of {architecture}; its tags: "
            f"{', '.join(tags) or 'none'}."
        )
    return Source(architecture, pretrained, cast(dict[str, Any], open_clip.get_model_config(architecture)))


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
        check_vision(config.get("vision_cfg", {}))
        if hub := sorted(each for each in config.get("text_cfg", {}) if each.startswith("hf_")):
            raise ValueError(f"{hub[0]} names what is on a model hub")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read as an open_clip configuration: {error!r}") from error
    return config


def check_vision(config: dict[str, Any]) -> None:
    """Refuse an encoder that would be fetched from a hub, or that takes long to build.

    Raises:
        ValueError: it is one.
    """
    layers = config.get("layers", 0)
    if config.get("timm_model_pretrained") or ":" in config.get("timm_model_name", ""):
        raise ValueError("it names weights on a model hub")
    if sum(layers if isinstance(layers, list) else [layers]) > _MOST_LAYERS:
        raise ValueError(f"it has more than {_MOST_LAYERS} layers")


def create(source: Source, image_size: int | None = None) -> Any:  # noqa: ANN401 (open_clip is not typed)
    """The model with its weights, on the CPU.

    Raises:
        UsageError: they cannot be had.
    """
    try:
        return open_clip.create_model(
            source.name,
            source.pretrained,
            force_image_size=image_size,
            force_quick_gelu=source.quick_gelu,
            require_pretrained=True,
        )
    except Exception as error:  # its own, its hub's and its transport's
        raise UsageError(
            f"The open_clip model {source.name!r} cannot be loaded ({type(error).__name__}: {error}). "
            "Is the network up? A folder on disk needs none."
        ) from error


def tokenizer_of(source: Source) -> Any:  # noqa: ANN401 (open_clip is not typed)
    """The tokenizer of a model: takes a list of texts, and gives tokens of shape (texts, length)."""
    with warnings.catch_warnings():
        # open_clip leaves its vocabulary file to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        return open_clip.get_tokenizer(source.name)
