"""What a student sees of a picture, for the data sets of PyTorch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from client.data.pictures import Pictures, is_one, pictures
from client.learning.prediction import rows_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Transform:
    """Pictures to the squares of pixels that a student sees, as `client predict` makes them.

    It can be sent to the workers of a `DataLoader`, and takes neither network nor device.

    Attributes:
        side: of the squares, in pixels.
    """

    side: int

    def __call__(self, given: Pictures) -> "Tensor":
        """RGB, uint8 of shape (3, side, side) of one picture, and (n, 3, side, side) of several.

        Args:
            given: as `Student.predict` takes it.

        Raises:
            UsageError: it is no picture, or one of the wrong type, range or shape.
            DataError: it cannot be read.
        """
        import torch

        squares = rows_of(lambda pixels: pixels, pictures(given), self.side)
        tensor = torch.from_numpy(squares).movedim(-1, -3).contiguous()
        return tensor[0] if is_one(given) else tensor
