"""What the model sees is what open_clip would show it: of every size, mode and file, for every geometry."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

import vendor_service
from shared.images.decoder import ImageDecoder
from shared.images.limits import ImageLimits
from tests.support.photograph import photograph
from tests.vendor_service.hostile_images import saved
from vendor_service.encoder.preprocessing import Preprocessing
from vendor_service.encoder.replica import Normalisation

LIMITS = ImageLimits(max_bytes=2**24, max_pixels=5 * 10**7)
BUNDLED = Path(vendor_service.__file__).with_name("models") / "icon_clip"
FAITHFUL = 0.9995


def turned() -> bytes:
    image = photograph(480, 640)
    exif = image.getexif()
    exif[0x0112] = 6
    return saved(image, "JPEG", exif=exif)


def palette() -> Image.Image:
    return photograph(400, 300).quantize(64)


def sixteen_bits() -> Image.Image:
    grey = np.asarray(photograph(300, 200).convert("L")).astype(np.uint16)
    return Image.fromarray(grey * 257)


FILES: dict[str, Callable[[], bytes]] = {
    "photograph": lambda: saved(photograph(640, 480), "JPEG", quality=80),
    "upright": lambda: saved(photograph(480, 640), "JPEG"),
    "large photograph": lambda: saved(photograph(1200, 900), "JPEG", quality=90),
    "thumbnail": lambda: saved(photograph(40, 30), "JPEG"),
    "as large as the model's": lambda: saved(photograph(64, 64), "JPEG"),
    "panorama": lambda: saved(photograph(1600, 100), "JPEG"),
    "one pixel": lambda: saved(photograph(5, 5).crop((0, 0, 1, 1)), "PNG"),
    "a line": lambda: saved(photograph(300, 4).crop((0, 0, 300, 1)), "PNG"),
    "progressive": lambda: saved(photograph(1000, 700), "JPEG", progressive=True),
    "without subsampling": lambda: saved(photograph(1000, 700), "JPEG", subsampling=0),
    "grey JPEG": lambda: saved(photograph(900, 600).convert("L"), "JPEG"),
    "CMYK JPEG": lambda: saved(photograph(900, 600).convert("CMYK"), "JPEG"),
    "turned by EXIF": turned,
    "PNG": lambda: saved(photograph(500, 400), "PNG"),
    "grey PNG": lambda: saved(photograph(500, 400).convert("L"), "PNG"),
    "RGBA PNG": lambda: saved(photograph(500, 400).convert("RGBA"), "PNG"),
    "grey and alpha PNG": lambda: saved(photograph(500, 400).convert("LA"), "PNG"),
    "palette PNG": lambda: saved(palette(), "PNG"),
    "palette with transparency": lambda: saved(palette(), "PNG", transparency=3),
    "16 bit PNG": lambda: saved(sixteen_bits(), "PNG"),
    "black and white PNG": lambda: saved(photograph(300, 200).convert("1"), "PNG"),
    "animated PNG": lambda: saved(
        photograph(90, 70), "PNG", save_all=True, append_images=[photograph(90, 70, 1)]
    ),
    "WebP": lambda: saved(photograph(500, 400), "WEBP"),
    "WebP with alpha": lambda: saved(photograph(500, 400).convert("RGBA"), "WEBP"),
    "animated WebP": lambda: saved(
        photograph(90, 70), "WEBP", save_all=True, append_images=[photograph(90, 70, 1)]
    ),
}


@pytest.fixture(scope="module")
def bundled() -> tuple[Any, Any]:
    """open_clip's own model and transform of the bundled model."""
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{BUNDLED}")
    return model.eval(), transform


@pytest.mark.parametrize("name", FILES)
def test_an_image_is_embedded_as_by_open_clips_own_pipeline(bundled: tuple[Any, Any], name: str) -> None:
    model, transform = bundled
    content = FILES[name]()
    preprocessing = Preprocessing(model.visual.preprocess_cfg)
    normalise = Normalisation(preprocessing.config, torch.device("cpu"))
    seen = torch.from_numpy(ImageDecoder(preprocessing, LIMITS, memory_bytes=2**30).decode(content))
    with Image.open(BytesIO(content)) as opened:
        image = opened.convert("RGBA") if "transparency" in opened.info else opened
        expected = transform(image.convert("RGB"))
    with torch.inference_mode():
        batch = torch.stack([normalise(seen[None])[0], expected])
        ours, theirs = model.encode_image(batch, normalize=True)
    assert ours @ theirs >= FAITHFUL


GEOMETRIES: dict[str, dict[str, Any]] = {
    "shortest": {"size": 64},
    "bilinear": {"size": 64, "interpolation": "bilinear"},
    "longest": {"size": 64, "resize_mode": "longest", "fill_color": 7},
    "squash": {"size": 64, "resize_mode": "squash"},
    "squash to an oblong": {"size": (48, 64), "resize_mode": "squash"},
    "oblong": {"size": (48, 64)},
}
SIZES = [
    (640, 480),
    (480, 641),
    (64, 64),
    (65, 63),
    (3, 2),
    (1, 1),
    (900, 60),
    (60, 900),
    (1000, 7),
    (1, 500),
]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("size", SIZES)
def test_every_geometry_is_open_clips_to_the_level(geometry: str, size: tuple[int, int]) -> None:
    config = {"mode": "RGB", "mean": (0.0,) * 3, "std": (1.0,) * 3} | GEOMETRIES[geometry]
    width, height = size
    if geometry == "longest" and max(size) > 128 * min(size):
        pytest.skip("open_clip makes an image of no width of it, and fails")
    image = photograph(width + 8, height + 8).crop((0, 0, width, height))
    expected = image_transform_v2(PreprocessCfg(**config), is_train=False)(image)
    seen = Preprocessing(config).resize(image).permute(2, 0, 1).float()
    assert seen.shape == expected.shape
    apart = (seen - 255 * expected).abs()
    assert apart.max() <= 4.01
    assert (apart > 1.01).float().mean() < 0.005


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("size", [(2_000_000, 1), (1, 2_000_000)])
def test_a_line_of_a_million_pixels_takes_no_more_memory_than_it_has(
    geometry: str, size: tuple[int, int]
) -> None:
    # open_clip itself would make 64 rows of 128 million pixels of it, of which it keeps 64 x 64.
    config = {"mode": "RGB", "mean": (0.0,) * 3, "std": (1.0,) * 3} | GEOMETRIES[geometry]
    seen = Preprocessing(config).resize(Image.new("RGB", size, "red"))
    assert (seen == torch.tensor([255, 0, 0])).all(dim=2).any()
