"""How long a plan over many images without labels takes, the first time and the second, and its memory.

    python -m benchmarks.planning                                # 200,000 images
    python -m benchmarks.planning --images 586575                # as many as DomainNet has; 20 GB of disk

It writes as many JPEG files of 400 x 400 pixels and 33 KB as it is told, beside a small labelled set. `client
plan` reads, hashes and decodes all of them once, and remembers what it has read. A second plan opens none.
Beside it, Pillow decodes the same files with as many threads, and nothing else is done with them.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from benchmarks.runs import icons
from tests.support.vendor_process import VendorProcess

_FOLDERS = 100


def main() -> None:
    """Draw, plan twice, and print the seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--side", type=int, default=400)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder, VendorProcess(Path(folder)) as vendor:
        pool = Path(folder, "pool")
        draw(pool, arguments.images, arguments.side)
        cache = Path(folder, "cache.db")
        started = beside_icons("plan", pool, vendor, cache, "--budget", "50000", "--json")
        for name in ("the first time", "the second time"):
            began = time.monotonic()
            process = started(stdout=subprocess.DEVNULL)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise subprocess.CalledProcessError(process.returncode, process.args)
            took = f"{time.monotonic() - began:.1f} s, {used.ru_maxrss / 1024:,.0f} MiB of memory at most"
            print(f"{arguments.images} images of {arguments.side} px, {name}: {took}", flush=True)
        began = time.monotonic()
        _decode(sorted(pool.rglob("*.jpg")))
        print(f"Pillow alone, which makes all pixels of each: {time.monotonic() - began:.1f} s")


def beside_icons(
    command: str, pool: Path, vendor: VendorProcess, cache: Path, *options: str
) -> "partial[subprocess.Popen[str]]":
    """Starts a command of `client` on the bundled icons and a pool, with a key of its own."""
    environment = {
        **os.environ, "TUITION_VENDOR_URL": vendor.url, "TUITION_API_KEY": vendor.create_key(),
        "TUITION_CACHE": str(cache),
    }  # fmt: skip
    arguments = [
        sys.executable, "-c", "from client.cli.main import main; main()", command, "--data", str(icons()),
        "--unlabelled", str(pool), *options,
    ]  # fmt: skip
    return partial(subprocess.Popen, arguments, env=environment)


def draw(pool: Path, count: int, side: int) -> None:
    """Write images of noise as JPEG files, old enough to be remembered.

    A hundred are drawn. The others are these with another number behind the image, so no two files are alike.
    """
    drawn = []
    for number in range(_FOLDERS):
        (pool / str(number)).mkdir(parents=True)
        noise = np.random.default_rng(number).integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
        buffer = BytesIO()
        Image.fromarray(noise).resize((side, side)).save(buffer, "JPEG")
        drawn.append(buffer.getvalue())

    def draw(number: int) -> None:
        file = pool / str(number % _FOLDERS) / f"{number}.jpg"
        file.write_bytes(drawn[number % _FOLDERS] + str(number).encode())
        os.utime(file, (1, 1))

    with ThreadPoolExecutor() as threads:
        list(threads.map(draw, range(count)))


def _decode(paths: Sequence[Path]) -> None:
    def decode(path: Path) -> None:
        with Image.open(path) as image:
            image.load()

    with ThreadPoolExecutor() as threads:
        list(threads.map(decode, paths))


if __name__ == "__main__":
    main()
