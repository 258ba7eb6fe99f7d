"""The client by how many images it is given: listed, planned, kept in the cache, bought, and learnt from.

The images are small, 64 px, so that most of what is measured is what is known of an image and not the image.
A hundred are drawn; the others are these with another number behind the image, so no two files are alike.
`benchmarks/growth.py` runs this.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from benchmarks.costs import Cost, once, own_bytes, whole
from benchmarks.runs import icons
from benchmarks.watching import Watch
from client.cache.cache import EmbeddingCache
from client.cache.tables import StoredEmbedding
from client.data.pool import find_pool
from client.purchase.buyer import Buyer
from client.vendors.query import Query
from client.vendors.teachers.tuition import VendorClient
from tests.support.tiny_clip import write_tiny_clip
from tests.support.vendor_process import VendorProcess

SIDE = 64
_DRAWN = 100
_DIMENSIONS = 512
_BATCH = 4096
_STEPS = 100  # of the distill stage, before a run is ended
_LEARNING = re.compile(r"^Distilling: (\d+)/")


def files(count: int, folder: Path) -> Iterator[Cost]:
    """A folder of so many files."""
    pool = drawn(count, folder)
    cost, found = whole("listing", lambda: find_pool(str(pool)))
    assert len(found.images) == count
    yield cost


def plan(count: int, folder: Path) -> Iterator[Cost]:
    """`client plan` on so many images without labels: the first opens all of them, a second none."""
    pool = drawn(count, folder)
    with TemporaryDirectory(dir=folder) as own, VendorProcess(Path(own)) as vendor:
        started = _beside_icons("plan", pool, vendor, Path(own, "cache.db"), "--budget", "50000", "--json")
        for what in ("plan, the first", "plan, the second"):
            began = time.monotonic()
            process = started(stdout=subprocess.DEVNULL)
            with Watch(partial(int, process.pid), 0.1, own_bytes) as watch:
                code = process.wait()
            if code:
                raise subprocess.CalledProcessError(code, process.args)
            most = max(each.resident for each in watch.samples)
            yield Cost(what, time.monotonic() - began, bytes=most)


def cache(count: int, folder: Path) -> Iterator[Cost]:
    """A cache of so many embeddings of 512 dimensions."""
    queries = [Query.text(f"text {number}") for number in range(count)]
    with TemporaryDirectory(dir=folder) as own:
        path = Path(own, "cache.db")
        with EmbeddingCache(path) as filled:

            def fill() -> None:
                for first in range(0, count, _BATCH):
                    filled.add("fp_growth", _random(queries[first : first + _BATCH]))

            yield whole("put", fill)[0]
        yield once("opened", lambda: EmbeddingCache(path).__exit__(), times=10)
        with EmbeddingCache(path) as opened:
            random = np.random.default_rng(0)

            def draw() -> None:
                some = [queries[at] for at in random.integers(0, count, 1000)]
                assert opened.rows("fp_growth", some, _DIMENSIONS)[1].all()

            yield once("1,000 at random", draw)
            yield whole("all read", lambda: opened.rows("fp_growth", queries, _DIMENSIONS))[0]
        print(f"cache of {count:,}: {path.stat().st_size / (4 * count * _DIMENSIONS):.2f} of its vectors")


def buying(count: int, folder: Path) -> Iterator[Cost]:
    """So many images bought from a vendor of a tiny model, which answers nearly at once."""
    pool = drawn(count, folder)
    with TemporaryDirectory(dir=folder) as own:
        model = write_tiny_clip(Path(own, "tiny"), 0)
        with (
            VendorProcess(Path(own), "--model", model, threads=os.cpu_count() or 1) as vendor,
            VendorClient(vendor.url, vendor.create_key()) as client,
            EmbeddingCache(Path(own, "cache.db")) as store,
        ):
            buyer = Buyer(client, store, model=client.model(), run_id="growth", budget=None)
            queries = [Query.image_file(path) for path in find_pool(str(pool)).images]
            cost, purchase = whole("buying", lambda: buyer.buy(queries))
            assert purchase.bought == count
            yield cost


def run(count: int, folder: Path) -> Iterator[Cost]:
    """`client distill` on so many images beside the bundled icons, until it has taken some steps.

    It reads, hashes and decodes them, asks the cache what the teacher says, aligns, and learns. Further steps
    would take no more memory. The student sees 32 px. What the teacher says lies in the cache already.
    """
    pool = drawn(count, folder)
    with TemporaryDirectory(dir=folder) as own, VendorProcess(Path(own)) as vendor:
        store = Path(own, "cache.db")
        _fill(store, vendor, pool)
        started = _beside_icons(
            "distill", pool, vendor, store, "--budget", str(2 * count + 5000),
            "--image-size", "32", "--out", str(Path(own, "run")),
        )  # fmt: skip
        process = started(stderr=subprocess.PIPE, text=True)
        try:
            with Watch(lambda: process.pid, 0.25, own_bytes) as watch:
                ready, seconds_a_step = _seconds_of_run(process)
        finally:
            process.kill()
            process.wait()
    most = max(each.resident for each in watch.samples)
    yield Cost("run, until it learns", ready, bytes=most)
    yield Cost("run, a step", seconds_a_step, flat=True)


def drawn(count: int, folder: Path) -> Path:
    """The folder of so many images, which are drawn if they are not there."""
    pool = folder / f"pool-{count}"
    if not pool.exists():
        draw(folder / "drawing", count)
        (folder / "drawing").rename(pool)
    return pool


def draw(pool: Path, count: int) -> None:
    """Write images of noise as JPEG files into a hundred folders, old enough to be remembered."""
    contents = []
    for number in range(_DRAWN):
        (pool / str(number)).mkdir(parents=True)
        noise = np.random.default_rng(number).integers(0, 256, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8)
        buffer = BytesIO()
        Image.fromarray(noise).resize((SIDE, SIDE)).save(buffer, "JPEG")
        contents.append(buffer.getvalue())

    def write(number: int) -> None:
        file = pool / str(number % _DRAWN) / f"{number}.jpg"
        file.write_bytes(contents[number % _DRAWN] + str(number).encode())
        os.utime(file, (1, 1))

    with ThreadPoolExecutor() as threads:
        list(threads.map(write, range(count)))


def _beside_icons(
    command: str, pool: Path, vendor: VendorProcess, store: Path, *options: str
) -> "partial[subprocess.Popen[str]]":
    """Starts a command of `client` on the bundled icons and a pool, with a key of its own."""
    environment = {
        **os.environ, "TUITION_VENDOR_URL": vendor.url, "TUITION_API_KEY": vendor.create_key(),
        "TUITION_CACHE": str(store),
    }  # fmt: skip
    arguments = [
        sys.executable, "-c", "from client.cli.main import main; main()", command, "--data", str(icons()),
        "--unlabelled", str(pool), *options,
    ]  # fmt: skip
    return partial(subprocess.Popen, arguments, env=environment)


def _random(queries: Sequence[Query]) -> Iterator[StoredEmbedding]:
    rows = np.random.default_rng(len(queries)).normal(size=(len(queries), _DIMENSIONS)).astype("<f4")
    for query, row in zip(queries, rows, strict=True):
        yield StoredEmbedding(query.kind, bytes.fromhex(query.digest), row.tobytes())


def _fill(store: Path, vendor: VendorProcess, pool: Path) -> None:
    """Store what the vendor says of the images: it is asked about one of each that look alike."""
    folders = sorted(pool.iterdir())
    with VendorClient(vendor.url, vendor.create_key()) as client, EmbeddingCache(store) as filled:
        model = client.model()
        buyer = Buyer(client, filled, model=model, run_id="growth", budget=None)
        ones = [Query.image_file(min(each.iterdir())) for each in folders]
        buyer.buy(ones)
        rows, _ = buyer.lookup(ones)

        def entries() -> Iterator[StoredEmbedding]:
            for each, row in zip(folders, rows, strict=True):
                content = row.astype("<f4").tobytes()
                for file in each.iterdir():
                    digest = bytes.fromhex(Query.image_file(file).digest)
                    yield StoredEmbedding("image", digest, content)

        filled.add(model.fingerprint, entries())


def _seconds_of_run(process: "subprocess.Popen[str]") -> tuple[float, float]:
    """How long it takes until a run learns, and then how long a step takes, by what it says now and then."""
    began = time.monotonic()
    first: tuple[float, int] | None = None
    assert process.stderr is not None
    for line in process.stderr:
        if told := _LEARNING.match(line):
            now, step = time.monotonic() - began, int(told[1])
            if first is None:
                first = now, step
            elif step - first[1] >= _STEPS:
                a_step = (now - first[0]) / (step - first[1])
                return first[0] - first[1] * a_step, a_step
    raise RuntimeError("the run ended before its last stage")
