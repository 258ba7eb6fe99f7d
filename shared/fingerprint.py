"""Which model, exactly: one name for everything that decides what vector an input gets."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

# Named one by one, so that a setting which a later open_clip adds does not rename every model.
_PREPROCESSING = ("size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color")

# Tokenised to tell tokenizers apart: case, spaces, accents, emoji, entities, and a text that must be cut off.
_PROBES = ("a photo of a cat", "A  Photo\tof a CAT.", "naïve café, 2&amp;3 ½", "猫の写真 🐈", "x1 " * 300)


def describe(
    model_config: Mapping[str, Any],
    preprocessing: Mapping[str, Any],
    tokenize: Callable[[Sequence[str]], torch.Tensor],
    dtype: str,
) -> bytes:
    """Everything but the weights that decides a vector: the architecture, the preprocessing, the dtype, and
    the tokenizer by what it makes of a few texts.
    """
    settings = {
        "model": model_config,
        "preprocessing": {name: preprocessing[name] for name in _PREPROCESSING},
        "dtype": dtype,
    }
    tokens = tokenize(list(_PROBES)).cpu().to(torch.int64)
    return (json.dumps(settings, sort_keys=True) + json.dumps(tokens.tolist())).encode()


def fingerprint(description: bytes, weights: Mapping[str, torch.Tensor]) -> str:
    """`fp_` and 32 hexadecimal digits; the same files and dtype give the same on every machine.

    Covers the description of a model and every weight: name, shape, exact value in the dtype served.
    """
    digest = hashlib.sha256(description)
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return f"fp_{digest.hexdigest()[:32]}"
