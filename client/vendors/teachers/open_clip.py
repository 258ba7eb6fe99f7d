"""An open_clip model in this process: `MODEL/PRETRAINED`, or a folder with its configuration and weights."""

from client.errors import UsageError
from client.vendors.teacher import Teacher


def make(model: str | None) -> Teacher:
    """The teacher of a name.

    Raises:
        UsageError: there is no such model, or open_clip is not installed.
    """
    if model is None:
        raise UsageError("Name a model: --teacher open_clip:MODEL/PRETRAINED, or open_clip:FOLDER.")
    return Teacher.open_clip(model)


TEACHER = make
