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


def fingerprint(
    weights: Mapping[str, torch.Tensor],
    model_config: Mapping[str, Any],
    preprocessing: Mapping[str, Any],
    tokenize: Callable[[Sequence[str]], torch.Tensor],
    dtype: str,
) -> str:
    """`fp_` and 32 hexadecimal digits; the same files and `dtype` give the same on every machine.

    Covers every weight (name, shape, exact value in the dtype served), the architecture, the
    preprocessing, and the tokenizer by what it makes of a few texts.
    """
    digest = hashlib.sha256()
    settings = {
        "model": model_config,
        "preprocessing": {name: preprocessing[name] for name in _PREPROCESSING},
        "dtype": dtype,
    }
    digest.update(json.dumps(settings, sort_keys=True).encode())
    tokens = tokenize(list(_PROBES)).cpu().to(torch.int64)
    digest.update(json.dumps(tokens.tolist()).encode())
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return f"fp_{digest.hexdigest()[:32]}"
