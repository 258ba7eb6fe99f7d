"""A student in a file that needs no PyTorch: ONNX, run by onnxruntime."""

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from client.data.images import Pixels
from client.errors import ClientError, UsageError
from client.learning.student_metadata import StudentMetadata
from client.paths import absence, is_file

INPUT, PROBABILITIES, SCORES = "pixels", "probabilities", "scores"
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_DEVICE = re.compile(r"auto|cpu|cuda(?::(\d+))?")
_INSTALL = "pip install 'tuition[onnx]'"


def import_onnxruntime() -> ModuleType:
    """Import onnxruntime, which otherwise tells its makers over the network that it runs.

    It asks the environment when it is imported. What a user has set stays.

    Raises:
        ImportError: it is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    module: ModuleType = onnxruntime
    return module


def require_onnx() -> None:
    """Check that what reads and writes ONNX is installed.

    Raises:
        UsageError: it is not; the message says how to get it.
    """
    try:
        import onnx  # noqa: F401

        import_onnxruntime()
    except ImportError as error:
        raise UsageError(f"{error.name} is missing, which ONNX files take: {_INSTALL}.") from error


class OnnxClassifier:
    """A student that `export_onnx` wrote; it asks for squares of pixels and for nothing else.

    Attributes:
        classes: the names of its classes, in the order of its probabilities.
        side: of the squares that it takes, in pixels.
        texts: the metadata in its file, as texts.
        metadata: the same, read.
    """

    def __init__(self, path: Path, *, device: str = "cpu", threads: int | None = None) -> None:
        """Open the file.

        Args:
            path: of the .onnx file.
            device: "cpu", "cuda", "cuda:1" ...; "auto" takes a GPU where onnxruntime can.
            threads: how many compute together; `None` for one a processor.

        Raises:
            UsageError: onnxruntime is not installed, or knows no such device here.
            ClientError: the file is missing or is not a student.
        """
        try:
            onnxruntime = import_onnxruntime()
        except ImportError as error:
            raise UsageError(f"Running {path} takes onnxruntime: {_INSTALL}.") from error
        if not is_file(path):
            raise ClientError(f"{path} {absence(path)}.")
        named = _DEVICE.fullmatch(device)
        if named is None:
            raise _no_device(device)
        providers: list[str | tuple[str, dict[str, int]]] = [_CPU]
        if device != "cpu" and _CUDA in onnxruntime.get_available_providers():
            providers.insert(0, (_CUDA, {"device_id": int(named[1] or 0)}))
        self._path, self._device, self._threads = path, device, threads
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 4  # its log has names of the file's, as they are; errors are raised
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=providers)
            self.texts: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        except Exception as error:  # onnxruntime raises a class of its own for each way to be damaged
            raise _no_student(path) from error
        if device.startswith("cuda") and _CUDA not in self._session.get_providers():
            raise _no_device(device)  # onnxruntime takes the CPU in place of what it cannot have
        self.metadata = StudentMetadata.from_file(self.texts)
        if self.metadata.classes is None or self.metadata.image_size is None:
            raise _no_student(path)
        self.classes, self.side = list(self.metadata.classes), self.metadata.image_size

    def __reduce__(self) -> tuple[Callable[[Path], Self], tuple[Path]]:
        """Its file is opened again where it is sent to: a session of onnxruntime stays in its process."""
        return partial(type(self), device=self._device, threads=self._threads), (self._path,)

    def probabilities(self, pixels: Pixels) -> NDArray[np.float32]:
        """Of shape (n, classes), for RGB of shape (n, side, side, 3).

        Raises:
            ClientError: the file is not a student.
        """
        try:
            (probabilities,) = self._session.run([PROBABILITIES], {INPUT: np.ascontiguousarray(pixels)})
        except Exception as error:  # as above
            raise _no_student(self._path) from error
        return np.asarray(probabilities, dtype=np.float32)


def _no_device(name: str) -> UsageError:
    return UsageError(
        f"--device {name!r} cannot be used by onnxruntime on this machine; auto takes what is available."
    )


def _no_student(path: Path) -> ClientError:
    return ClientError(f"{path} is damaged or is not a student that Tuition exported.")
