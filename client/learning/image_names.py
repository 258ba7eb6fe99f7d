"""Classes that a student names by their images, in its file: its teacher does not know their texts."""

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from client.learning.student_metadata import StudentMetadata, damaged


def names_to_json(names: Mapping[int, NDArray[np.float32]]) -> str:
    """As text: of each class's number, the base64 of its vector as little-endian float32."""
    return json.dumps({str(k): b64encode(each.astype("<f4").tobytes()).decode() for k, each in names.items()})


def names_of(metadata: StudentMetadata, classes: int, dimensions: int) -> dict[int, NDArray[np.float32]]:
    """The unit vectors, shape (d,), that stand in a student's file for class texts, by the class's number.

    Args:
        metadata: of the file.
        classes: how many it has.
        dimensions: d, of the teacher's embeddings.

    Raises:
        ClientError: the file is damaged.
    """
    try:
        told = json.loads(metadata.teacher_names or "{}")
        names = {int(k): np.frombuffer(b64decode(each, validate=True), "<f4") for k, each in told.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise damaged(f"its names of classes say {error}") from error
    for number, vector in names.items():
        if not 0 <= number < classes or vector.shape != (dimensions,) or not np.isfinite(vector).all():
            raise damaged(f"it has no name for class {number}")
    return {number: vector.astype(np.float32) for number, vector in names.items()}
