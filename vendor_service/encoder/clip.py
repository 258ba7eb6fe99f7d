"""The model: loaded, checked against float32, copied to every device, and asked for unit vectors."""

import copy
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import nn

from shared.compiler import every_shape_compiled
from shared.embeddings import Kind
from shared.fingerprint import describe, fingerprint
from vendor_service.encoder import measuring, precision
from vendor_service.encoder.choice import Choice, ChoiceMemory, Way, key_of, programs
from vendor_service.encoder.facts import Dtype, ModelFacts
from vendor_service.encoder.graph import Forward, is_graph, traced
from vendor_service.encoder.initialisation import WithoutDrawing
from vendor_service.encoder.libraries import open_clip
from vendor_service.encoder.preprocessing import Preprocessing
from vendor_service.encoder.quantized import SCHEME, Calibration, quantized
from vendor_service.encoder.queries import PreparedText, Vectors
from vendor_service.encoder.replica import KernelCompileLock, Normalisation, Replica, using_threads
from vendor_service.encoder.short_texts import places_first, short_texts
from vendor_service.encoder.sources import ModelSource
from vendor_service.encoder.tokenizing import load_tokenizer, tokenize
from vendor_service.errors import OperatorError, UsageError

_log = logging.getLogger(__name__)

# The largest difference of one component between two answers to the same input, in whatever batches and on
# whatever machine: for float32 it is that between processors which round a colour differently. One level in
# one of 200 bytes moves a component of icon-clip by up to 0.0009; another batch moves it by 1e-7.
_TOLERANCES: dict[Dtype, float] = {"float32": 1e-3, "bfloat16": 1e-2, "float16": 2e-3, "int8": 3e-2}
_MEASURED: tuple[Dtype, ...] = ("float32", "bfloat16", "float16")
_TORCH: dict[Dtype, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_devices(names: str) -> list[torch.device]:
    """The devices to run on, separated by commas; `auto` is the first CUDA device, or the CPU.

    Raises:
        UsageError: one of them is not here or cannot serve, or they are of two kinds.
    """
    if names == "auto":
        return [torch.device("cuda" if torch.cuda.is_available() else "cpu")]
    devices = [_device(name.strip()) for name in names.split(",")]
    if len({each.type for each in devices}) > 1:
        # One batcher makes the batches of all of them, in the sizes of the first.
        raise UsageError(f"one model cannot serve on a CPU and a GPU at once, as {names!r} would have it")
    return devices


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"there is no device {name!r} here; use auto, cpu, cuda or cuda:1") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"a vendor cannot serve on the device {name!r}; use auto, cpu, cuda or cuda:1")
    return device


def _rounded(model: Any, dtype: torch.dtype = torch.bfloat16) -> Any:  # noqa: ANN401
    """A copy in that type, without one of the weights as they are; what a module keeps in float32 stays."""
    weights = {id(each): nn.Parameter(each.to(dtype), False) for each in model.parameters()}
    return copy.deepcopy(model, weights).to(dtype)


class ClipModel:
    """A loaded model, with a replica on each device. `encode_*` are for one thread; the rest is thread-safe.

    Args:
        source: which model.
        devices: where it runs; a device named twice has two replicas, which share the weights.
        dtype: `float32`, `bfloat16`, `float16`, or `auto`: the fastest of them there that is faithful to
            float32, and float32 without a `memory`; or `int8` on CPUs: images in eight bits, and texts in
            float32.
        halves: whether the CPU may have two replicas, each on half of its threads: while one waits for the
            interpreter, or for the slowest of its threads, the other computes. A large model gains nothing.
        compiled: whether `torch.compile` makes code of it, which takes minutes at the start.
        calibration: a folder of images like those that will be sent, which int8 takes.
        kept_in: a folder that keeps what int8 made of models, so that a later start need not make it again.
        memory: remembers by what the model computes fastest. Where it does not know yet, that is measured.

    Attributes:
        choice: what was remembered or measured.

    Raises:
        UsageError: int8 cannot be had so.
        OperatorError: its weights cannot be fetched or do not fit, it does not bear int8, or cannot be
            compiled.
    """

    def __init__(
        self,
        source: ModelSource,
        devices: Sequence[torch.device],
        dtype: Dtype | Literal["auto"] = "auto",
        *,
        halves: bool = False,
        compiled: bool = False,
        calibration: Path | None = None,
        kept_in: Path | None = None,
        memory: ChoiceMemory | None = None,
    ) -> None:
        self.id = source.id
        self.devices = _halved(devices) if halves else list(devices)
        if dtype == "int8":
            _require_int8(self.devices, calibration)
        self._threads = _threads(self.devices)
        model = self._load(source)
        self.preprocessing = Preprocessing(model.visual.preprocess_cfg)
        measured = None
        if dtype == "int8":
            assert calibration is not None
            measured = Calibration.read(calibration, self.preprocessing)
        whole = _threads(devices)
        if dtype == "int8" or compiled or memory is None:
            self.choice = Choice(dtype="float32" if dtype == "auto" else dtype)
        else:
            key = key_of(self._fingerprint(source, model, "float32"), devices, whole, dtype)
            self.choice = self._chosen(model, dtype, memory, key, whole if halves else 1)
        self.dtype: Dtype = self.choice.dtype
        self.tolerance = _TOLERANCES[self.dtype]
        if self.dtype in _TORCH:
            model = _rounded(model, _TORCH[self.dtype])
        arithmetic = self.dtype if measured is None else f"{SCHEME} {measured.digest}"
        self.fingerprint = self._fingerprint(source, model, arithmetic)
        first, *others = dict.fromkeys(self.devices)
        copies = {first: model.to(first)} | {each: copy.deepcopy(model).to(each) for each in others}
        made: dict[Kind, Forward] = {}
        if measured is not None:
            made["image"] = quantized(
                model,
                measured,
                Normalisation(self.preprocessing.config, first),
                fingerprint=self.fingerprint,
                streams=len(self.devices),
                threads=self._threads,
                kept_in=kept_in,
            )
        passes = {
            device: self._passes(each, device, made, compiled=compiled) for device, each in copies.items()
        }
        is_large = not (compiled or made or is_graph(passes[first]["image"]))
        if halves and is_large and self.choice.replicas == 1:
            self.devices = list(devices)
            self._threads = _threads(self.devices)
        lock = KernelCompileLock()
        self.replicas = [self._replica(passes[each], each, self.dtype, lock) for each in self.devices]
        if compiled:
            with _compiling(self.id):
                for replica in self.replicas:
                    replica.warm_up(*self.canaries())
        self.dimensions = self.encode_texts(["a photo"]).shape[1]
        torch.cuda.empty_cache()  # PyTorch would keep what only loading took, as a copy in float32

    @property
    def facts(self) -> ModelFacts:
        """The published facts of the model."""
        return ModelFacts(
            id=self.id,
            fingerprint=self.fingerprint,
            dtype=self.dtype,
            tolerance=self.tolerance,
            devices=tuple(map(str, self.devices)),
            dimensions=self.dimensions,
            image_size=self.image_size,
            image_bytes=self.preprocessing.image_bytes,
            preprocessing=self.preprocessing.config,
        )

    @property
    def image_size(self) -> int:
        """The shorter side of what the model sees, in pixels."""
        return self.preprocessing.image_size

    def encode_images(self, images: Sequence[torch.Tensor]) -> Vectors:
        """Unit vectors of preprocessed images, float32 of shape (images, dimensions)."""
        return self._encode("image", images)

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors of texts, float32 of shape (texts, dimensions)."""
        return self._encode("text", [self._tokenized(text) for text in texts])

    def canaries(self) -> tuple[torch.Tensor, PreparedText]:
        """A small image and a text, ready for the model."""
        blank = Image.new("RGB", (self.image_size, self.image_size), "white")
        return self.preprocessing.resize(blank), self._tokenized("a photo")

    def _tokenized(self, text: str) -> PreparedText:
        return PreparedText(text, torch.from_numpy(self.tokenizer(text)))

    def _tokens(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.from_numpy(tokenize(self.tokenizer, texts))

    def _encode(self, kind: Kind, items: Sequence[Any]) -> Vectors:
        first = self.replicas[0]
        size = first.buckets.largest
        batches = [items[start : start + size] for start in range(0, len(items), size)]
        return np.concatenate([first.encode(kind, first.stage(kind, batch)) for batch in batches])

    def _load(self, source: ModelSource) -> Any:  # noqa: ANN401
        try:
            with WithoutDrawing():
                model = open_clip.create_model(
                    source.name,
                    source.pretrained,
                    device=self.devices[0],
                    force_quick_gelu=source.quick_gelu,
                    require_pretrained=True,
                )
            self.tokenizer = load_tokenizer(source.name)
        except Exception as error:
            # open_clip raises RuntimeError, OSError, ValueError and its hub's own for the same few reasons.
            raise OperatorError(f"the model {source.id} cannot be loaded: {error}") from error
        if self.devices[0].type == "cpu":
            places_first(model)
        return model.eval().requires_grad_(False)

    def _fingerprint(self, source: ModelSource, model: Any, arithmetic: str) -> str:  # noqa: ANN401
        described = describe(source.architecture, model.visual.preprocess_cfg, self._tokens, arithmetic)
        return fingerprint(described, model.state_dict())

    def _chosen(
        self,
        exact: Any,  # noqa: ANN401
        asked: Dtype | Literal["auto"],
        memory: ChoiceMemory,
        key: str,
        threads: int,
    ) -> Choice:
        """By what to compute: as it is remembered, or as it is measured now.

        What cannot be kept is not measured: another start might come to another fingerprint.
        """
        with memory.alone() as can_keep:
            if not can_keep:
                return Choice(dtype="float32" if asked == "auto" else asked)
            known = memory.read(key)
            if known is not None and known.programs == programs():
                return known
            began = time.monotonic()
            _log.info("measuring by what %s computes fastest on this machine, once", self.id)
            dtypes = _MEASURED if asked == "auto" else (asked,)
            choice = self._measured(exact, dtypes if known is None else (known.dtype,), threads)
            memory.write(key, choice)
            _log.info("measured in %.1f s: `vendor models measure` prints it", time.monotonic() - began)
            return choice

    def _measured(self, exact: Any, dtypes: Sequence[Dtype], threads: int) -> Choice:  # noqa: ANN401
        """Measure, and take the fastest that is faithful, by all `threads` or by half of them each."""
        device, canaries = self.devices[0], self._canaries()

        def ways(dtype: Dtype) -> dict[Kind, dict[Way, Replica]]:
            model = _rounded(exact, _TORCH[dtype]) if dtype in _TORCH else exact
            graph = self._images(model, device, "graph", dtype)
            named: tuple[Way, ...] = ("eager", "channels-first") if device.type == "cpu" else ("eager",)
            images = {way: self._images(model, device, way, dtype) for way in named}
            images |= {"graph": graph} if is_graph(graph) else {}
            text = self._texts(model, device, dtype)
            made = {
                way: self._replica({"image": each, "text": text}, device, dtype)
                for way, each in images.items()
            }
            return {"image": made, "text": {"graph" if is_graph(text) else "eager": made["eager"]}}

        over = time.monotonic() + measuring.SECONDS
        with using_threads(self._threads):  # which a replica leaves to its thread
            timings = measuring.measure(dtypes, ways, canaries)
            for dtype, way in measuring.ranked(timings):
                replica = ways(dtype)["image"][way]
                cosine = 1.0
                if dtype in _TORCH:
                    faithful = self._replica(_methods(exact), device, "float32")
                    cosine = precision.least_cosine(faithful, replica, canaries)
                told = [
                    each.model_copy(update={"cosine": cosine}) if each.dtype == dtype else each
                    for each in timings
                ]
                if cosine >= precision.FAITHFUL or len(dtypes) == 1:
                    break
                _log.info("in %s, %s has a cosine of %.4f to float32: it is left", dtype, self.id, cosine)
                timings = told
        replicas = 1
        if way != "graph" and time.monotonic() < over:
            rows = next(
                each.rows for each in told if (each.kind, each.dtype, each.way) == ("image", dtype, way)
            )
            replicas = measuring.best_replicas(
                lambda half: self._replica(replica.passes, device, dtype, threads=half),
                threads,
                canaries["image"],
                rows,
            )
        return Choice(
            dtype=dtype,
            image=way,
            replicas=replicas,
            measured_at=datetime.now(UTC).replace(microsecond=0),
            programs=programs(),
            timings=tuple(told),
        )

    def _canaries(self) -> precision.Canaries:
        return precision.make_canaries(self.preprocessing.resize, self._tokenized, self.image_size)

    def _passes(
        self,
        model: Any,  # noqa: ANN401
        device: torch.device,
        made: dict[Kind, Forward],
        *,
        compiled: bool,
    ) -> dict[Kind, Forward]:
        """The forward passes of a model on its device, as fast as they run there; some are `made` already."""
        if compiled:
            methods = _methods(model)
            return {kind: torch.compile(method, dynamic=False) for kind, method in methods.items()} | made
        with using_threads(self._threads):
            text = self._texts(model, device, self.dtype)
            image = made.get("image") or self._images(model, device, self.choice.image, self.dtype)
            return {"image": image, "text": text}

    def _images(self, model: Any, device: torch.device, way: Way | None, dtype: Dtype) -> Forward:  # noqa: ANN401
        """The pass of images, in that way; without one, or as a `graph`, a large model's is its method."""
        method = _methods(model)["image"]
        if way == "channels-first":
            return ChannelsFirst(method)
        return method if way == "eager" else self._whole(model, device, "image", dtype)

    def _texts(self, model: Any, device: torch.device, dtype: Dtype) -> Forward:  # noqa: ANN401
        replica = self._replica(_methods(model), device, dtype)
        tokens = replica.arrived(replica.stage("text", self._canaries()["text"]))
        whole = partial(self._whole, model, device, "text", dtype)
        return short_texts(model, tokens, _TOLERANCES[dtype], whole)

    def _whole(self, model: Any, device: torch.device, kind: Kind, dtype: Dtype) -> Forward:  # noqa: ANN401
        """The pass of a kind as one graph, where it runs on a CPU and that pays."""
        if device.type != "cpu":
            return _methods(model)[kind]
        replica, canaries = self._replica(_methods(model), device, dtype), self._canaries()[kind]
        staged = [replica.stage(kind, canaries[:size]) for size in (2, 1, len(canaries))]
        examples = [replica.inputs(kind, each.batch) for each in staged]
        return traced(model, f"encode_{kind}", examples, _TOLERANCES[dtype])

    def _replica(
        self,
        passes: Mapping[Kind, Forward],
        device: torch.device,
        dtype: Dtype,
        compile_lock: KernelCompileLock | None = None,
        threads: int | None = None,
    ) -> Replica:
        threads = (threads or self._threads) if device.type == "cpu" else None
        kind = _TORCH.get(dtype, torch.float32)
        normalise = Normalisation(self.preprocessing.config, device)
        shares = self.devices.count(device) > 1
        return Replica(
            passes, device, kind, normalise, threads=threads, shares=shares, compile_lock=compile_lock
        )


class ChannelsFirst:
    """A pass of images that are laid out anew, with each channel of an image in one piece."""

    def __init__(self, forward: Forward) -> None:
        self._forward = forward

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Features of shape (rows, dimensions)."""
        return self._forward(batch.contiguous())


def _halved(devices: Sequence[torch.device]) -> list[torch.device]:
    """The CPU twice, where it is alone and has threads for two."""
    is_cpu = len(devices) == 1 and devices[0].type == "cpu"
    return [*devices, *devices] if is_cpu and torch.get_num_threads() > 1 else list(devices)


def _require_int8(devices: Sequence[torch.device], calibration: Path | None) -> None:
    """Check, before anything is loaded, that int8 can be had.

    Raises:
        UsageError: a device is not for it, or it has nothing to be measured on.
    """
    if any(device.type != "cpu" for device in devices):
        raise UsageError("int8 is for processors: --device cpu, or another --dtype")
    if calibration is None:
        raise UsageError(
            "int8 takes a folder of images like those that customers will send: "
            "name it as `calibration` in a file of models"
        )


@contextmanager
def _compiling(name: str) -> Iterator[None]:
    """Compile the passes of the block, for each shape that they meet.

    Raises:
        OperatorError: it cannot be.
    """
    try:
        with every_shape_compiled():
            yield
    except Exception as error:
        # PyTorch has errors of its own for some causes; Triton and the system raise others.
        raise OperatorError(
            f"the model {name} cannot be compiled; that takes a C++ compiler such as g++, and a folder "
            f"whose files may run (TORCHINDUCTOR_CACHE_DIR, TRITON_CACHE_DIR): {error}"
        ) from error


def _methods(model: Any) -> dict[Kind, Forward]:  # noqa: ANN401 - open_clip has no types
    return {"image": model.encode_image, "text": model.encode_text}


def _threads(devices: Sequence[torch.device]) -> int:
    """How many threads each of the replicas on the CPU may take of those that torch does."""
    sharing = Counter(each.type for each in devices)["cpu"]
    return max(1, torch.get_num_threads() // max(1, sharing))
