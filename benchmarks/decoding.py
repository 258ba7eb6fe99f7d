"""Which decoder? CPU milliseconds from the bytes of a JPEG to what a 224 px model sees, and how true it is.

    make bench-decoding

Every way ends with bytes of the model's size, which are compared with those of open_clip's own transform.
simplejpeg and pyvips are measured where they are installed; the project does not need them.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from io import BytesIO
from statistics import median
from typing import Any

import numpy as np
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import Compose

from shared.images.decoder import ImageDecoder
from shared.images.limits import ImageLimits
from tests.support.photograph import photograph
from vendor_service.encoder.preprocessing import Preprocessing

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Way = Callable[[bytes], Pixels]

SIDE = 224  # pixels, of what the model sees
CONFIG = {"size": SIDE, "mode": "RGB", "interpolation": "bicubic", "resize_mode": "shortest"}
SIZES = {(640, 480): (20, 20), (4000, 3000): (80, 1)}  # quality of the JPEG, and images a measurement


def main() -> None:
    """Measure every way in turns, and print the table of docs/results.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    found = dict(ways())
    print("| JPEG | decoded and resized by | CPU ms | largest difference | mean |\n|---|---|---|---|---|")
    for (width, height), (quality, images) in SIZES.items():
        buffer = BytesIO()
        photograph(width, height).save(buffer, "JPEG", quality=quality)
        file = buffer.getvalue()
        taken: dict[str, list[float]] = {name: [] for name in found}
        for _ in range(rounds):
            for name, way in found.items():
                taken[name].append(milliseconds(way, file, images))
        own = next(iter(found.values()))(file).astype(int)
        for name, way in found.items():
            apart = abs(way(file) - own)
            row = f"{name} | {median(taken[name]):.2f} | {apart.max()} | {apart.mean():.2f}"
            print(f"| {width} x {height}, {len(file) / 1000:.0f} KB | {row} |", flush=True)


def milliseconds(way: Way, file: bytes, images: int) -> float:
    """What one image takes of a processor, on however many threads."""
    began = time.process_time()
    for _ in range(images):
        way(file)
    return (time.process_time() - began) * 1000 / images


def ways() -> Iterator[tuple[str, Way]]:
    """Every way that can be gone here, open_clip's own first: from a file to bytes (height, width, 3)."""
    in_bytes = Compose(image_transform_v2(PreprocessCfg(**CONFIG), is_train=False).transforms[:-2])
    preprocessing, vendor = vendors_own()
    yield "open_clip: Pillow, whole", lambda file: np.array(in_bytes(Image.open(BytesIO(file))))
    yield "Pillow, whole; torch", lambda file: preprocessing.resize(Image.open(BytesIO(file))).numpy()
    yield "**the vendor**: Pillow, no finer than 4x; torch", lambda file: vendor.decode(file)
    yield "torchvision, whole; torch", _torchvision
    for name, more in (("simplejpeg", _simplejpeg), ("pyvips", _pyvips)):
        try:
            yield from more(import_module(name))
        except ImportError:
            print(f"{name}: not installed")


def vendors_own() -> tuple[Preprocessing, ImageDecoder]:
    """What the vendor makes of an image, and its decoder."""
    preprocessing = Preprocessing(PreprocessCfg(**CONFIG).__dict__)
    limits = ImageLimits(max_bytes=2**25, max_pixels=5 * 10**7)
    return preprocessing, ImageDecoder(preprocessing, limits, memory_bytes=2**30)


def _torchvision(file: bytes) -> Pixels:
    data = torch.frombuffer(bytearray(file), dtype=torch.uint8)
    return _seen(decode_jpeg(data, ImageReadMode.RGB))


def _simplejpeg(library: Any) -> Iterator[tuple[str, Way]]:  # noqa: ANN401 - it is not always here
    def way(**options: int) -> Way:
        return lambda file: _seen(torch.from_numpy(library.decode_jpeg(file, **options)).permute(2, 0, 1))

    least = {"min_height": 4 * SIDE, "min_width": 4 * SIDE, "min_factor": 1}
    yield "simplejpeg, whole; torch", way()
    yield "simplejpeg, no finer than 4x; torch", way(**least)


def _pyvips(library: Any) -> Iterator[tuple[str, Way]]:  # noqa: ANN401 - it is not always here
    def way(file: bytes) -> Pixels:
        header = library.Image.new_from_buffer(file, "")  # nothing is decoded yet
        width, height, left, top = geometry(header.width, header.height)
        small = library.Image.thumbnail_buffer(file, width, height=height, size="force")
        return np.asarray(small.crop(left, top, SIDE, SIDE).numpy())

    yield "pyvips, its thumbnail", way


def _seen(pixels: torch.Tensor) -> Pixels:
    """The middle of an image of shape (3, height, width), resized by torch as the vendor does."""
    width, height, left, top = geometry(pixels.shape[2], pixels.shape[1])
    whole = torch.nn.functional.interpolate(
        pixels[None], size=(height, width), mode="bicubic", antialias=True
    )[0]
    return whole[:, top : top + SIDE, left : left + SIDE].permute(1, 2, 0).contiguous().numpy()


def geometry(width: int, height: int) -> tuple[int, int, int, int]:
    """What an image is resized to, width and height, and where its middle begins, left and top."""
    width, height = max(SIDE, SIDE * width // height), max(SIDE, SIDE * height // width)
    return width, height, round((width - SIDE) / 2), round((height - SIDE) / 2)


if __name__ == "__main__":
    main()
