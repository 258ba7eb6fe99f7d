"""Models that are loaded once for all vendors of a process, and for those of the processes forked from it."""

import os
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import torch

from tests.vendor_service.given_settings import GivenSettings
from vendor_service.encoder.clip import ClipModel
from vendor_service.encoder.sources import ModelSource
from vendor_service.run import factory
from vendor_service.run.model_specs import find_specs

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


def load_bundled() -> None:
    """Load the bundled model, for whatever is forked from this process.

    Of a team of threads that computes, a fork would have nothing but a lock that nobody opens; so this needs
    one thread.
    """
    if os.environ.get("OMP_NUM_THREADS") == "1":
        with patch.object(factory, "ClipModel", loaded_once):
            factory._load(find_specs(GivenSettings())[0], threads=1)
