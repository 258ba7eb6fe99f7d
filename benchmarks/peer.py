"""The vendor beside infinity-emb: the same load at a ViT-B-32 of each, on the same machine, in turns.

    make bench-peer

Both answer OpenAI's protocol: requests of 8 photographs (480 x 640, about 40 KB) as data-URIs, 16 at a time.
infinity-emb keeps no accounts; the vendor charges for every image. Both run alone, each while the other is
stopped (SIGSTOP), in the arithmetic that is named, with weights of the same shapes that are random.
"""

import argparse
import base64
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from urllib.request import urlopen

from benchmarks import load
from benchmarks.vendor import photographs, save_model
from tests.support.vendor_process import VendorProcess, wait_until

BIN = Path(os.environ.get("INFINITY_BIN", ".venv-infinity/bin"))
NAME = "vit-b-32"
CONNECTIONS = 16
IMAGES = 8  # a request


def main() -> None:
    """Measure, and print the table of docs/results.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="float32")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        save_model(folder / NAME)
        served = ("--model", f"local-dir:{folder / NAME}", "--dtype", options.dtype)
        vendor = stack.enter_context(VendorProcess(folder, *served, threads=os.cpu_count() or 1))
        requests = openai_requests(vendor.create_key())
        infinity, port = stack.enter_context(peer(folder, options.dtype))
        sides = {"vendor": (vendor.pid, int(vendor.url.rpartition(":")[2])), "infinity": (infinity, port)}
        for pid, _ in sides.values():
            os.kill(pid, signal.SIGSTOP)
        answered: dict[str, list[load.Load]] = {name: [] for name in sides}
        for _ in range(options.rounds):
            for name, (pid, at) in sides.items():
                os.kill(pid, signal.SIGCONT)
                answered[name].append(load.run(at, requests, CONNECTIONS, options.seconds))
                os.kill(pid, signal.SIGSTOP)
        for pid, _ in sides.values():
            os.kill(pid, signal.SIGCONT)
    print("| server | images/s | p50 s | p99 s |\n|---|---|---|---|")
    for name, each in answered.items():
        rate = IMAGES * median(one.answers_a_second for one in each)
        p50, p99 = median(one.p50 for one in each), median(one.p99 for one in each)
        print(f"| {name} | {rate:.1f} | {p50:.2f} | {p99:.2f} |")


def openai_requests(key: str) -> list[bytes]:
    """Requests that both sides understand."""
    files = photographs(480, 640, 20)
    uris = [f"data:image/jpeg;base64,{base64.b64encode(each).decode()}" for each in files]
    asked = {"model": NAME, "modality": "image", "encoding_format": "base64"}
    return [
        load.request(
            "/v1/embeddings",
            json.dumps(asked | {"input": uris[start : start + IMAGES]}).encode(),
            authorization=f"Bearer {key}",
            content_type="application/json",
        )
        for start in range(0, len(uris), IMAGES)
    ]


@contextmanager
def peer(folder: Path, dtype: str) -> Iterator[tuple[int, int]]:
    """An infinity-emb server: its process and its port."""
    quiet = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    environment = os.environ | quiet
    script = ["-m", "benchmarks.peer_model", str(folder / "peer")]
    subprocess.run([BIN / "python", *script], check=True, env=environment)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command: list[str | Path] = [
        *(BIN / "infinity_emb", "v2", "--model-id", folder / "peer", "--served-model-name", NAME),
        *("--engine", "torch", "--device", "cpu", "--dtype", dtype, "--no-bettertransformer"),
        *("--no-compile", "--url-prefix", "/v1", "--host", "127.0.0.1", "--port", str(port)),
    ]
    with (folder / "peer.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def answers() -> bool:
        assert server.poll() is None, (folder / "peer.log").read_text()
        with suppress(OSError):
            return bool(urlopen(f"http://127.0.0.1:{port}/v1/models").status == 200)
        return False

    try:
        wait_until(answers, seconds=120)
        yield server.pid, port
    finally:
        server.terminate()
        server.wait(30)


if __name__ == "__main__":
    main()
