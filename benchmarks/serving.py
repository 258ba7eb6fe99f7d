"""What does serving cost a student? Single 96 px images through `client serve` beside the bare ONNX session.

    make bench-serving

onnxruntime's own session on pixels that are ready, in this process with all threads, takes turns with a load
over loopback of 16 connections, each of which asks about one image at a time. The student is
the default student for 20 classes whose head is not trained, which takes as long as one that is. Load and
server share the cores of this machine.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch.nn import functional

from benchmarks import load
from benchmarks.ceiling import TICKS, spent
from benchmarks.customers import icons
from client.data.images import Pixels, decode_square
from client.learning.backbones import DEFAULT_BACKBONE, load_backbone
from client.learning.student import build_student
from client.results.onnx_classifier import OnnxClassifier
from client.results.onnx_export import export_onnx
from tests.support.student_process import StudentProcess

SIDE = 96  # pixels
CLASSES = 20
CONNECTIONS = 16
BATCHES = (1, 16, 32)
DISTINCT = 64


def main() -> None:
    """Measure, and print the table of docs/results.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="turns that session and server take")
    options = parser.parse_args()
    files = icons(DISTINCT)
    requests = [load.request("/classify", body, content_type=kind) for body, kind in map(_form, files)]
    with TemporaryDirectory() as folder:
        student = Path(folder) / "student.onnx"
        write_student(student)
        pixels = np.stack([decode_square(file, SIDE)[0] for file in files])
        bare, served = [], []
        with StudentProcess(student, Path(folder)) as server:
            load.run(server.port, requests, CONNECTIONS, options.seconds / 2)
            for _ in range(options.rounds):
                bare.append(bare_rates(student, pixels, options.seconds))
                ticks = spent(Path(f"/proc/{server.pid}/stat"))
                each = load.run(server.port, requests, CONNECTIONS, options.seconds)
                cores = (spent(Path(f"/proc/{server.pid}/stat")) - ticks) / TICKS / options.seconds
                served.append((each, cores))
    best = [max(rate for rate, _ in rates.values()) for rates in bare]
    print("| bare session, batches of | images/s | processor time an image, ms |\n|---|---|---|")
    for batch in BATCHES:
        rate, cost = (median(values) for values in zip(*(rates[batch] for rates in bare), strict=True))
        print(f"| {batch} | {rate:.0f} | {1000 * cost:.2f} |")
    print(
        "\n| served, images/s | of the bare session's best | p50 ms | p99 ms | processor time an image, ms "
        "| of the load, ms |\n|---|---|---|---|---|---|"
    )
    shares = []
    for (each, cores), bare_rate in zip(served, best, strict=True):
        rate = each.answers_a_second
        shares.append(rate / bare_rate)
        print(
            f"| {rate:.0f} | {shares[-1]:.2f} | {1000 * each.p50:.0f} | {1000 * each.p99:.0f} "
            f"| {1000 * cores / rate:.2f} | {1000 * each.cores / rate:.2f} |"
        )
    print(f"\nThe median share: {median(shares):.2f}")


def write_student(path: Path) -> None:
    """An untrained student of the demo's kind and size."""
    torch.manual_seed(0)
    texts = functional.normalize(torch.randn(CLASSES, 256), dim=1)
    student = build_student(
        load_backbone(DEFAULT_BACKBONE, image_size=SIDE),
        outputs=256,
        text_head=texts,
        image_size=SIDE,
        trains_texts=False,
    )
    names = [f"class {number}" for number in range(CLASSES)]
    export_onnx(student.eval(), {"classes": json.dumps(names), "method": "vl2v-adip"}, path)


def bare_rates(student: Path, pixels: Pixels, seconds: float) -> dict[int, tuple[float, float]]:
    """Of the session alone, with all threads, by the size of batches: images a second, and seconds of
    processors for an image.
    """
    session = OnnxClassifier(student)
    return {batch: _rate(session, pixels[:batch], seconds / len(BATCHES)) for batch in BATCHES}


def _rate(session: OnnxClassifier, batch: Pixels, seconds: float) -> tuple[float, float]:
    session.probabilities(batch)
    began, cpu, done = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - began < seconds:
        done += len(session.probabilities(batch))
    return done / (time.perf_counter() - began), (time.process_time() - cpu) / done


def _form(file: bytes) -> tuple[bytes, str]:
    files: Sequence[bytes] = [file]
    return load.form(files)


if __name__ == "__main__":
    main()
