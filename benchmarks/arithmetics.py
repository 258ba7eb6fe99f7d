"""The same model in float32, bfloat16 and int8: how fast each is on this processor, and how faithful.

    make bench-arithmetics

An open_clip ViT-B-32 with random weights, and icon-clip, as `vendor serve --device cpu` loads them, with all
cores. int8 is measured (calibrated) on images of the bundled pool. Rates are medians over turns; cosines and
accuracy are of the bundled icons, which are not in the pool.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

from benchmarks.runs import icons, unpacked
from benchmarks.vendor import save_model
from client.data.bundled_set import UNLABELLED
from client.data.listing import list_folder
from client.data.wording import class_prompts
from vendor_service.encoder.clip import ClipModel
from vendor_service.encoder.facts import Dtype
from vendor_service.encoder.queries import Vectors
from vendor_service.encoder.sources import find_model

DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16", "int8")
BATCH = 16
EVERY = 7  # of the icons one in so many


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=9)
    arguments = parser.parse_args()
    print("| model | arithmetic | images/s | of bfloat16's | mean cosine | least | zero-shot, % |")
    print("|---" * 7 + "|")
    with TemporaryDirectory() as folder:
        save_model(Path(folder) / "ViT-B-32")
        for name in (f"local-dir:{folder}/ViT-B-32", "icon-clip"):
            models = {dtype: load(name, dtype) for dtype in DTYPES}
            rates = measured(models, arguments.turns)
            files, labels, names = examples()
            exact = vectors(models["float32"], files)
            for dtype, model in models.items():
                rows = vectors(model, files)
                cosines = (rows * exact).sum(axis=1)
                right = "" if name != "icon-clip" else f"{100 * accuracy(model, rows, labels, names):.1f}"
                print(
                    f"| {name.rpartition('/')[2]} | {dtype} | {rates[dtype]:.1f} "
                    f"| {rates[dtype] / rates['bfloat16']:.2f} | {cosines.mean():.4f} "
                    f"| {cosines.min():.3f} | {right} |",
                    flush=True,
                )


def load(name: str, dtype: Dtype) -> ClipModel:
    """A model as the vendor loads it, on one device with all cores."""
    calibration = unpacked(UNLABELLED) if dtype == "int8" else None
    return ClipModel(find_model(name, None), [torch.device("cpu")], dtype, calibration=calibration)


def measured(models: dict[Dtype, ClipModel], turns: int) -> dict[Dtype, float]:
    """Images a second of each, in turns."""
    seconds: dict[Dtype, list[float]] = {dtype: [] for dtype in models}
    for _ in range(turns):
        for dtype, model in models.items():
            (replica,) = model.replicas
            staged = replica.stage("image", [model.canaries()[0]] * BATCH)
            replica.encode("image", staged)
            began = time.perf_counter()
            replica.encode("image", staged)
            seconds[dtype].append(time.perf_counter() - began)
    return {dtype: BATCH / median(each) for dtype, each in seconds.items()}


def examples() -> tuple[list[Path], list[int], Sequence[str]]:
    """Some of the icons, their classes, and the classes' names."""
    folder = list_folder(icons())
    files = sorted(icons().rglob("*.png"))[::EVERY]
    return files, [folder.classes.index(file.parent.name) for file in files], folder.classes


def vectors(model: ClipModel, files: Sequence[Path]) -> Vectors:
    """Unit vectors of image files, shape (n, d)."""
    return model.encode_images(
        [model.preprocessing.resize(Image.open(each).convert("RGB")) for each in files]
    )


def accuracy(model: ClipModel, rows: Vectors, labels: Sequence[int], names: Sequence[str]) -> float:
    """How often the nearest class text is the right one."""
    texts = model.encode_texts(class_prompts(names))
    return float(np.mean((rows @ texts.T).argmax(axis=1) == np.array(labels)))


if __name__ == "__main__":
    main()
