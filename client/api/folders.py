"""Inspection of an image folder, and an example folder to try."""

from collections.abc import Sequence
from pathlib import Path

from client.api.checks import require_named
from client.data import bundled_set
from client.data.inspection import Inspection, inspect
from client.data.listing import list_folder
from client.progress import Display, ProgressListener


def check_folder(
    data: Path | str,
    *,
    layout: str | None = None,
    columns: Sequence[str] = (),
    progress: ProgressListener | None = None,
) -> Inspection:
    """Count domains and classes, and look for what distorts a result; reads every image, spends nothing.

    Args:
        data: folder of images, or a table.
        layout: which of its folders are domains and classes (`DistillOptions.layout`).
        columns: what a table calls its columns.
        progress: is told how the work goes on.

    Raises:
        DataError: the folder is not laid out so, or can be read in two ways.
    """
    require_named(Path(data), how="as DIR")
    folder = list_folder(Path(data), layout=layout, columns=columns)
    folder.require_domains([])
    with Display.of(progress).track("Reading", sum(map(folder.count, folder.domains))) as advance:
        return inspect(folder, lambda done: advance(done, ""))


def unpack_example(folder: Path | str) -> Path:
    """Write the bundled images into two new folders; spends nothing.

    `folder` gets 2,289 icons of 54 classes in five domains, as ROOT/<domain>/<class>/<image>. The other, of
    the same name and `-unlabelled`, gets illustrations and icons without labels, as ROOT/<style>/<image>; a
    style that is held out must stay out of what is learnt from. ATTRIBUTION.txt in each says whose drawings
    they are.

    Returns:
        The folder of the labelled icons.

    Raises:
        UsageError: `folder` has no name of its own (`.`), or one of the two has something in it.
        ClientError: they cannot be written.
    """
    bundled_set.unpack_example(Path(folder))
    return Path(folder)
