"""The model: any open_clip model, found by name, loaded, and asked for unit vectors."""

import difflib
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image

from vendor_service.encoder.batcher import Vectors
from vendor_service.encoder.fingerprint import fingerprint
from vendor_service.errors import OperatorError, UsageError

BUNDLED_MODEL = "icon-clip"
_BUNDLED_FOLDER = Path(__file__).parents[1] / "models" / "icon_clip"
_LOCAL = "local-dir:"

# The largest difference of one component between two answers to the same input, in whatever batches.
_TOLERANCES = {"float32": 1e-5, "bfloat16": 1e-2}
_PRECISIONS = {"float32": "fp32", "bfloat16": "pure_bf16"}


@dataclass(frozen=True)
class ModelSource:
    """A model that can be loaded: the `id` for customers, and open_clip's name, tag and configuration."""

    id: str
    name: str
    pretrained: str | None
    config: dict[str, Any]

    @property
    def quick_gelu(self) -> bool:
        """Whether its weights were trained with the fast GELU, which open_clip leaves to its caller."""
        tag = open_clip.get_pretrained_cfg(self.name, self.pretrained) if self.pretrained else {}
        return bool(tag.get("quick_gelu") or self.config.get("quick_gelu"))


def find_model(model: str, pretrained: str | None) -> ModelSource:
    """Find a model: the bundled one, `local-dir:PATH`, or an open_clip name with its pretrained tag or file.

    Raises:
        UsageError: there is none; the message names what comes close.
    """
    if model == BUNDLED_MODEL:
        return _in_folder(BUNDLED_MODEL, _BUNDLED_FOLDER)
    if model.startswith(_LOCAL):
        folder = Path(model.removeprefix(_LOCAL)).expanduser()
        return _in_folder(folder.resolve().name, folder)
    names = [BUNDLED_MODEL, *open_clip.list_models()]
    config = open_clip.get_model_config(model) if model in names else None
    if config is None:
        close = difflib.get_close_matches(model, names, n=5, cutoff=0.4)
        hint = f"did you mean {', '.join(close)}?" if close else "see them all with: vendor models"
        raise UsageError(f"there is no model {model!r}; {hint} A folder is named as local-dir:PATH")
    tags = open_clip.list_pretrained_tags_by_model(model)
    if pretrained is None:
        raise UsageError(f"say which weights of {model} with --pretrained: {', '.join(tags) or 'a file'}")
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


def choose_device(device: str) -> torch.device:
    """The device to run on; `auto` is the first CUDA device, or the CPU.

    Raises:
        UsageError: there is no such device here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"there is no device {device!r} here; use auto, cpu or cuda") from error
    return chosen


class ClipModel:
    """A loaded model. `encode_*` run on the device and are for one thread; the rest is thread-safe.

    Args:
        source: which model.
        device: where it runs.
        dtype: `float32`, `bfloat16`, or `auto`: bfloat16 on CUDA, float32 elsewhere.

    Raises:
        OperatorError: its weights cannot be fetched or do not fit.
    """

    def __init__(self, source: ModelSource, device: torch.device, dtype: str = "auto") -> None:
        if dtype == "auto":
            dtype = "bfloat16" if device.type == "cuda" else "float32"
        self.id = source.id
        self.device = device
        self.dtype = dtype
        self.tolerance = _TOLERANCES[dtype]
        try:
            self._model, self._transform = open_clip.create_model_from_pretrained(
                source.name,
                source.pretrained,
                precision=_PRECISIONS[dtype],
                device=device,
                force_quick_gelu=source.quick_gelu,
            )
            self._tokenizer = _load_tokenizer(source.name)
        except Exception as error:
            # open_clip raises RuntimeError, OSError, ValueError and its hub's own for the same few reasons.
            raise OperatorError(f"the model {source.id} cannot be loaded: {error}") from error
        self._model.eval()
        self._input_dtype = getattr(torch, dtype)
        preprocessing = self._model.visual.preprocess_cfg
        height, width = _pair(preprocessing["size"])
        self.image_size = min(height, width)
        self.fingerprint = fingerprint(
            self._model.state_dict(), source.config, preprocessing, self._tokenizer, dtype
        )
        self.dimensions = self.encode_texts(["a photo"]).shape[1]

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        """The model's own preprocessing of an RGB image: float32 of shape (3, height, width)."""
        pixels: torch.Tensor = self._transform(image)
        return pixels

    @torch.inference_mode()
    def encode_images(self, images: Sequence[torch.Tensor]) -> Vectors:
        """Unit vectors of preprocessed images, float32 of shape (images, dimensions)."""
        pixels = torch.stack(list(images)).to(self.device, self._input_dtype, non_blocking=True)
        return _unit_rows(self._model.encode_image(pixels))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors of texts, float32 of shape (texts, dimensions)."""
        return _unit_rows(self._model.encode_text(self._tokenizer(list(texts)).to(self.device)))


def _unit_rows(features: torch.Tensor) -> Vectors:
    rows = torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()
    if not np.isfinite(rows).all():
        raise FloatingPointError("the model answered with numbers that are not finite")
    return rows


def _load_tokenizer(name: str) -> Callable[[Sequence[str]], torch.Tensor]:
    with warnings.catch_warnings():
        # open_clip leaves its vocabulary file to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        tokenizer: Callable[[Sequence[str]], torch.Tensor] = open_clip.get_tokenizer(name)
    return tokenizer


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
