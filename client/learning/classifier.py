"""A student that names the classes of pictures, run by PyTorch."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client.data.images import Pixels
from client.errors import UsageError
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
        """How likely each class is, shape (n, classes), for RGB of shape (n, side, side, 3)."""
        scores = self._student.logits(self._student(self._inputs(pixels)))
        return self._student.probabilities(scores).cpu().numpy()

    @torch.inference_mode()
    def embeddings(self, pixels: Pixels) -> NDArray[np.float32]:
        """Its unit vectors, shape (n, d), for RGB of shape (n, side, side, 3)."""
        return self._student.embeddings(self._inputs(pixels)).cpu().numpy()

    def _inputs(self, pixels: Pixels) -> Tensor:
        return torch.from_numpy(pixels).to(self._student.device).permute(0, 3, 1, 2)


class StudentModule(nn.Module):
    """A student as a layer of somebody's own program, to be trained further or exported.

    BatchNorm statistics are frozen in training too, as they were in its own.

    Attributes:
        student: its network; `student.backbone` has no head.
    """

    def __init__(self, student: StudentNetwork) -> None:
        super().__init__()
        self.student = student

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits, shape (n, classes), whose softmax is the student's probabilities.

        Args:
            pixels: RGB, uint8 of shape (n, 3, image_size, image_size), as `Student.transform` makes them.

        Raises:
            UsageError: they have another type or shape.
        """
        shape = (3, *2 * (self.student.preprocessing.image_size,))
        if pixels.dtype != torch.uint8 or tuple(pixels.shape[1:]) != shape:
            raise UsageError(
                f"The student takes pixels of type uint8 (0 to 255) and shape {('n', *shape)}, and these are "
                f"{str(pixels.dtype).removeprefix('torch.')} of shape {tuple(pixels.shape)}. "
                "`Student.transform` makes them of any image."
            )
        return self.student.logits(self.student(pixels)) / self.student.temperature
