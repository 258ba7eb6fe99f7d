"""A data set of the user's own, a Python object: written once as files and a table, and then read as those.

So that what was bought, split and decoded is found again, an image is a PNG of its pixels, named by them. The
table is named by all of them: another content is another table.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from client.data.images import Pixels
from client.errors import DataError, unwritable
from client.paths import whole_file
from client.plugins import of_others
from shared.images.colours import loaded_rgb


def write_set(dataset: Any, folder: Path, on_image: Callable[[int], None] = lambda _: None) -> Path:  # noqa: ANN401
    """Write a data set into a folder, and return its table; images that are there already are not written.

    Args:
        dataset: a sequence (`len` and `[position]`, as PyTorch's map-style sets) or an iterable of (image,
            label) or (image, label, domain). An image is one of Pillow's, the path of a file, or uint8: an
            array of shape (height, width, 3) or a tensor (3, height, width). A label is a text, or a number
            where the set has `classes`.
        folder: made if it is not there.
        on_image: called with the number of images done.

    Raises:
        DataError: an item is none of these.
        ClientError: the data set raises, or a file cannot be written.
    """
    classes = getattr(dataset, "classes", None)
    rows = []
    try:
        for number, item in enumerate(_items(dataset), start=1):
            rows.append(_row(item, number, classes, folder))
            on_image(number)
        if not rows:
            raise DataError("The data set has no image.")
        content = "".join(f"{json.dumps(row)}\n" for row in rows)
        digest = hashlib.sha256(content.encode()).hexdigest()[:16]
        table = folder / f"{type(dataset).__name__.lower()}-{digest}.jsonl"
        with whole_file(table) as part:
            part.write_text(content, encoding="utf-8")
    except OSError as error:
        raise unwritable(folder, error) from error
    return table


def delete_sets(folder: Path) -> None:
    """Delete all that `write_set` wrote there.

    Raises:
        OSError: some cannot be deleted.
    """
    if folder.is_dir():
        shutil.rmtree(folder)


def _items(dataset: Any) -> Iterator[Any]:  # noqa: ANN401 (anybody's)
    if hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__"):
        with of_others("The data set"):
            count = len(dataset)
        for position in range(count):
            with of_others(f"The data set, asked for image {position},"):
                item = dataset[position]
            yield item
        return
    if not isinstance(dataset, Iterable):
        raise DataError(f"A data set has to be a sequence or an iterable, not a {type(dataset).__name__}.")
    items = iter(dataset)
    while True:
        with of_others("The data set"):
            item = next(items, None)
        if item is None:
            return
        yield item


def _row(item: Any, number: int, classes: Sequence[Any] | None, folder: Path) -> dict[str, str]:  # noqa: ANN401
    if not isinstance(item, tuple | list) or len(item) not in (2, 3):
        raise DataError(
            f"Image {number} of the data set is a {type(item).__name__}: it has to be (image, label) or "
            "(image, label, domain)."
        )
    image, label, *domain = item
    row = {"path": str(_file(image, number, folder)), "label": _label(label, number, classes)}
    return row if not domain else {**row, "domain": str(domain[0])}


def _label(label: Any, number: int, classes: Sequence[Any] | None) -> str:  # noqa: ANN401 (anybody's)
    if isinstance(label, str) and label.strip():
        return label
    try:
        return str(dict(enumerate(classes or ()))[int(label)])
    except (TypeError, ValueError, KeyError) as error:
        raise DataError(
            f"The label of image {number} of the data set is {label!r}: it has to be the name of a class, or "
            f"its number among `classes`, of which the set has {len(classes or ())}."
        ) from error


def _file(image: Any, number: int, folder: Path) -> Path:  # noqa: ANN401 (anybody's)
    """The file of an image, which is written if it is not there."""
    if isinstance(image, str | Path):
        return Path(image).absolute()
    pixels = _pixels(image, number)
    name = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
    path = folder / name[:2] / f"{name}.png"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            Image.fromarray(pixels).save(part, "PNG", compress_level=1)
    return path


def _pixels(image: Any, number: int) -> Pixels:  # noqa: ANN401 (anybody's)
    """RGB of shape (height, width, 3)."""
    if isinstance(image, Image.Image):
        return np.asarray(loaded_rgb(image))
    is_tensor = hasattr(image, "detach")
    array: Any = image.detach().cpu().numpy() if is_tensor else image
    if isinstance(array, np.ndarray) and array.dtype == np.uint8:
        if is_tensor and array.ndim == 3 and len(array) == 3:
            array = array.transpose(1, 2, 0)
        if array.ndim == 3 and array.shape[2] == 3 and array.size:
            return np.ascontiguousarray(array)
    what = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else type(image).__name__
    raise DataError(
        f"Image {number} of the data set is {what}: it has to be an image of Pillow's, a path, or uint8 "
        "(an array of height, width and 3 channels, or a tensor of 3 channels, height and width). What "
        "resizes, scales or augments images is a `transform`."
    )
