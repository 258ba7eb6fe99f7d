"""The facts of a model: which one it is, and the sizes of its inputs and vectors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Dtype = Literal["float32", "bfloat16", "float16", "int8"]


@dataclass(frozen=True)
class ModelFacts:
    """The published facts of a model.

    `tolerance` is the largest difference of one component between two answers to the same input,
    `preprocessing` open_clip's own configuration of it; sizes are in pixels and bytes.
    """

    id: str
    fingerprint: str
    dtype: Dtype
    tolerance: float
    devices: tuple[str, ...]
    dimensions: int
    image_size: int
    image_bytes: int
    preprocessing: Mapping[str, Any]
