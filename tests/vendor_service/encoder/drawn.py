"""Images to ask about: some of the bundled icons, and some of the bundled pool, which has none of them."""

import zipfile
from io import BytesIO
from pathlib import Path

from PIL import Image

from client.data.bundled_set import ICONS, UNLABELLED


def icons(every: int) -> tuple[list[Image.Image], list[str]]:
    """Some of the demo's icons and their classes."""
    with zipfile.ZipFile(ICONS) as archive:
        names = [name for name in archive.namelist() if name.endswith(".png")][::every]
        images = [Image.open(BytesIO(archive.read(name))).convert("RGB") for name in names]
    return images, [name.split("/")[2].replace("_", " ") for name in names]


def unpack_pool(folder: Path, every: int) -> Path:
    """A folder with some images of the pool."""
    with zipfile.ZipFile(UNLABELLED) as archive:
        names = [name for name in archive.namelist() if name.endswith((".png", ".webp"))][::every]
        archive.extractall(folder, names)
    return folder
