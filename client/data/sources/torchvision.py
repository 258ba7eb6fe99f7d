"""torchvision's data sets, which it has downloaded already; and its `ImageFolder`.

Where it reads files, their paths are taken; the others it holds in memory, and their pictures become PNG
files when they are read: `ROOT/CIFAR10.torchvision/train/17`.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from inspect import signature
from io import BytesIO
from pathlib import Path
from typing import Any

from client.data.finder import Skipped
from client.data.members import Stamp, file_stamp
from client.data.sources.source import Row, Source
from client.data.tables import Columns
from client.errors import DataError, UsageError

_SUFFIX = ".torchvision"
_PARTS = ("train", "trainval", "val", "valid", "test")  # as its data sets call them


class TorchVision(Source):
    """`torchvision:NAME:ROOT`, as in CIFAR10:downloads; or a part of it, as in CIFAR10/test:downloads."""

    def rows(
        self,
        where: str,
        columns: Columns,  # noqa: ARG002 (it has none)
        *,
        labelled: bool,
    ) -> Iterator[Row | Skipped]:
        """As `Source.rows`."""
        name, part, root = _parted(where)
        found = _parts(name, part, root)
        for each in found:
            images = _opened(name, each, root)
            classes = [kind if isinstance(kind, str) else kind[0] for kind in getattr(images, "classes", ())]
            labels: Sequence[Any] | None = getattr(images, "targets", getattr(images, "labels", None))
            for index in range(len(images)):
                if _takes(name, "loader"):
                    file, label = images[index]
                else:
                    file = Path(root, f"{name}{_SUFFIX}", each or "all", str(index))
                    label = labels[index] if labels is not None else images[index][1]
                yield Row(
                    Path(file), _named(label, classes) if labelled else "", part=each if not part else ""
                )

    def read(self, file: Path, name: str, most: int) -> bytes:
        """As `Source.read`."""
        part, _, index = name.partition("/")
        images = _opened(file.name.removesuffix(_SUFFIX), "" if part == "all" else part, str(file.parent))
        if not index.isdecimal() or int(index) >= len(images):
            raise ValueError("there is no such image")
        content = BytesIO()
        images[int(index)][0].save(content, "PNG")
        if content.tell() > most:
            raise ValueError(f"larger than {most // 2**20} MiB")
        return content.getvalue()

    def stamp(self, file: Path) -> Stamp:
        """As `Source.stamp`."""
        return _stamp(file.parent)

    def rooted(self, where: str) -> str:
        """As `Source.rooted`."""
        name, colon, root = where.partition(":")
        return f"{name}{colon}{os.path.abspath(root)}"  # noqa: PTH100 (as a text)

    def folder(self, where: str) -> Path:
        """As `Source.folder`."""
        return Path(_parted(where)[2])

    def name(self, where: str) -> str:
        """As `Source.name`."""
        return where.partition(":")[0].replace("/", "-")


SOURCE = TorchVision()


def _parted(where: str) -> tuple[str, str, str]:
    """The name of the data set, the part of it that is asked for, and the root folder of the downloads."""
    name, _, root = where.partition(":")
    name, _, part = name.partition("/")
    if not name or not root:
        raise DataError(
            f"torchvision:{where} is not torchvision:NAME:ROOT, such as torchvision:CIFAR10:downloads, or "
            "torchvision:CIFAR10/test:downloads for a part."
        )
    return name, part, root


def _kind(name: str) -> Callable[..., Any]:
    """A class of torchvision's.

    Raises:
        UsageError: torchvision is not installed.
        DataError: it has no such class.
    """
    try:
        from torchvision import datasets
    except ImportError as error:
        raise UsageError("Its data sets need torchvision: pip install torchvision.") from error
    if name not in datasets.__all__ or not isinstance(found := getattr(datasets, name), type):
        raise DataError(f"torchvision has no data set {name!r}: see torchvision.datasets.")
    return found


def _takes(name: str, option: str) -> bool:
    return option in signature(_kind(name)).parameters


def _parts(name: str, part: str, root: str) -> list[str]:
    """The parts of a data set that are there, or the one that is asked for; an empty name where it has none.

    Raises:
        DataError: none is there.
    """
    if not _takes(name, "train") and not _takes(name, "split"):
        return [""]
    there, why = [], ""
    for each in [part] if part else ["train", "test"] if _takes(name, "train") else _PARTS:
        try:
            _opened(name, each, root)
        except ValueError:  # it does not call a part so
            continue
        except (OSError, RuntimeError) as error:
            why = str(error).partition(". ")[0]
        else:
            there.append(each)
    if not there:
        raise DataError(
            f"torchvision finds no {name}{f'/{part}' if part else ''} in {root}{f' ({why})' if why else ''}. "
            f"It downloads it there by torchvision.datasets.{name}({root!r}, download=True), where it can."
        )
    return there


@lru_cache(maxsize=4)
def _opened(name: str, part: str, root: str) -> Any:  # noqa: ANN401 (torchvision has no types)
    options: dict[str, Any] = {"loader": str} if _takes(name, "loader") else {}
    if part:
        options |= {"train": part == "train"} if _takes(name, "train") else {"split": part}
    return _kind(name)(root, **options)


def _named(label: Any, classes: Sequence[str]) -> str:  # noqa: ANN401 (a number or a tensor of one)
    if isinstance(label, str):
        return label
    number = int(label)
    return classes[number] if 0 <= number < len(classes) else str(number)


@lru_cache(maxsize=8)
def _stamp(root: Path) -> Stamp:
    """That of all files below a folder together."""
    sizes, *times = zip(*(file_stamp(file) for file in root.rglob("*") if file.is_file()), strict=True)
    return sum(sizes), max(times[0]), max(times[1])
