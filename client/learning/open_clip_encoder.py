"""Both encoders of an open_clip model, on this machine: a teacher that needs no vendor."""

from collections.abc import Sequence
from typing import Any

import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL.Image import Image
from torch import Tensor

from client.errors import UsageError
from client.learning.backbones.open_clip_models import create, find, tokenizer_of
from shared.fingerprint import describe, fingerprint

# The largest difference of one component between two answers in float32, on whatever machine.
_TOLERANCE = 1e-3


class OpenClipEncoder:
    """A loaded model. For one thread at a time.

    Attributes:
        fingerprint: names weights, preprocessing and arithmetic, as a Tuition vendor's does in float32.
        dimensions: of its vectors.
        tolerance: the largest difference of one component between two answers.
    """

    tolerance = _TOLERANCE

    def __init__(self, name: str, device: torch.device) -> None:
        """Load a model.

        Raises:
            UsageError: there is none of that name, or its weights cannot be had.
        """
        source = find(name)
        model: Any = create(source).eval()
        seen = model.visual.preprocess_cfg
        self._tokenize = tokenizer_of(source)
        architecture = source.config | ({"quick_gelu": True} if source.quick_gelu else {})
        described = describe(architecture, seen, self._tokens, "float32")
        self.fingerprint = fingerprint(described, model.state_dict())
        self._transform = image_transform_v2(PreprocessCfg(**seen), is_train=False)
        self._device = device
        self._model = model.to(device)
        self.dimensions = int(self.embed_texts(["a photo"]).shape[1])

    def embed_images(self, images: Sequence[Image]) -> Tensor:
        """The embeddings of RGB images, not normalised, shape (images, dimensions)."""
        pixels = torch.stack([self._transform(image) for image in images])
        with torch.inference_mode():
            return self._embedded(self._model.encode_image(pixels.to(self._device)))

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """The embeddings of texts, not normalised, shape (texts, dimensions)."""
        with torch.inference_mode():
            return self._embedded(self._model.encode_text(self._tokens(texts).to(self._device)))

    def _tokens(self, texts: Sequence[str]) -> Tensor:
        tokens: Tensor = self._tokenize(list(texts))
        return tokens

    @staticmethod
    def _embedded(embeddings: Tensor) -> Tensor:
        return embeddings.float().cpu()


def load(name: str, *, device: str = "auto") -> OpenClipEncoder:
    """A model, loaded on a device; `auto` is the first CUDA device, or the CPU.

    Raises:
        UsageError: there is no such model or device.
    """
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        chosen = torch.device(where)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"There is no device {device!r} here; take auto, cpu, cuda or cuda:1.") from error
    return OpenClipEncoder(name, chosen)
