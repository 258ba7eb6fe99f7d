"""How much memory a run over many images takes, stage by stage: whether a run over a million fits a machine.

    python -m benchmarks.many_images                        # 3,000 and 20,000: ten minutes
    python -m benchmarks.many_images --images 1000000       # twenty minutes, 8 GB of disk

`client distill` learns from so many images without labels beside the bundled icons: it reads, hashes and
decodes them, asks the cache what the teacher says, aligns, and takes some steps. Then it is ended, for
further steps take nothing more. The images are small (64 px) and the student sees them at 32 px, so most of
what is measured is what a run knows of an image and not the image. Their embeddings are random and lie in the
cache, which saves the half hour that buying a million takes; texts and labelled images are bought.

Memory is the process's own, in MiB: pages of files that it has mapped belong to the machine, which takes them
back when it needs them. What a run over more images has more of, divided by these, is what an image takes.
"""

import argparse
import hashlib
import math
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.planning import beside_icons, draw
from benchmarks.watching import Watch
from client.cache.cache import EmbeddingCache
from client.cache.tables import StoredEmbedding
from client.vendors.teachers.tuition import VendorClient
from tests.support.vendor_process import VendorProcess, resident_bytes

_STEPS = 100  # of the distill stage, before the run is ended
_PROGRESS = re.compile(r"^(\w[\w ]*): (\d+)/\d+")


@dataclass(frozen=True)
class Stage:
    """What a run did until its next progress bar, in seconds, and the most memory of its own meanwhile."""

    name: str
    seconds: float
    resident: int


def main() -> None:
    """Run once for each number of images, and print what each stage took."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, nargs="+", default=[3000, 20_000])
    arguments = parser.parse_args()
    print("| images | stage | s | MiB of its own, at most |")
    print("|---|---|---|---|")
    for count in arguments.images:
        for stage in run(count):
            mib = stage.resident / 2**20
            print(f"| {count:,} | {stage.name} | {stage.seconds:.0f} | {mib:,.0f} |", flush=True)


def run(count: int) -> list[Stage]:
    """Draw so many images, learn from them for a while, and say what each stage took."""
    with TemporaryDirectory() as folder, VendorProcess(Path(folder)) as vendor:
        pool, cache = Path(folder, "pool"), Path(folder, "cache.db")
        draw(pool, count, 64)
        _fill(cache, vendor.url, sorted(pool.rglob("*.jpg")))
        started = beside_icons(
            "distill", pool, vendor, cache, "--budget", str(2 * count + 5000),
            "--image-size", "32", "--out", str(Path(folder, "run")),
        )  # fmt: skip
        process = started(stderr=subprocess.PIPE, text=True)
        try:
            with Watch(lambda: process.pid, 0.25, partial(resident_bytes, line="RssAnon")) as watch:
                began = _stages(process)
        finally:
            process.kill()
            process.wait()
    ends = [*list(began.values())[1:], math.inf]
    stages = []
    for (name, start), end in zip(began.items(), ends, strict=True):
        samples = [each for each in watch.samples if start <= each.seconds < end]
        if samples:  # others are over in a moment
            resident = max(each.resident for each in samples)
            stages.append(Stage(name, min(end, samples[-1].seconds) - start, resident))
    return stages


def _stages(process: "subprocess.Popen[str]") -> dict[str, float]:
    """After how many seconds each stage began; the run is ended after some steps of the last one."""
    began, stages = time.monotonic(), {"Starting": 0.0}
    assert process.stderr is not None
    for line in process.stderr:
        if told := _PROGRESS.match(line):
            stages.setdefault(told[1], time.monotonic() - began)
            if told[1] == "Distilling" and int(told[2]) >= _STEPS:
                return stages
    raise RuntimeError("the run ended before its last stage")


def _fill(cache: Path, vendor: str, files: Sequence[Path]) -> None:
    """Store random embeddings of files under the model that the vendor sells."""
    with VendorClient(vendor, None) as client:
        model = client.model()
    random = np.random.default_rng(0)

    def entries() -> Iterator[StoredEmbedding]:
        for file in files:
            row = random.normal(size=model.dimensions).astype(np.float32)
            row /= np.linalg.norm(row)
            yield StoredEmbedding("image", hashlib.sha256(file.read_bytes()).digest(), row.tobytes())

    with EmbeddingCache(cache) as opened:
        opened.add(model.fingerprint, entries())


if __name__ == "__main__":
    main()
