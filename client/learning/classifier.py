"""A student that names the classes of pictures, run by PyTorch."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from client.data.images import Pixels
from client.learning.student import StudentNetwork


class StudentClassifier:
    """A student, on the device where it is.

    Attributes:
        classes: the names of its classes, in the order of its probabilities.
        side: of the squares that it takes, in pixels.
    """

    def __init__(self, student: StudentNetwork, classes: Sequence[str]) -> None:
        self.classes = classes
        self.side = student.preprocessing.image_size
        self._student = student.eval()

    @torch.inference_mode()
    def probabilities(self, pixels: Pixels) -> NDArray[np.float32]:
        """How likely each class is.

        Args:
            pixels: RGB of shape (n, side, side, 3).

        Returns:
            shape (n, classes).
        """
        inputs = torch.from_numpy(pixels).to(self._student.device).permute(0, 3, 1, 2)
        scores = self._student.logits(self._student(inputs))
        return self._student.probabilities(scores).cpu().numpy()
