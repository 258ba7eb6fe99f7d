"""What can the vendor do where the model costs next to nothing? Requests and images a second of `icon-clip`.

    make bench-ceiling

open_clip's own `encode_image` on images that are ready, in this process, takes turns with a load over
loopback, with billing on SQLite. Load and vendor share the cores of this machine. What the vendor's threads,
and the processes that decode for it, took of the processors says where its time goes; py-spy tells the
threads' names, and may need root for that.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import open_clip
import torch

from benchmarks import load
from benchmarks.customers import icons
from tests.support.vendor_process import VendorProcess, below
from vendor_service.encoder.sources import find_model

SIDE = 64  # pixels, of what icon-clip sees
BATCH = 32
CONNECTIONS = 16
DISTINCT = 64
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure, and print the table of docs/results.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    options = parser.parse_args()
    bare = bare_rate(options.seconds)
    print(f"bare model: {bare:.0f} images a second", flush=True)
    with TemporaryDirectory() as folder, VendorProcess(Path(folder), threads=os.cpu_count() or 1) as vendor:
        key, port = vendor.create_key(), int(vendor.url.rpartition(":")[2])
        print(
            "| a request | requests/s | queries/s | of the bare model | p50 ms | p99 ms | the vendor's cores "
            "| of them |\n|---|---|---|---|---|---|---|---|"
        )
        for name, queries, requests in loads(key):
            load.run(port, requests, CONNECTIONS, options.seconds / 2)
            began, cpu = time.perf_counter(), ticks(vendor.pid)
            each = load.run(port, requests, CONNECTIONS, options.seconds)
            seconds, taken = time.perf_counter() - began, ticks(vendor.pid)
            taken.subtract(cpu)
            rate = each.answers_a_second
            share = f"{queries * rate / bare:.2f}" if "image" in name else ""
            row = f"{rate:.0f} | {queries * rate:.0f} | {share}"
            row += f" | {1000 * each.p50:.0f} | {1000 * each.p99:.0f}"
            print(f"| {name} | {row} | {taken.total() / TICKS / seconds:.2f} | {shares(taken)} |", flush=True)


def loads(key: str) -> Iterator[tuple[str, int, list[bytes]]]:
    """Requests of each kind: what they hold, how many queries that is, and the requests."""
    files = icons(DISTINCT)
    yield "32 images", 32, [load.embed(key, *load.form(files[start : start + 32])) for start in (0, 32)]
    yield "8 images", 8, [load.embed(key, *load.form(files[start : start + 8])) for start in range(0, 64, 8)]
    yield "1 image", 1, [load.embed(key, *load.form([file])) for file in files]
    texts = [
        f'{{"inputs": [{{"text": "a photo of a cat, {number}"}}]}}'.encode() for number in range(DISTINCT)
    ]
    yield "1 text, known", 1, [load.embed(key, text, "application/json") for text in texts]


@torch.inference_mode()
def bare_rate(seconds: float) -> float:
    """Images a second of open_clip's own model, with all threads, at the vendor's largest batch."""
    source = find_model("icon-clip", None)
    model = open_clip.create_model(source.name, device="cpu", require_pretrained=True).eval()
    batch = torch.zeros(BATCH, 3, SIDE, SIDE)
    model.encode_image(batch)
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        done += len(model.encode_image(batch))
    return done / (time.perf_counter() - began)


def ticks(pid: int) -> Counter[str]:
    """What each kind of the vendor's threads and processes has taken of processors, `TICKS` a second."""
    py_spy = Path(sys.executable).with_name("py-spy")
    shown = subprocess.run([py_spy, "dump", "--json", "--pid", str(pid)], check=True, capture_output=True)
    names = {thread["os_thread_id"]: thread["thread_name"] or "" for thread in json.loads(shown.stdout)}
    taken: Counter[str] = Counter()
    for task in Path(f"/proc/{pid}/task").iterdir():
        taken[kind_of(names.get(int(task.name)))] += spent(task / "stat")
    for child in below(pid):
        taken["decoding"] += spent(Path(f"/proc/{child}/stat"))
    return taken


def spent(stat: Path) -> int:
    """What a thread or process has taken of processors, `TICKS` a second."""
    fields = stat.read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def kind_of(thread: str | None) -> str:
    """What a thread of this name does; those that Python does not know belong to PyTorch."""
    kinds = {
        "MainThread": "event loop",
        "worker-": "forward pass",
        "stager-": "forward pass",
        "books": "books",
        "AnyIO": "keys and rendering",
    }
    if thread is None:
        return "forward pass"
    return next((kind for start, kind in kinds.items() if thread.startswith(start)), "else")


def shares(taken: Counter[str]) -> str:
    """The kinds that took most, in per cent."""
    shown = [(kind, round(100 * count / taken.total())) for kind, count in taken.most_common()]
    return ", ".join(f"{kind} {share}%" for kind, share in shown if share)


if __name__ == "__main__":
    main()
