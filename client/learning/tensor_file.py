"""safetensors files, written whole or not at all."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from client.errors import ClientError, unwritable
from client.paths import whole_file


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write tensors and metadata as a safetensors file, whole or not at all.

    Raises:
        ClientError: it cannot be written (a full disk, say).
    """
    on_cpu = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    try:
        with whole_file(path) as part:
            part.touch()
            mode = part.stat().st_mode  # by the umask; safetensors makes files that nobody else can read
            save_file(on_cpu, part, metadata=metadata)
            part.chmod(mode)
    except (OSError, SafetensorError) as error:
        raise unwritable(path, error) from error


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and metadata of a safetensors file.

    Raises:
        ClientError: it is missing or damaged.
    """
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        return tensors, dict(file.metadata() or {})


def load_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, without reading its tensors.

    Raises:
        ClientError: it is missing or damaged.
    """
    with _opened(path) as file:
        return dict(file.metadata() or {})


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError as error:
        raise ClientError(f"{path} does not exist. Is its folder a run that has finished?") from error
    except (SafetensorError, OSError) as error:
        raise ClientError(f"{path} is damaged or is not a safetensors file.") from error
