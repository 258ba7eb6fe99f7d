"""Tensors that lie in a file: what is known of very many images need not fit into memory."""

import math
import mmap
import os
import sys
from pathlib import Path
from tempfile import TemporaryFile

import torch
from torch import Tensor


def mapped_zeros(*shape: int, folder: Path | None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Zeros in a file without a name, which is gone with the tensor; in memory where no file can be had.

    The machine keeps as much of them in memory as it has room for, as it does with any file.

    Args:
        shape: of the tensor.
        folder: where the file lies, on a disk; `None` for memory.
        dtype: of the tensor.
    """
    size = dtype.itemsize * math.prod(shape)
    if folder is None or not size:
        return torch.zeros(shape, dtype=dtype)
    try:
        with TemporaryFile(dir=folder) as file:
            if sys.platform == "linux":  # a page of the file that finds no room later would end the process
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
            memory = mmap.mmap(file.fileno(), size)
    except OSError:
        return torch.zeros(shape, dtype=dtype)
    return torch.frombuffer(memory, dtype=dtype).reshape(shape)
