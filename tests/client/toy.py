"""A folder of toy pictures: three shapes in three colour schemes, which are the domains."""

from functools import cache
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from client.learning.recipe import Recipe
from client.runs.config import RunConfig

if TYPE_CHECKING:
    from torch import nn

CLASSES = ("circle", "square", "tall_bar")
DOMAINS = {"dark": ("black", "white"), "light": ("white", "black"), "red": ("white", "red")}


def draw(shape: str, ground: str, ink: str, seed: int, side: int = 40) -> Image.Image:
    """One picture of a shape at a random place and size."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (side, side), ground)
    size = int(rng.integers(22, 34))
    left, top = (int(v) for v in rng.integers(2, side - size - 2, size=2))
    width = size // 4 if shape == "tall_bar" else size
    pen = ImageDraw.Draw(picture)
    box = (left, top, left + width, top + size)
    if shape == "circle":
        pen.ellipse(box, fill=ink)
    else:
        pen.rectangle(box, fill=ink)
    return picture


def table_of(root: Path, table: Path, *domains: str, held_out: str = "") -> Path:
    """A table of some domains of such a folder, which holds one of them out whole."""
    files = [(file, *file.parts[-3:-1]) for file in sorted(root.glob("*/*/*.png"))]
    lines = [
        f"{file},{label},{domain},{'holdout' * (domain == held_out)}"
        for file, domain, label in files
        if domain in domains
    ]
    table.write_text("\n".join(["path,label,domain,split", *lines]))
    return table


@cache
def _png(shape: str, ground: str, ink: str, seed: int) -> bytes:
    file = BytesIO()
    draw(shape, ground, ink, seed).save(file, "PNG")
    return file.getvalue()


def make_folder(root: Path, *, images: int = 10) -> Path:
    """ROOT/<domain>/<class>/NN.png, so many of each."""
    for d, (domain, (ground, ink)) in enumerate(DOMAINS.items()):
        for c, name in enumerate(CLASSES):
            folder = root / domain / name
            folder.mkdir(parents=True)
            for n in range(images):
                (folder / f"{n:02}.png").write_bytes(_png(name, ground, ink, 1000 * d + 100 * c + n))
    return root


@cache
def _tiny_weights() -> bytes:
    """Random weights, and statistics by which different pictures have different features."""
    import timm  # which most tests need not import
    import torch
    from safetensors.torch import save

    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        network = timm.create_model("test_efficientnet", num_classes=0).train()
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = 1.0
        network(torch.randn(16, 3, 64, 64))
        return save(network.state_dict())


def tiny_backbone(image_size: int) -> "nn.Module":
    """A backbone of a third of a million weights, for tests that are not about what the student is."""
    from client.learning.backbones import load_backbone

    with TemporaryDirectory() as folder:
        tiny = tiny_student(Path(folder))
        return load_backbone(tiny["student"], image_size=image_size, weights=tiny["student_weights"])


def tiny_student(folder: Path) -> dict[str, Any]:
    """What names such a student in a configuration or in options; its weights are written to a folder."""
    weights = folder / "backbone.safetensors"
    weights.write_bytes(_tiny_weights())
    return {"student": "test_efficientnet", "student_weights": weights}


def run_config(data: Path | str = "toy", **changes: Any) -> RunConfig:
    """The configuration of a run of these pictures, which holds the red ones out, unless `changes` say so."""
    usual = {"target_domain": "red", "method": "erm", "student": "none", "image_size": 32, "recipe": Recipe()}
    return RunConfig(data=Path(data), **{**usual, **changes})
