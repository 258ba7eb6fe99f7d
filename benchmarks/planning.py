"""How long a plan over many images without labels takes, the first time and the second.

    python -m benchmarks.planning

It draws as many small images as it is told, beside a small labelled set. `client plan` reads and hashes all
of them once, and remembers what it has read. A second plan opens none of them.
"""

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from benchmarks.accuracy import icons
from tests.support.vendor_process import VendorProcess

_FOLDERS = 100


def main() -> None:
    """Draw, plan twice, and print the seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--side", type=int, default=64)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder, VendorProcess(Path(folder)) as vendor:
        pool = Path(folder, "pool")
        _draw(pool, arguments.images, arguments.side)
        environment = {
            **os.environ, "TUITION_VENDOR_URL": vendor.url, "TUITION_API_KEY": vendor.create_key(),
            "TUITION_CACHE": str(Path(folder, "cache.db")),
        }  # fmt: skip
        command = [
            sys.executable, "-c", "from client.cli.main import main; main()", "plan", "--data", str(icons()),
            "--unlabelled", str(pool), "--budget", "50000", "--json",
        ]  # fmt: skip
        for name in ("the first time", "the second time"):
            began = time.monotonic()
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
            print(
                f"{arguments.images} images of {arguments.side} px, {name}: {time.monotonic() - began:.1f} s"
            )


def _draw(pool: Path, count: int, side: int) -> None:
    """Write images of noise as JPEG files, old enough to be remembered."""
    for number in range(_FOLDERS):
        (pool / str(number)).mkdir(parents=True)

    def draw(number: int) -> None:
        noise = np.random.default_rng(number).integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
        file = pool / str(number % _FOLDERS) / f"{number}.jpg"
        Image.fromarray(noise).resize((side, side)).save(file)
        os.utime(file, (1, 1))

    with ThreadPoolExecutor() as threads:
        list(threads.map(draw, range(count)))


if __name__ == "__main__":
    main()
