"""How a model computes on this machine: chosen by a measurement, and remembered in a folder.

A choice is of one model, one machine and one set of programs. Programs of other versions are measured anew,
but keep the arithmetic, so that an upgrade changes no fingerprint.
"""

import fcntl
import hashlib
import json
import logging
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.embeddings import Kind
from vendor_service.encoder.facts import Dtype

# eager: as PyTorch runs it; channels-first: the same on images that lie in memory that way; graph: as one.
Way = Literal["eager", "channels-first", "graph"]

_PROGRAMS = ("tuition", "torch", "open_clip_torch", "timm")
_CPU_INFO = Path("/proc/cpuinfo")
_log = logging.getLogger(__name__)


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Timing(_Kept):
    """One way to compute one kind of query: a lone query in ms, and queries a second in batches of `rows`.

    `cosine` is the least one to float32's answers, where it was asked for.
    """

    kind: Kind
    dtype: Dtype
    way: Way
    lone_ms: float
    rows: int
    a_second: float
    cosine: float | None = None

    @property
    def speed(self) -> float:
        """The geometric mean of its queries a second, one by one and in batches."""
        return float((1000 / self.lone_ms * self.a_second) ** 0.5)


class Choice(_Kept):
    """The arithmetic of a model, the way of its images, how many replicas share a CPU, and the timings."""

    dtype: Dtype = "float32"
    image: Way | None = None  # nothing was measured
    replicas: int = Field(default=1, ge=1, le=2)
    measured_at: datetime = datetime.fromtimestamp(0, UTC)
    programs: Mapping[str, str] = {}
    timings: tuple[Timing, ...] = ()

    @property
    def taken(self) -> list[Timing]:
        """The timings of what it computes by, images first."""
        return [
            each
            for each in self.timings
            if each.dtype == self.dtype and (each.kind == "text" or each.way == self.image)
        ]

    @property
    def rates(self) -> Iterator[tuple[dict[str, str], float]]:
        """The queries a second of each timing, one by one and in batches, with what it is of."""
        for each in self.timings:
            taken = "yes" if each in self.taken else "no"
            of = {"kind": each.kind, "dtype": each.dtype, "way": each.way, "taken": taken}
            yield {**of, "load": "lone"}, 1000 / each.lone_ms
            yield {**of, "load": "batch"}, each.a_second

    def __str__(self) -> str:
        told = [
            f"{each.kind}s {each.way}, {each.lone_ms:.3g} ms alone, {each.a_second:.3g} a second in batches"
            for each in self.taken
        ]
        return "; ".join([self.dtype, *told])


class ChoiceMemory:
    """Remembers choices in a folder. Processes that share it measure one at a time.

    `anew` has what is remembered measured again, the arithmetic included.
    """

    def __init__(self, folder: Path, *, anew: bool = False) -> None:
        self._folder = folder
        self._anew = anew

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Hold the folder for the block; whether a choice can be kept there at all."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            holds = os.open(self._folder, os.O_RDONLY)
        except OSError as error:
            _log.warning("measurements cannot be kept in %s: %s", self._folder, error)
            yield False
            return
        try:
            fcntl.flock(holds, fcntl.LOCK_EX)
            yield os.access(self._folder, os.W_OK)
        finally:
            os.close(holds)

    def read(self, key: str) -> Choice | None:
        """What is remembered, of whatever programs; `None` where nothing is, or nothing is to be."""
        if self._anew:
            return None
        try:
            return Choice.model_validate_json(self._file(key).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            _log.warning("%s cannot be read, and is measured anew: %s", self._file(key), error)
            return None

    def write(self, key: str, choice: Choice) -> None:
        """Remember a choice, whole or not at all."""
        try:
            with NamedTemporaryFile("w", dir=self._folder, delete=False) as file:
                file.write(choice.model_dump_json(indent=1))
            Path(file.name).replace(self._file(key))
        except OSError as error:
            _log.warning("the measurement cannot be kept in %s: %s", self._folder, error)

    def _file(self, key: str) -> Path:
        return self._folder / f"{key}.json"


def key_of(fingerprint: str, devices: Sequence[torch.device], threads: int, asked: str) -> str:
    """The name of a choice: the model, whatever its arithmetic, the machine, and the arithmetic asked for."""
    named = [fingerprint, [*map(_name, devices)], threads, asked]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:32]


def programs() -> dict[str, str]:
    """The versions of whatever computes."""
    found = {}
    for name in _PROGRAMS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = _CPU_INFO.read_text().splitlines()
    except OSError:  # not Linux
        return f"{platform.machine()} {platform.processor()}"
    told = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)  # of the first processor
    return " ".join(
        value for name, value in told.items() if name.strip() in ("model name", "flags", "Features")
    )
