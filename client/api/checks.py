"""Refusals before anything is written or bought."""

from pathlib import Path

from client.data.listing import CLASSES_SUFFIX
from client.errors import UsageError
from client.options.training import DEFAULT_DATA
from client.paths import absence, is_file, is_there, resolved


def require_outside(out: Path, data: Path) -> None:
    """Refuse to write into the image folder.

    Raises:
        UsageError: `out` lies there.
    """
    if resolved(out).is_relative_to(resolved(data)):
        raise UsageError(
            f"{out} lies inside --data {data}, where folders are domains: the next command would take it for "
            "one. Choose an --out elsewhere."
        )


def require_named(data: Path, *, how: str = "with --data") -> None:
    """Refuse the default folder of labelled images where it has nothing in it.

    Args:
        data: the labelled images.
        how: how others are named.

    Raises:
        UsageError: they are the default ones, and there are none.
    """
    if data != DEFAULT_DATA:
        return
    try:
        if any(data.iterdir()):
            return
        what = "is empty"
    except FileNotFoundError:
        what = "does not exist"
    except OSError:
        return  # whoever reads it says what is wrong
    raise UsageError(
        f"No labelled images were named, and the folder ./{data} {what}. Name yours {how}, with "
        "TUITION_DATA, or as `data` in tuition.toml (`client init` writes one), or put them into "
        f"./{data}. `client data example icons` unpacks bundled icons to try."
    )


def require_class_names(classes: Path | None) -> None:
    """Refuse what is no text file where the names of classes are to be read.

    Raises:
        UsageError: it is given, and is no such file.
    """
    if classes is not None and not (is_file(classes) and classes.suffix.lower() == CLASSES_SUFFIX):
        what = f"is no {CLASSES_SUFFIX} file" if is_there(classes) else absence(classes)
        raise UsageError(
            f"{classes} {what}. --classes takes a {CLASSES_SUFFIX} file of class names, one per line."
        )
