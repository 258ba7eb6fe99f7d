"""Students beside teachers: parameters, file size, and time an image, in PyTorch and as ONNX.

    make bench-students

None of it depends on the weights, so they are random. Teachers do what a zero-shot answer takes: embed the
image, and compare it with the class texts. Prints the table of docs/results.md.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import cast

import open_clip
import torch
from torch import nn
from torch.nn import functional

from benchmarks.runs import IMAGE_SIZE
from client.data.images import Pixels
from client.learning.backbones import (
    BUNDLED_TEACHER,
    DEFAULT_BACKBONE,
    OPEN_CLIP,
    empty_backbone,
    load_backbone,
)
from client.learning.classifier import StudentClassifier
from client.learning.student import StudentNetwork, build_student
from client.results.onnx_classifier import OnnxClassifier
from client.results.onnx_export import export_onnx, made_up_pictures
from client.results.speed import Speed, speed_of

CLASSES = [f"class {number}" for number in range(54)]
STUDENTS = (
    (DEFAULT_BACKBONE, IMAGE_SIZE),
    ("tf_efficientnet_lite2", IMAGE_SIZE),
    (DEFAULT_BACKBONE, 224),
)
DIMENSIONS = 256
ROUNDS = 3

Contestant = tuple[str, StudentNetwork, int, Callable[[Pixels], object]]


def main() -> None:
    """Measure all in turns, and print medians."""
    torch.set_grad_enabled(False)
    with TemporaryDirectory() as folder:
        rows = list(contestants(Path(folder)))
        measured: dict[str, list[Speed]] = {name: [] for name, *_ in rows}
        for _ in range(ROUNDS):
            for name, _, side, classify in rows:
                measured[name].append(speed_of(classify, made_up_pictures(side)))
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print(
        "| model | parameters | MiB | ms for one image | images/s in batches of 32 |\n|---|---|---|---|---|"
    )
    for name, student, _, _ in rows:
        one = median(speed.milliseconds for speed in measured[name])
        many = median(speed.images_per_second for speed in measured[name])
        size = student.size
        print(f"| {name} | {size.parameters / 1e6:.1f} M | {size.weights_mib:.0f} | {one:.1f} | {many:.0f} |")


def contestants(folder: Path) -> Iterator[Contestant]:
    """Name, model, side of its images in pixels, and what answers for it."""
    teachers = {"icon-clip": load_backbone(BUNDLED_TEACHER), "ViT-B-16": empty_clip("ViT-B-16")}
    for name, encoder in teachers.items():
        teacher = with_texts(encoder, cast(int, encoder.num_features), own_projector=True)
        side = teacher.preprocessing.image_size
        yield f"teacher `{name}`, {side} px", teacher, side, StudentClassifier(teacher, CLASSES).probabilities
    for name, side in STUDENTS:
        student = with_texts(empty_backbone(name, image_size=side), DIMENSIONS, image_size=side)
        title = f"student `{name}`, {side} px"
        yield title, student, side, StudentClassifier(student, CLASSES).probabilities
        file = folder / f"{name}-{side}.onnx"
        export_onnx(student, {"classes": json.dumps(CLASSES)}, file)
        yield f"{title}, ONNX", student, side, OnnxClassifier(file).probabilities


def empty_clip(name: str) -> nn.Module:
    """The image encoder of an open_clip model, freshly initialised."""
    config = open_clip.get_model_config(name)
    vision = {"embed_dim": config["embed_dim"], "vision_cfg": config["vision_cfg"]}
    normal = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    side = config["vision_cfg"]["image_size"]
    return empty_backbone(
        f"{OPEN_CLIP}{name}", image_size=side, architecture=json.dumps({**vision, **normal})
    )


def with_texts(
    backbone: nn.Module, outputs: int, *, image_size: int | None = None, own_projector: bool = False
) -> StudentNetwork:
    """A model that answers by its most similar class text."""
    texts = functional.normalize(torch.randn(len(CLASSES), outputs), dim=1)
    model = build_student(
        backbone, outputs=outputs, text_head=texts, image_size=image_size, own_projector=own_projector
    )
    return model.eval()


if __name__ == "__main__":
    main()
