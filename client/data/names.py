"""Names of files, classes and domains: as disks spell them, and as sentences and prompts have them."""

import os
import unicodedata
from pathlib import Path

from client.data.members import stamp_of


def readable(name: str) -> str:
    """The name of a class or a domain as a sentence has it: with underscores as spaces."""
    return name.replace("_", " ")


def composed(name: str) -> str:
    """A name as one spelling of Unicode has it (NFC): a Mac writes "é" as two characters, others as one."""
    return unicodedata.normalize("NFC", name)


def shown(name: str | Path) -> str:
    """A name as text that can be written; of one that is not UTF-8, its bytes as Python escapes them."""
    return str(name).encode("utf-8", "backslashreplace").decode()


def is_unicode(name: str) -> bool:
    """Whether a name is UTF-8 on disk; Python gives other bytes as what no text holds."""
    return name.isascii() or shown(name) == name


def relative(path: Path, root: Path) -> str:
    """The path as it is shown: relative to the data folder, with `/`."""
    return shown(Path(os.path.relpath(path, root)).as_posix())


def parts_below(root: Path, path: Path) -> tuple[str, ...]:
    """The names that lead from the root to what was found below it; `Path.relative_to` takes far longer."""
    return path.parts[len(root.parts) :]


def size_of(image: Path) -> int | None:
    """The size of an image's file, or of that in which it lies, in bytes; `None` for a link to nowhere."""
    stamp = stamp_of(image)
    return None if stamp is None else stamp[0]
