"""Is anything slower than it was? What users wait for, as ratios within this run, beside the record.

    make bench-quick

Nothing here is in seconds: each time is divided by one that this machine takes for something else in the same
minute, so runs on another day, or beside a little other work, can be compared. The record (`quick.json`) has
the ratios of each kind of processor; `--record` writes those of this run there. The command fails where a
ratio is worse than the record by more than `WORSE`. Other benchmarks say why.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks import load, peers, serving, training, vendor
from benchmarks.customers import icons
from client.data.images import decode_square
from client.learning.recipe import Recipe
from tests.support.student_process import StudentProcess
from tests.support.vendor_process import VendorProcess

RECORD = Path(__file__).with_name("quick.json")
WORSE = 1.2
_SECONDS, _ROUNDS = 4.0, 2
_STEPS = 15
# What a start is compared with: a new process that imports what any program of this kind imports.
_START = "import torch"


@dataclass(frozen=True)
class Figure:
    """What was measured: its ratio to something else of the same run, and whether more of it is better."""

    name: str
    ratio: float
    more_is_better: bool

    def worse_than(self, record: float) -> float:
        """By how many times it is worse than the record; below 1 where it is better."""
        return record / self.ratio if self.more_is_better else self.ratio / record


def starts(folder: Path) -> Iterator[Figure]:
    """What commands take to start, beside a process that imports PyTorch."""
    asked = {
        "client --help": ["-m", "client", "--help"],
        "vendor --help": ["-m", "vendor_service", "--help"],
        "vendor accounts list": ["-m", "vendor_service", "accounts", "list"],
    }
    environment = os.environ | {"VENDOR_DATABASE_URL": f"sqlite:///{folder / 'books.db'}"}

    def seconds(arguments: Sequence[str]) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env=environment)
        return time.perf_counter() - began

    seconds(["-m", "vendor_service", "db", "upgrade"])
    measured = {name: partial(seconds, words) for name, words in asked.items()}
    measured["vendor serve, ready"] = partial(_until_ready, folder)
    yield from _beside("of importing PyTorch", partial(seconds, ["-c", _START]), measured)


def _until_ready(folder: Path) -> float:
    with TemporaryDirectory(dir=folder) as books:
        began = time.perf_counter()
        with VendorProcess(Path(books), threads=os.cpu_count() or 1):
            return time.perf_counter() - began


def _beside(
    unit: str, one: Callable[[], float], others: Mapping[str, Callable[[], float]]
) -> Iterator[Figure]:
    """The median of each, in turns with what all of them are divided by; less is better."""
    ratios: dict[str, list[float]] = {name: [] for name in others}
    for turn in range(_ROUNDS + 1):
        for name, measure in others.items():
            by = one()
            ratio = measure() / by
            if turn:  # the first reads files from the disk
                ratios[name].append(ratio)
    for name, found in ratios.items():
        yield Figure(f"{name}: times {unit}", median(found), more_is_better=False)


def vendors(folder: Path) -> Iterator[Figure]:
    """The vendor beside its bare model in the same arithmetic, and beside somebody's broken images."""
    model = folder / "vit-b-32"
    vendor.save_model(model)
    files = vendor.photographs(vendor.SIDE, vendor.SIDE, 80)
    options = ("--model", f"local-dir:{model}", "--dtype", "float32")
    with vendor.bare_model(model, vendor.Setup("float32")) as bare:
        bare.recv()
        with VendorProcess(folder, *options, threads=os.cpu_count() or 1) as process:
            key, port = process.create_key(), int(process.url.rpartition(":")[2])
            requests = [load.embed(key, *load.form([each])) for each in files]
            broken = load.embed(key, *load.form([peers.BROKEN]))
            served = peers.Served(process.pid, port, requests, lambda _: [], broken)

            def rate(connections: int, alone: float) -> float:
                # As long as it takes to have several answers on each connection.
                seconds = max(_SECONDS, 5 * connections / alone)
                return load.run(port, requests, connections, seconds).answers_a_second

            shares: dict[int, list[float]] = {1: [], 16: []}
            beside = []
            for turn in range(_ROUNDS + 1):
                bare.send(_SECONDS)
                alone = float(bare.recv())
                rates = {connections: rate(connections, alone) for connections in shares}
                with peers.nuisance(served, Counter()):
                    broken_rate = rate(16, alone)
                if turn:  # the first finds everything cold
                    beside.append(broken_rate / rates[16])
                    for connections, found in rates.items():
                        shares[connections].append(found / alone)
    yield Figure("images of 16 connections: share of the bare model's", median(shares[16]), True)
    yield Figure("images of one connection: share of the bare model's", median(shares[1]), True)
    yield Figure("images of 16 beside broken ones: share of those without", median(beside), True)


def students(folder: Path) -> Iterator[Figure]:
    """A served student beside its bare session, and the loop of `distill` beside a bare one."""
    student = folder / "student.onnx"
    serving.write_student(student)
    files = icons(serving.DISTINCT)
    pixels = np.stack([decode_square(file, serving.SIDE)[0] for file in files])
    requests = [
        load.request("/classify", body, content_type=kind)
        for body, kind in (load.form([each]) for each in files)
    ]
    shares = []
    with StudentProcess(student, folder) as server:
        for turn in range(_ROUNDS + 1):
            bare = max(rate for rate, _ in serving.bare_rates(student, pixels, _SECONDS).values())
            served = load.run(server.port, requests, serving.CONNECTIONS, _SECONDS).answers_a_second
            shares += [served / bare] if turn else []
    yield Figure("client serve: share of its bare session's images", median(shares), True)
    data = training.training_set(folder)
    recipe = replace(Recipe(), steps=_STEPS, evaluations=1)
    ratios = [
        training.seconds_of_bare_loop(data, recipe) / training.seconds_of_distill(data, recipe)
        for _ in range(_ROUNDS + 1)
    ][1:]
    yield Figure("client distill: share of a bare loop's steps", median(ratios), True)


def main() -> None:
    """Measure, print beside the record, and fail where something is worse."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="a file for the figures, as JSON")
    parser.add_argument("--record", action="store_true", help="write them to the record")
    options = parser.parse_args()
    record = json.loads(RECORD.read_text())
    here = training.processor()
    known = record.get(here, {})
    print(f"{here}; the record has {'it' if known else 'no such machine'}\n")
    print("| ratio within this run | now | record | worse by |\n|---|---:|---:|---:|")
    found: dict[str, float] = {}
    worse = []
    for measure in (starts, vendors, students):
        with TemporaryDirectory() as folder:
            for each in measure(Path(folder)):
                found[each.name] = round(each.ratio, 3)
                before = known.get(each.name)
                by = None if before is None else each.worse_than(before)
                worse += [each.name] if by is not None and by > WORSE else []
                cells = ("-", "-") if by is None else (f"{before:.2f}", f"{by:.2f}")
                print(f"| {each.name} | {each.ratio:.2f} | {' | '.join(cells)} |", flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps({here: found}, indent=2) + "\n")
    if options.record:
        RECORD.write_text(json.dumps(record | {here: found}, indent=2, sort_keys=True) + "\n")
    if worse:
        sys.exit(f"Worse than the record by more than {WORSE} times: {'; '.join(worse)}.")


if __name__ == "__main__":
    main()
