"""Models that are loaded once for all vendors of a process, and for those of the processes forked from it."""

from collections.abc import Sequence
from typing import Any

import torch

from vendor_service.encoder.clip import ClipModel
from vendor_service.encoder.sources import ModelSource

_MODELS: dict[tuple[Any, ...], ClipModel] = {}


def loaded_once(
    source: ModelSource, devices: Sequence[torch.device], *args: Any, **options: Any
) -> ClipModel:
    """A model that was loaded for an earlier vendor, which is as good as new: it has no state."""
    files = [(str(file), file.stat().st_mtime_ns) for file in source.files()]
    chosen = (options["halves"], options["compiled"])
    known = (source.id, source.pretrained, *files, *map(str, devices), *args, *chosen)
    if known not in _MODELS:
        _MODELS[known] = ClipModel(source, devices, *args, **options)
    return _MODELS[known]
