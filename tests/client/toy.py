"""A folder of toy pictures: three shapes in three colour schemes, which are the domains."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from client.learning.recipe import Recipe
from client.runs.config import RunConfig

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


def make_folder(root: Path, *, images: int = 10) -> Path:
    """ROOT/<domain>/<class>/NN.png, so many of each."""
    for d, (domain, (ground, ink)) in enumerate(DOMAINS.items()):
        for c, name in enumerate(CLASSES):
            folder = root / domain / name
            folder.mkdir(parents=True)
            for n in range(images):
                draw(name, ground, ink, seed=1000 * d + 100 * c + n).save(folder / f"{n:02}.png")
    return root


@cache
def tiny_backbone() -> bytes:
    """The weights of a student of a third of a million, for tests that are not about what the student is."""
    import timm  # which most tests need not import
    import torch
    from safetensors.torch import save

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return save(timm.create_model("test_efficientnet", num_classes=0).state_dict())


def tiny_student(folder: Path) -> dict[str, Any]:
    """What names this student in a configuration or in options; its weights are written to a folder."""
    weights = folder / "backbone.safetensors"
    weights.write_bytes(tiny_backbone())
    return {"student": "test_efficientnet", "student_weights": weights}


def run_config(data: Path | str = "toy", **changes: Any) -> RunConfig:
    """The configuration of a run of these pictures, which holds the red ones out, unless `changes` say so."""
    usual = {"target_domain": "red", "method": "erm", "student": "none", "image_size": 32, "recipe": Recipe()}
    return RunConfig(data=Path(data), **{**usual, **changes})
