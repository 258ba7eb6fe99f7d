"""The image tower in eight bits, for processors: NNCF finds the scales, OpenVINO computes.

Weights and activations are int8 by scales that are measured once, on images like those that customers will
send (static quantisation: Jacob et al., CVPR 2018). On a processor with VNNI that is nearly twice as fast as
bfloat16. Others add products in pairs in 16 bits, which overflow, so weights take half of their range: one
tower has the same vectors on both. Texts stay in float32: they are few, and the same for everybody.
"""

import hashlib
import importlib
import json
import logging
import shutil
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import wraps
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO, StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, ParamSpec, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import nn

from vendor_service.encoder.preprocessing import Preprocessing
from vendor_service.errors import OperatorError, UsageError

# So many images are measured on, spread evenly over the folder; with fewer than the least scales are poor.
_MOST, _LEAST = 256, 32
_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})
# Names this way to quantise, in fingerprints.
SCHEME = "int8 half-range"
# The least mean cosine of the images that were measured on to what float32 answers about them.
FAITHFUL = 0.99
_AT_ONCE = 32
_FILE = "image_tower.xml"
_MISSING = "int8 takes OpenVINO and NNCF: pip install 'tuition[int8]'"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Calibration:
    """Images to measure on.

    Attributes:
        images: as replicas stage them, each of shape (3, side, side), uint8.
        digest: SHA-256 (hex) of their files, a part of the model's fingerprint.
    """

    images: Sequence[torch.Tensor]
    digest: str

    @classmethod
    def read(cls, folder: Path, preprocessing: Preprocessing) -> "Calibration":
        """The images below a folder, or `_MOST` of them.

        Raises:
            UsageError: there are too few, or one cannot be read.
        """
        paths = calibration_files(folder)
        if len(paths) < _LEAST:
            raise UsageError(
                f"`calibration` {folder}: {len(paths)} images are there, and int8 takes {_LEAST} at least, "
                f"better {_MOST}, like those that customers will send"
            )
        chosen = [paths[number * len(paths) // _MOST] for number in range(_MOST)]
        images, digest = [], hashlib.sha256()
        for path in dict.fromkeys(chosen):
            try:
                content = path.read_bytes()
                with Image.open(BytesIO(content)) as image:
                    images.append(preprocessing.resize(image.convert("RGB")))
            except (OSError, ValueError, Image.DecompressionBombError) as error:
                raise UsageError(f"`calibration`: {path} is no image that can be read: {error}") from error
            digest.update(hashlib.sha256(content).digest())
        return cls(images, digest.hexdigest())


def calibration_files(folder: Path) -> list[Path]:
    """The images below a folder, in the order of their names."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)


Asked = ParamSpec("Asked")
Found = TypeVar("Found")


def _apart(make: Callable[Asked, Found]) -> Callable[Asked, Found]:
    """Do it on a thread of its own, which ends with it.

    OpenVINO gives the thread that first prepares a tower another stack for signals, and unmaps that together
    with the tower, on whatever thread (SigAltStackSetup of its CPU plugin): the next signal that meets the
    former thread ends the process.
    """

    @wraps(make)
    def made(*args: Asked.args, **options: Asked.kwargs) -> Found:
        with ThreadPoolExecutor(1, thread_name_prefix="int8") as thread:
            return thread.submit(make, *args, **options).result()

    return made


class Quantized:
    """The image tower of a model in eight bits, as a forward pass; threads may call it at once.

    Args:
        openvino: the library.
        tower: as it has it.
        streams: how many threads call it at once.
        threads: how many threads of a processor each of these takes.
    """

    def __init__(self, openvino: Any, tower: Any, streams: int, threads: int) -> None:  # noqa: ANN401
        settings = {
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams * threads,
            "INFERENCE_PRECISION_HINT": "f32",  # of what is left: the same on every processor
        }
        self._compiled = openvino.Core().compile_model(tower, "CPU", settings)
        self._own = threading.local()

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Features of shape (rows, dimensions)."""
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        answer = self._own.request.infer([np.ascontiguousarray(batch.numpy())])
        return torch.from_numpy(answer[0].copy())


@_apart
@torch.inference_mode()
def quantized(
    model: Any,  # noqa: ANN401
    measured: Calibration,
    normalise: Callable[[torch.Tensor], torch.Tensor],
    *,
    fingerprint: str,
    streams: int,
    threads: int,
    kept_in: Path | None,
) -> Quantized:
    """The image tower of a model in eight bits: made, which takes a minute, or as it was made before.

    Args:
        model: an open_clip model in evaluation, float32, on the CPU.
        measured: images to measure on.
        normalise: makes numbers of them, as the model is given.
        fingerprint: of the model, these images included.
        streams: how many threads call it at once.
        threads: how many threads of a processor each of these takes.
        kept_in: a folder of towers that were made; `None` keeps none.

    Raises:
        UsageError: the libraries are missing.
        OperatorError: the tower cannot be converted, or its vectors would differ too much.
    """
    openvino = _library("openvino")
    try:
        programs = [version(name) for name in ("openvino", "nncf", "torch")]
    except PackageNotFoundError as error:
        raise UsageError(_MISSING) from error
    key = hashlib.sha256(json.dumps([fingerprint, programs]).encode()).hexdigest()[:32]
    folder = None if kept_in is None else kept_in / key
    tower = None if folder is None else _kept(openvino, folder)
    if tower is not None:
        return Quantized(openvino, tower, streams, threads)
    _log.info("the image tower is made int8, which takes a minute")
    batches = [normalise(each).float() for each in torch.split(torch.stack(list(measured.images)), _AT_ONCE)]
    rows = [row for batch in batches for row in torch.split(batch, 1)]
    tower = _made(_library("nncf"), openvino, model, rows)
    found = Quantized(openvino, tower, streams, threads)
    alike = [nn.functional.cosine_similarity(model.encode_image(each), found(each)) for each in batches]
    cosine = float(torch.cat(alike).mean())
    if cosine < FAITHFUL:
        raise OperatorError(
            "this model does not bear int8: of its `calibration` images its vectors have a mean cosine of "
            f"{cosine:.3f} to float32's, and {FAITHFUL} is the least; choose another --dtype"
        )
    _log.info("the mean cosine to float32 is %.4f", cosine)
    if folder is not None:
        _keep(openvino, tower, folder)
    return found


def _made(nncf: Any, openvino: Any, model: Any, rows: Sequence[torch.Tensor]) -> Any:  # noqa: ANN401
    fused = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)  # its operator has no counterpart
        shape = openvino.PartialShape([-1, *rows[0].shape[1:]])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, that tracing is on its way out
            whole = openvino.convert_model(_Tower(model).eval(), example_input=rows[0], input=[shape])
        attends = any("attention" in type(each).__name__.lower() for each in model.visual.modules())
        with redirect_stdout(StringIO()):  # it draws a bar
            return nncf.quantize(
                whole,
                nncf.Dataset([row.numpy() for row in rows]),
                preset=nncf.QuantizationPreset.MIXED,
                model_type=nncf.ModelType.TRANSFORMER if attends else None,
                subset_size=len(rows),
                fast_bias_correction=attends,  # convolutions gain by the slow one
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    overflow_fix=nncf.OverflowFix.ENABLE  # half of the range
                ),
            )
    except Exception as error:  # whatever the two raise of a model that they do not know
        raise OperatorError(f"the image tower cannot be made int8: {error}") from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _kept(openvino: Any, folder: Path) -> Any:  # noqa: ANN401
    """A tower that was made before; `None` where there is none that can be read."""
    if not folder.exists():
        return None
    try:
        return openvino.Core().read_model(folder / _FILE)
    except RuntimeError as error:
        _log.warning("the int8 tower in %s cannot be read, and is made anew: %s", folder, error)
        return None


def _keep(openvino: Any, tower: Any, folder: Path) -> None:  # noqa: ANN401
    """Keep a tower, whole or not at all, whoever else does so meanwhile."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent) as scratch:
            made = Path(scratch) / folder.name
            openvino.save_model(tower, made / _FILE, compress_to_fp16=False)
            shutil.rmtree(folder, ignore_errors=True)  # what could not be read
            made.replace(folder)
    except (OSError, RuntimeError) as error:
        _log.warning("the int8 tower cannot be kept in %s: %s", folder, error)


def _library(name: Literal["nncf", "openvino"]) -> Any:  # noqa: ANN401
    """One of the two, imported when it is needed, and kept from telling its makers of it.

    Raises:
        UsageError: it is not installed.
    """
    # Both send events to an analytics service by this package, and do without where it cannot be imported.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        found = importlib.import_module(name)
    except ImportError as error:
        raise UsageError(_MISSING) from error
    logging.getLogger("nncf").setLevel(logging.WARNING)
    return found


class _Tower(nn.Module):
    """The image tower as a module of its own, which a converter takes."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401
        super().__init__()
        self._model = model

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Features of shape (rows, dimensions)."""
        features: torch.Tensor = self._model.encode_image(batch)
        return features
