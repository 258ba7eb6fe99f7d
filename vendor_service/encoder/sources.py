"""Which models can be served: the bundled one, a folder, or any of open_clip's by name."""

import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vendor_service.encoder.libraries import open_clip
from vendor_service.errors import UsageError

BUNDLED_MODEL = "icon-clip"
_BUNDLED_FOLDER = Path(__file__).parents[1] / "models" / "icon_clip"
_LOCAL = "local-dir:"


@dataclass(frozen=True)
class ModelSource:
    """A model that can be loaded: the `id` for customers, and open_clip's name, tag and configuration."""

    id: str
    name: str
    pretrained: str | None
    config: dict[str, Any]

    @property
    def label(self) -> str:
        """Its name, as one word."""
        return self.name if self.pretrained is None else f"{self.name}/{self.pretrained}"

    @property
    def quick_gelu(self) -> bool:
        """Whether its weights were trained with the fast GELU, which open_clip leaves to its caller."""
        tag = open_clip.get_pretrained_cfg(self.name, self.pretrained) if self.pretrained else {}
        return bool(tag.get("quick_gelu") or self.config.get("quick_gelu"))

    @property
    def architecture(self) -> dict[str, Any]:
        """Its configuration as it is built, with the fast GELU where the tag asks for it."""
        return self.config | {"quick_gelu": True} if self.quick_gelu else self.config

    def files(self) -> list[Path]:
        """The files that it is read from; what is not here yet is fetched from its hub.

        Raises:
            Exception: whatever open_clip and its hub raise.
        """
        if self.pretrained is None:
            folder = Path(self.name.removeprefix(_LOCAL))
            return sorted(path for path in folder.iterdir() if path.is_file())
        tag = open_clip.get_pretrained_cfg(self.name, self.pretrained)
        return [Path(open_clip.download_pretrained(tag) if tag else self.pretrained)]


def find_model(model: str, pretrained: str | None = None) -> ModelSource:
    """Find a model: the bundled one, `local-dir:PATH`, or an open_clip name with its weights.

    These are a pretrained tag or a file behind the name: `ViT-B-16/openai`.

    Raises:
        UsageError: there is none; the message names what comes close.
    """
    if model == BUNDLED_MODEL:
        return _in_folder(BUNDLED_MODEL, _BUNDLED_FOLDER)
    if model.startswith(_LOCAL):
        folder = Path(model.removeprefix(_LOCAL)).expanduser()
        return _in_folder(folder.resolve().name, folder)
    names = [BUNDLED_MODEL, *open_clip.list_models()]
    if pretrained is None and model not in names and "/" in model:
        model, _, pretrained = model.partition("/")
    config = open_clip.get_model_config(model) if model in names else None
    if config is None:
        close = difflib.get_close_matches(model, names, n=5, cutoff=0.4)
        hint = f"did you mean {', '.join(close)}?" if close else "see them all with: `vendor models`"
        raise UsageError(f"there is no model {model!r}; {hint} A folder is named as local-dir:PATH")
    tags = open_clip.list_pretrained_tags_by_model(model)
    if pretrained is None:
        raise UsageError(f"say which weights of {model}, as {model}/WEIGHTS: {', '.join(tags) or 'a file'}")
    if pretrained not in tags and not Path(pretrained).is_file():
        close = difflib.get_close_matches(pretrained, tags, n=5, cutoff=0.0)
        raise UsageError(
            f"{model} has no weights {pretrained!r}, and there is no such file; "
            f"its tags: {', '.join(close) or 'none'}"
        )
    return ModelSource(f"{model}/{Path(pretrained).stem}", model, pretrained, config)


def list_models() -> list[tuple[str, str | None]]:
    """Every model that can be named, with each of its pretrained tags; the bundled one has none to choose."""
    return [(BUNDLED_MODEL, None), *sorted(open_clip.list_pretrained())]


def _in_folder(model_id: str, folder: Path) -> ModelSource:
    path = folder / "open_clip_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))["model_cfg"]
    except FileNotFoundError as error:
        raise UsageError(f"{folder} is not a model's folder: it has no open_clip_config.json") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} cannot be read as an open_clip configuration: {error!r}") from error
    return ModelSource(model_id, f"{_LOCAL}{folder}", None, config)
