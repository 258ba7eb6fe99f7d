"""The model: loaded, checked against float32, copied to every device, and asked for unit vectors."""

import copy
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import nn

from shared.compiler import every_shape_compiled
from shared.embeddings import Kind
from shared.fingerprint import describe, fingerprint
from vendor_service.encoder import precision
from vendor_service.encoder.facts import Dtype, ModelFacts
from vendor_service.encoder.graph import Forward, traced
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
_TOLERANCES: dict[Dtype, float] = {"float32": 1e-3, "bfloat16": 1e-2, "int8": 3e-2}


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


def _rounded(model: Any) -> Any:  # noqa: ANN401
    """A copy in bfloat16, without one of the weights as they are; what a module keeps in float32 stays so."""
    weights = {id(each): nn.Parameter(each.to(torch.bfloat16), False) for each in model.parameters()}
    return copy.deepcopy(model, weights).to(torch.bfloat16)


class ClipModel:
    """A loaded model, with a replica on each device. `encode_*` are for one thread; the rest is thread-safe.

    Args:
        source: which model.
        devices: where it runs; a device named twice has two replicas, which share the weights.
        dtype: `float32`, `bfloat16`, or `auto`: the faster of the two there that is faithful to float32; or
            `int8` on CPUs: images in eight bits, and texts in float32.
        halves: whether the CPU may have two replicas, each on half of its threads: while one waits for the
            interpreter, or for the slowest of its threads, the other computes. A large model gains nothing.
        compiled: whether `torch.compile` makes code of it, which takes minutes at the start.
        calibration: a folder of images like those that will be sent, which int8 takes.
        kept_in: a folder that keeps what int8 made of models, so that a later start need not make it again.

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
        model, self.dtype = self._in_dtype(model, dtype)
        self.tolerance = _TOLERANCES[self.dtype]
        arithmetic = self.dtype if measured is None else f"{SCHEME} {measured.digest}"
        described = describe(source.architecture, model.visual.preprocess_cfg, self._tokens, arithmetic)
        self.fingerprint = fingerprint(described, model.state_dict())
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
        if halves and passes[first]["image"] == _methods(model)["image"]:  # a large model
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

    def _in_dtype(self, exact: Any, asked: Dtype | Literal["auto"]) -> tuple[Any, Dtype]:  # noqa: ANN401
        dtype = precision.fastest_dtype(self.devices) if asked == "auto" else asked
        if dtype in ("float32", "int8"):
            return exact, dtype
        if asked == dtype:
            return exact.to(torch.bfloat16), dtype
        rounded = _rounded(exact)
        faithful = self._replica(_methods(exact), self.devices[0], "float32")
        other = self._replica(_methods(rounded), self.devices[0], dtype)
        with using_threads(self._threads):  # which a replica leaves to its thread
            cosine = precision.least_cosine(faithful, other, self._canaries())
        if cosine >= precision.FAITHFUL:
            return rounded, dtype
        _log.info(
            "%s runs in float32: in bfloat16 its vectors have a cosine of %.4f to those of float32",
            self.id,
            cosine,
        )
        return exact, "float32"

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
        methods = _methods(model)
        if compiled:
            return {kind: torch.compile(method, dynamic=False) for kind, method in methods.items()} | made
        replica = self._replica(methods, device, self.dtype)
        canaries = self._canaries()

        def whole(kind: Kind) -> Forward:
            if device.type != "cpu":
                return methods[kind]
            staged = [replica.stage(kind, canaries[kind][:size]) for size in (2, 1, len(canaries[kind]))]
            examples = [replica.inputs(kind, each.batch) for each in staged]
            return traced(model, f"encode_{kind}", examples, self.tolerance)

        tokens = replica.arrived(replica.stage("text", canaries["text"]))
        with using_threads(self._threads):
            text = short_texts(model, tokens, self.tolerance, lambda: whole("text"))
            return {"image": made.get("image") or whole("image"), "text": text}

    def _replica(
        self,
        passes: dict[Kind, Forward],
        device: torch.device,
        dtype: Dtype,
        compile_lock: KernelCompileLock | None = None,
    ) -> Replica:
        threads = self._threads if device.type == "cpu" else None
        kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
        normalise = Normalisation(self.preprocessing.config, device)
        return Replica(passes, device, kind, normalise, threads=threads, compile_lock=compile_lock)


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
