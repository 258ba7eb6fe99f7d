"""What an image folder holds, and what is wrong with it."""

from pathlib import Path

from client.data.domains import list_folder
from client.data.inspection import Inspection, inspect
from client.progress import Display, ProgressListener


def check_folder(data: Path | str, *, progress: ProgressListener | None = None) -> Inspection:
    """Count domains and classes, and look for what distorts a result; reads every image, spends nothing.

    Args:
        data: folder of images: ROOT/<domain>/<class>/<image>.
        progress: is told how the work goes on.

    Raises:
        DataError: the folder is not laid out so.
    """
    folder = list_folder(Path(data))
    with Display.of(progress).track("Reading", sum(map(folder.count, folder.domains))) as advance:
        return inspect(folder, lambda done: advance(done, ""))
