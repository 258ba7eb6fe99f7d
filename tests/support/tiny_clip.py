"""Tiny random CLIPs in folders, as open_clip reads them: a model that loads at once, and is nobody's."""

import json
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

TINY_DIMENSIONS = 24
_CONFIG = {
    "embed_dim": TINY_DIMENSIONS,
    "vision_cfg": {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
_PREPROCESSING = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}


def write_tiny_clip(folder: Path, seed: int) -> str:
    """Write one, another one for each seed, into a folder that may hold one already; its `--model`."""
    folder.mkdir(exist_ok=True)
    config = {"model_cfg": _CONFIG, "preprocess_cfg": _PREPROCESSING}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.CLIP(**_CONFIG)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"
