"""Is the model the only bottleneck? Images a second over HTTP, with billing, beside those of the bare model.

    make bench-vendor

An open_clip ViT-B-32 with random weights is served by `vendor serve` and asked over loopback; in turns with
that, a process of its own does nothing but `encode_image` on images that are ready, at its best batch size
and in the same arithmetic. Vendor and load share the cores of this machine.
"""

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import open_clip
import torch
from safetensors.torch import save_file

from benchmarks import load
from shared.compiler import every_shape_compiled
from tests.support.photograph import photograph
from tests.support.vendor_process import VendorProcess
from vendor_service.encoder.clip import choose_devices

ARCHITECTURE = "ViT-B-32"
SIDE = 224  # pixels, of what it sees
BATCHES = (4, 8, 16, 32, 64)
GPU_BATCHES = (64, 128, 256, 512)
CONNECTIONS = (1, 4, 16, 64)
IMAGES = 8  # a request
PHOTOGRAPHS = 64
SIZES = {(640, 480): 20, (SIDE, SIDE): 80}  # pixels, and the quality of the JPEG


def main() -> None:
    """Measure, and print the tables of docs/results.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--device", default="auto", help="of the vendor: cpu runs one batch at a time")
    options = parser.parse_args()
    device = str(choose_devices(options.device)[0])
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        model = folder / "vit-b-32"
        save_model(model)
        bare = stack.enter_context(bare_model(model, Setup(options.dtype, device)))
        print(f"bare model, {options.dtype} on {device}: best at batches of {bare.recv()}", flush=True)
        served = ("--model", f"local-dir:{model}", "--dtype", options.dtype, "--device", options.device)
        vendor = stack.enter_context(VendorProcess(folder, *served, threads=os.cpu_count() or 1))
        key, port = vendor.create_key(), int(vendor.url.rpartition(":")[2])
        print("| JPEGs | KB | bare images/s | over HTTP | ratio |\n|---|---|---|---|---|")
        for (width, height), quality in SIZES.items():
            files = photographs(width, height, quality)
            requests = embed_requests(key, files)
            load.run(port, requests, 16, options.seconds)
            ask = partial(load.run, port, requests, 16, options.seconds)
            alone, asked = in_turns(bare, ask, options.rounds, options.seconds)
            size = sum(map(len, files)) / len(files) / 1000
            print(f"| {width} x {height} | {size:.0f} | {medians(alone, asked)} |", flush=True)
        print(
            "| connections | images/s | p50 s | p99 s | the load's share of a core |\n|---|---|---|---|---|"
        )
        for connections in CONNECTIONS:
            # Long enough for several answers on each connection, of which the first does not count.
            rate = median(each.answers_a_second for each in asked)
            seconds = max(options.seconds, 4 * connections / rate)
            each = load.run(port, requests, connections, seconds)
            row = f"{IMAGES * each.answers_a_second:.1f} | {each.p50:.2f} | {each.p99:.2f} | {each.cores:.3f}"
            print(f"| {connections} | {row} |", flush=True)


def in_turns(
    bare: Connection, ask: Callable[[], load.Load], rounds: int, seconds: float
) -> tuple[list[float], list[load.Load]]:
    """Images a second of the bare model, and what came of asking the vendor, one after the other."""
    alone, asked = [], []
    for _ in range(rounds):
        bare.send(seconds)
        alone.append(float(bare.recv()))
        asked.append(ask())
    return alone, asked


def medians(alone: Sequence[float], asked: Sequence[load.Load]) -> str:
    """Cells of a row: images a second of the bare model and over HTTP, and their ratio."""
    rates = [IMAGES * each.answers_a_second for each in asked]
    ratio = median(http / model for http, model in zip(rates, alone, strict=True))
    return f"{median(alone):.1f} | {median(rates):.1f} | {ratio:.2f}"


def embed_requests(key: str, files: Sequence[bytes]) -> list[bytes]:
    """Requests of `IMAGES` files each, answered as raw rows."""
    batches = [load.form(files[start : start + IMAGES]) for start in range(0, len(files), IMAGES)]
    return [
        load.request(
            "/embed",
            body,
            authorization=f"Bearer {key}",
            content_type=content_type,
            accept="application/octet-stream",
        )
        for body, content_type in batches
    ]


def save_model(folder: Path, architecture: str = ARCHITECTURE) -> None:
    """Save an architecture with random weights, as open_clip saves a model."""
    folder.mkdir()
    torch.manual_seed(0)
    model = open_clip.create_model(architecture)
    weights = {name: weight.contiguous() for name, weight in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    config = {
        "model_cfg": open_clip.get_model_config(architecture),
        "preprocess_cfg": dict(model.visual.preprocess_cfg),
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))


def photographs(width: int, height: int, quality: int) -> list[bytes]:
    """JPEG files of images with as much detail as photographs have."""
    files = []
    for number in range(PHOTOGRAPHS):
        buffer = BytesIO()
        # A few, mirrored and turned, are as good as many and made sooner.
        turned = photograph(width, height, number % 8).rotate(number // 8 * 90, expand=True)
        turned.save(buffer, "JPEG", quality=quality)
        files.append(buffer.getvalue())
    return files


@dataclass(frozen=True)
class Setup:
    """How a model computes: in which arithmetic, on which device, and whether by `torch.compile`."""

    dtype: str
    device: str = "cpu"
    compiled: bool = False


@contextmanager
def bare_model(folder: Path, setup: Setup) -> Iterator[Connection]:
    """A process that tells its best batch size, then, for each number of seconds sent, images a second."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_encode, args=(folder, setup, theirs), daemon=True)
    process.start()
    try:
        yield ours
    finally:
        process.terminate()
        process.join()


def _encode(folder: Path, setup: Setup, pipe: Connection) -> None:
    kind, device = getattr(torch, setup.dtype), torch.device(setup.device)
    model = open_clip.create_model(f"local-dir:{folder}").eval().to(device, kind)
    encode = model.encode_image
    if setup.compiled:
        encode = torch.compile(encode, dynamic=False)  # for each shape, as the vendor does

    def rate(size: int, seconds: float) -> float:
        images = torch.randn(size, 3, SIDE, SIDE).to(device, kind)
        with torch.inference_mode():
            encode(images)
            finish(device)
            began, done = time.perf_counter(), 0
            while time.perf_counter() - began < seconds:
                encode(images)
                finish(device)
                done += size
            return done / (time.perf_counter() - began)

    batches = BATCHES if device.type == "cpu" else GPU_BATCHES
    with every_shape_compiled() if setup.compiled else nullcontext():
        turns = [{size: rate(size, 3.0) for size in batches} for _ in range(3)]
    best = max(batches, key=lambda size: median(turn[size] for turn in turns))
    pipe.send(best)
    while True:
        pipe.send(rate(best, pipe.recv()))


def finish(device: torch.device) -> None:
    """Wait for what a GPU was given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
