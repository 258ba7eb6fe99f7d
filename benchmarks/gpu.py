"""Vendor and training on a GPU, beside what the device does alone.

    make bench-gpu

The models have random weights, of which the clock knows nothing. `--device cpu` runs all but nvJPEG on a
processor, to try the program; a figure of that says nothing of a GPU.
"""

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from torchvision.io import decode_jpeg

from benchmarks import load
from benchmarks.decoding import geometry, vendors_own
from benchmarks.training import compare_loops, training_set
from benchmarks.vendor import (
    IMAGES,
    SIZES,
    Setup,
    bare_model,
    embed_requests,
    finish,
    in_turns,
    medians,
    photographs,
    save_model,
)
from client.learning.recipe import Recipe
from tests.scale.ray_vendor import RayVendor
from tests.support.vendor_process import VendorProcess
from vendor_service.encoder.images import ImageDecoder

ARCHITECTURES = ("ViT-B-32", "ViT-L-14")
SIZE = (640, 480)  # pixels of a JPEG
CONNECTIONS = 64


def main() -> None:
    """Measure, and print a table of each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--architectures", nargs="+", default=ARCHITECTURES, metavar="NAME")
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--steps", type=int, default=300, help="of a round of training")
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no GPU here; `--device cpu` only tries this program")
    files = photographs(*SIZE, SIZES[SIZE])
    with TemporaryDirectory() as name:
        folder = Path(name)
        for architecture in options.architectures:
            save_model(folder / architecture, architecture)
        print("| model | compiled | bare images/s | over HTTP | ratio | p99 s |\n|---|---|---|---|---|---|")
        for architecture in options.architectures:
            for compiled in (False, True):
                setup = Setup("bfloat16", options.device, compiled)
                cells = over_http(folder / architecture, setup, files, options)
                print(f"| {architecture} | {'yes' if compiled else 'no'} | {cells} |", flush=True)
        print("\n| decoded and resized by | images/s |\n|---|---|")
        for way, rate in decoding(files, options.device, options.seconds).items():
            print(f"| {way} | {rate:.0f} |", flush=True)
        print("\n| replicas on Ray | images/s |\n|---|---|")
        for replicas in (1, 2):
            rate = on_ray(folder / options.architectures[0], replicas, files, options)
            print(f"| {replicas} | {rate:.0f} |", flush=True)
        print()
        compare_loops(training_set(folder), Recipe(steps=options.steps, evaluations=1), options.device)


def over_http(model: Path, setup: Setup, files: Sequence[bytes], options: argparse.Namespace) -> str:
    """The bare model and the vendor in turns: the cells of a row, medians over rounds."""
    with ExitStack() as stack:
        books = Path(stack.enter_context(TemporaryDirectory()))
        bare = stack.enter_context(bare_model(model, setup))
        bare.recv()
        served = ("--model", f"local-dir:{model}", "--dtype", setup.dtype, "--device", setup.device)
        compiled = ("--compile",) if setup.compiled else ()
        vendor = stack.enter_context(VendorProcess(books, *served, *compiled, threads=os.cpu_count() or 1))
        requests = embed_requests(vendor.create_key(), files)
        port = int(vendor.url.rpartition(":")[2])
        load.run(port, requests, options.connections, options.seconds)
        ask = partial(load.run, port, requests, options.connections, options.seconds)
        alone, asked = in_turns(bare, ask, options.rounds, options.seconds)
    slow = median(each.p99 for each in asked)
    return f"{medians(alone, asked)} | {slow:.2f}"


def decoding(files: Sequence[bytes], device: str, seconds: float) -> dict[str, float]:
    """Images a second from JPEG to what a model sees: by all processors, as for the vendor, and by nvJPEG."""
    cores = os.cpu_count() or 1
    found = {}
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn"), _prepare) as pool:
        found[f"the vendor's decoders, {cores} processes"] = _rate(
            lambda: sum(pool.map(_decode, [files] * cores)), seconds
        )
    if device.startswith("cuda"):
        found["nvJPEG"] = _rate(lambda: _by_nvjpeg(files, torch.device(device)), seconds)
    return found


def _rate(work: Callable[[], int], seconds: float) -> float:
    work()
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        done += work()
    return done / (time.perf_counter() - began)


_decoders: list[ImageDecoder] = []


def _prepare() -> None:
    torch.set_num_threads(1)
    _decoders.append(vendors_own()[1])


def _decode(files: Sequence[bytes]) -> int:
    for file in files:
        _decoders[0].decode(file)
    return len(files)


def _by_nvjpeg(files: Sequence[bytes], device: torch.device) -> int:
    data = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
    for pixels in decode_jpeg(data, device=device):
        width, height, _, _ = geometry(pixels.shape[2], pixels.shape[1])
        torch.nn.functional.interpolate(
            pixels[None].float(), size=(height, width), mode="bicubic", antialias=True
        )
    finish(device)
    return len(files)


def on_ray(model: Path, replicas: int, files: Sequence[bytes], options: argparse.Namespace) -> float:
    """Images a second of so many replicas, which share one GPU."""
    gpus = 1 / replicas if options.device.startswith("cuda") else 0
    scale = {"min_replicas": replicas, "max_replicas": replicas, "num_gpus": gpus, "num_cpus": 0.5}
    with (
        TemporaryDirectory() as books,
        RayVendor(
            Path(books), scale=scale, model=f"local-dir:{model}", dtype="bfloat16", device=options.device
        ) as vendor,
    ):
        requests = embed_requests(vendor.key(), files)
        load.run(vendor.port, requests, options.connections, options.seconds)
        each = load.run(vendor.port, requests, options.connections, options.seconds)
    return IMAGES * each.answers_a_second


if __name__ == "__main__":
    main()
