"""safetensors files, written whole or not at all."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from client.errors import ClientError, unwritable
from client.paths import discard


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write tensors and metadata as a safetensors file, whole or not at all.

    Raises:
        ClientError: it cannot be written (a full disk, say).
    """
    part = path.with_name(f"{path.name}.part")
    try:
        part.touch()
        mode = part.stat().st_mode  # as the umask has it; safetensors makes files that nobody else can read
        save_file(
            {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, part, metadata=metadata
        )
        part.chmod(mode)
        part.replace(path)
    except (OSError, SafetensorError) as error:
        discard(part)
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
