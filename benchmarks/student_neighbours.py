"""What does a caller of a deployed student notice of four attackers at once? (`make bench-attacks`)

A caller asks about a photograph of 6 megapixels, again and again: alone, and then beside hostile images,
large bodies, slow bodies and noise, each sent by another caller with a key of its own. Attackers and student
share the cores of this machine; what they send is built beforehand.
"""

import hashlib
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from benchmarks import load
from benchmarks.barrage import Attacker, AttackProcess, AttackResult, Keys
from benchmarks.bystander import GoodCustomer, Waits
from benchmarks.serving import write_student
from tests.support.photograph import photograph
from tests.support.student_process import StudentProcess
from tests.vendor_service.hostile_images import BOMBS

BOUND = 3.0
_PHOTOGRAPH = (3000, 2000)
_BODY_BYTES = 31 * 2**20
_NOISE = 64  # images a request


def _classify(key: str, files: Sequence[bytes]) -> bytes:
    body, kind = load.form(files)
    return load.request("/classify", body, authorization=f"Bearer {key}", content_type=kind)


def hostile_images(attacker: Attacker) -> None:
    """Every hostile image that we know of, on four connections."""
    attacker.repeat([_classify(attacker.keys.good, [make()]) for make in BOMBS.values()], 4)


def large_bodies(attacker: Attacker) -> None:
    """Bodies of 31 MiB that hold two files of noise, on four connections."""
    files = [secrets.token_bytes(_BODY_BYTES // 2)] * 2
    attacker.repeat([_classify(attacker.keys.good, files)], 4)


def slow_bodies(attacker: Attacker) -> None:
    """200 bodies, a byte every half second."""
    attacker.besiege([_classify(attacker.keys.good, [bytes(10_000)])], 300, 200, drip=1)


def noise(attacker: Attacker) -> None:
    """64 pictures of noise a request, on four connections."""
    drawn = np.random.default_rng(0)
    files = []
    for _ in range(_NOISE):
        buffer = BytesIO()
        Image.fromarray(drawn.integers(0, 256, (224, 224, 3), np.uint8)).save(buffer, "PNG")
        files.append(buffer.getvalue())
    attacker.repeat([_classify(attacker.keys.good, files)], 4)


ATTACKERS: tuple[Callable[[Attacker], None], ...] = (hostile_images, large_bodies, slow_bodies, noise)


class Neighbour(GoodCustomer):
    """Asks about one photograph, again and again."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._connection = None
        buffer = BytesIO()
        photograph(*_PHOTOGRAPH).save(buffer, "JPEG", quality=90)
        self._request = _classify(key, [buffer.getvalue()])

    def ask(self, seconds: float) -> Waits:
        """Ask until the time is over."""
        waits, ends = Waits(), time.monotonic() + seconds
        while time.monotonic() < ends or not waits.images:
            began = time.perf_counter()
            status = self._answer(self._request)
            waits.images.append(time.perf_counter() - began)
            if status != "200":
                waits.refused[status] += 1
        return waits


@dataclass(frozen=True)
class Outcome:
    """Seconds that the neighbour waited alone and beside the attackers, and what came of these."""

    alone: Waits
    beside: Waits
    results: dict[str, AttackResult]

    @property
    def ratio(self) -> float:
        """How many times longer the photograph takes beside the attackers, by the medians."""
        return float(np.median(self.beside.images) / np.median(self.alone.images))

    def __str__(self) -> str:
        medians = [f"{1000 * np.median(waits.images):.0f}" for waits in (self.alone, self.beside)]
        told = f"{medians[0]} ms alone, {medians[1]} ms beside"
        if self.beside.refused:
            told += f"; the neighbour was refused: {dict(self.beside.refused)}"
        return told


def measure(seconds: float, attackers: Sequence[Callable[[Attacker], None]] = ATTACKERS) -> Outcome:
    """Serve a student, and put a neighbour beside the attackers."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        names = ["neighbour", *(each.__name__ for each in attackers)]
        keys = {name: secrets.token_hex(24) for name in names}
        lines = (f"{name} {hashlib.sha256(key.encode()).hexdigest()}\n" for name, key in keys.items())
        (folder / "keys.txt").write_text("".join(lines))
        write_student(folder / "student.onnx")
        options = ("--api-keys", str(folder / "keys.txt"))
        student = stack.enter_context(StudentProcess(folder / "student.onnx", folder, *options))
        neighbour = Neighbour(student.port, keys["neighbour"])
        stack.callback(neighbour.close)
        neighbour.ask(1.0)
        alone = neighbour.ask(seconds)
        fights = {
            each.__name__: AttackProcess(each, student.port, Keys(*[keys[each.__name__]] * 3))
            for each in attackers
        }
        with ExitStack() as fighting:
            for each in fights.values():
                fighting.enter_context(each)
            time.sleep(1.0)
            beside = neighbour.ask(seconds)
    return Outcome(alone, beside, {name: each.result for name, each in fights.items()})
