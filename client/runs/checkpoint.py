"""The checkpoint of a run: where the steps on pixels stand."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import torch

from client.errors import unwritable
from client.learning.training import Checkpoint
from client.paths import discard


@dataclass(frozen=True)
class StampedCheckpoint:
    """A checkpoint, and the stamp of all that its steps depend on."""

    stamp: str
    checkpoint: Checkpoint


def read_checkpoint(content: bytes, device: torch.device) -> StampedCheckpoint:
    """The checkpoint in the bytes of a file that `save_checkpoint` wrote."""
    saved = torch.load(BytesIO(content), map_location=device, weights_only=True)
    return StampedCheckpoint(saved["stamp"], saved["checkpoint"])


def save_checkpoint(checkpoint: Checkpoint, stamp: str, path: Path) -> None:
    """Replace a checkpoint, whole or not at all.

    Raises:
        ClientError: it cannot be written.
    """
    part = path.with_suffix(".part")
    discard(part)  # it may be a link that somebody put there
    try:
        with part.open("wb") as file:  # of a file of Python's, the system's own error comes through
            torch.save({"stamp": stamp, "checkpoint": checkpoint}, file)
        part.replace(path)
    except (OSError, RuntimeError) as error:
        discard(part)
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None  # PyTorch ends the file all the same, and cannot
        raise unwritable(path, error) from error
