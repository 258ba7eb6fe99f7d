"""Do bulk jobs keep the device busy, and nobody waiting? Callers with and without a job beside them.

    make bench-bulk

`vendor serve` sells icon-clip, or an open_clip ViT-B-32 with random weights (`--model vit-b-32`). Callers
come at random moments, at a share of what the vendor can answer, each with a request of eight images; with
and without a job of the same images beside them, in turns. Vendor and callers share this machine's cores.
"""

import argparse
import base64
import json
import os
import random
import re
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import httpx
import numpy as np

from benchmarks import load
from benchmarks.vendor import IMAGES, embed_requests, photographs, save_model
from tests.support.vendor_process import VendorProcess

_BUSY = re.compile(r'^tuition_model_seconds_sum\{kind="image"\} (\S+)$', re.MULTILINE)
_DEVICES = re.compile(r"^tuition_devices_alive (\S+)$", re.MULTILINE)
_LINE_IMAGES = 16
_MOST_CALLERS = 64
_CONNECTIONS = 4  # to find out how much it can do


@dataclass(frozen=True)
class Calls:
    """What callers saw: how many they were, percentiles of their seconds, and how busy the device was."""

    number: int
    p50: float
    p99: float
    busy: float


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each measurement")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.25, 0.5], help="of what it can do")
    parser.add_argument("--model", choices=("icon-clip", "vit-b-32"), default="icon-clip")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        model = options.model
        if model == "vit-b-32":
            save_model(folder / model)
            model = f"local-dir:{folder / model}"
        served = ["--model", model, "--device", options.device, "--dtype", options.dtype]
        served += ["--batch-store", str(folder / "store")]
        vendor = stack.enter_context(VendorProcess(folder, *served, threads=os.cpu_count() or 1))
        key, bulk_key = vendor.create_key(), vendor.create_key()
        files = photographs(224, 224, 80)
        requests = embed_requests(key, files)
        port = int(vendor.url.rpartition(":")[2])
        most = load.run(port, requests, _CONNECTIONS, options.seconds / 2).answers_a_second
        print(f"{IMAGES * most:.1f} images/s at most\n")
        print("| share | p50 | p99 | busy | p50 with a job | p99 with a job | busy | p99 ratio |")
        print("|---|---|---|---|---|---|---|---|")
        for share in options.shares:
            pairs = []
            for number in range(options.rounds):
                alone = call(vendor, requests, share * most, options.seconds, number)
                job = begin(vendor, bulk_key, files, images=2 * IMAGES * most * options.seconds)
                beside = call(vendor, requests, share * most, options.seconds, number)
                cancel(vendor, bulk_key, job)
                pairs.append((alone, beside))
            print(row(share, pairs), flush=True)
        assert vendor.problem(key) is None
        assert vendor.problem(bulk_key) is None


def call(vendor: VendorProcess, requests: Sequence[bytes], rate: float, seconds: float, seed: int) -> Calls:
    """Callers at random moments, `rate` of them a second, and what part of the time the device worked."""
    rng, port = random.Random(seed), int(vendor.url.rpartition(":")[2])
    connections = threading.local()
    took: list[float] = []

    def ask(request: bytes, due: float) -> None:
        if not hasattr(connections, "open"):
            connections.open = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
        head, _, body = request.partition(b"\r\n\r\n")
        lines = (line.partition(b": ") for line in head.split(b"\r\n")[1:])
        headers = {name.decode(): value.decode() for name, _, value in lines}
        answer = connections.open.post("/embed", content=body, headers=headers)
        answer.raise_for_status()
        took.append(time.perf_counter() - due)

    began = time.perf_counter()
    worked = busy_seconds(vendor)
    with ThreadPoolExecutor(_MOST_CALLERS) as pool:
        due, asked = began, []
        while rate and (due := due + rng.expovariate(rate)) < began + seconds:
            time.sleep(max(0.0, due - time.perf_counter()))
            asked.append(pool.submit(ask, rng.choice(requests), due))
        time.sleep(max(0.0, began + seconds - time.perf_counter()))
        busy = (busy_seconds(vendor) - worked) / (time.perf_counter() - began)
        for each in asked:
            each.result()
    p50, p99 = np.percentile(took, [50, 99]) if took else (float("nan"), float("nan"))
    return Calls(len(took), float(p50), float(p99), busy)


def busy_seconds(vendor: VendorProcess) -> float:
    """For how long a device worked so far, on images; the mean of several."""
    told = httpx.get(f"{vendor.url}/metrics").text
    found, devices = _BUSY.search(told), _DEVICES.search(told)
    assert found is not None
    assert devices is not None
    return float(found[1]) / float(devices[1])


def begin(vendor: VendorProcess, api_key: str, files: Sequence[bytes], images: float) -> str:
    """Begin a job of so many images, which lasts longer than the measurement."""
    inputs = [{"image": base64.b64encode(each).decode()} for each in files[:_LINE_IMAGES]]
    body = {"encoding": "base64", "inputs": inputs}
    lines = (
        json.dumps({"custom_id": str(number), "method": "POST", "url": "/embed", "body": body})
        for number in range(round(images / _LINE_IMAGES))
    )
    headers = {"authorization": f"Bearer {api_key}"}
    form = {"data": {"purpose": "batch"}, "files": {"file": ("in.jsonl", "\n".join(lines).encode())}}
    sent = httpx.post(f"{vendor.url}/v1/files", headers=headers, timeout=600, **form)  # type: ignore[arg-type]
    sent.raise_for_status()
    asked = {"input_file_id": sent.json()["id"], "endpoint": "/embed", "completion_window": "24h"}
    job = httpx.post(f"{vendor.url}/v1/batches", headers=headers, json=asked, timeout=60)
    job.raise_for_status()
    time.sleep(2)  # it is under way
    return str(job.json()["id"])


def cancel(vendor: VendorProcess, api_key: str, job: str) -> None:
    """End a job, which must have lasted until now."""
    headers = {"authorization": f"Bearer {api_key}"}
    ended = httpx.post(f"{vendor.url}/v1/batches/{job}/cancel", headers=headers, timeout=60).json()
    assert ended["status"] == "cancelled", "the job was over before the measurement"
    time.sleep(1)


def row(share: float, pairs: Sequence[tuple[Calls, Calls]]) -> str:
    """A line of the table: medians over the rounds."""
    cells = []
    for which in (0, 1):
        of = [pair[which] for pair in pairs]
        cells += [f"{1000 * median(each.p50 for each in of):.0f} ms"]
        cells += [
            f"{1000 * median(each.p99 for each in of):.0f} ms",
            f"{median(each.busy for each in of):.2f}",
        ]
    ratio = median(beside.p99 / alone.p99 for alone, beside in pairs)
    return f"| {share:.2f} | {' | '.join(cells)} | {ratio:.2f} |".replace("nan ms", "").replace("nan", "")


if __name__ == "__main__":
    main()
