"""Paths that users name, where the system may refuse to look; and text files replaced whole.

In Python 3.11 `Path.is_file` and its like raise where a name is too long, or a folder above may not be
entered, and `Path.resolve` where a link leads to itself.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def is_file(path: str | Path) -> bool:
    """Whether a file is there, as far as the system says; links are followed."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: str | Path) -> bool:
    """Whether a folder is there, as far as the system says; links are followed."""
    return os.path.isdir(path)  # noqa: PTH112


def is_there(path: str | Path) -> bool:
    """Whether anything is there, as far as the system says; links are followed."""
    return os.path.exists(path)  # noqa: PTH110


def obstacle(file: Path) -> str | None:
    """Why no file can be made at a path, in words, as far as the system says; `None` where one can."""
    if not is_folder(file.parent):
        return f"there is no folder {file.parent}"
    if is_folder(file):
        return f"{file} is a folder"
    if not os.access(file.parent, os.W_OK | os.X_OK):  # its mount may be read-only
        return f"no file can be made in the folder {file.parent}"
    return None


def absence(path: Path) -> str:
    """Why nothing is found at a path, in words that follow its name."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # no name has a null character in it
        return "does not exist"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "does not exist"  # it does by now


def resolved(path: Path) -> Path:
    """The path from the root, without links; one that leads to itself stays as it is."""
    return Path(os.path.realpath(path))


def rooted(path: Path) -> Path:
    """The path from the root, without links to folders. A link to a file stays.

    The name of a table tells its format, and its folder is where its relative paths begin: those of the file
    that it leads to, in a store of data say, tell something else.
    """
    return resolved(path.parent) / path.name if is_file(path) else resolved(path)


def discard(part: Path) -> None:
    """Delete what was written of a file, as far as possible: an error here would hide the one before."""
    with suppress(OSError):
        part.unlink(missing_ok=True)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file beside `path` to write, which takes its place if the block ends well, and is gone otherwise.

    What had its name before goes: it may be a link that somebody put there.

    Raises:
        OSError: it cannot be put there.
    """
    part = path.with_name(f"{path.name}.part")
    discard(part)
    try:
        yield part
        part.replace(path)
    finally:
        discard(part)


def replace_text(path: Path, text: str) -> None:
    """Replace a text file whole, or leave it as it is; what no UTF-8 holds, as some paths, becomes escapes.

    Of a link, the file that it leads to is replaced. What is no file, as a pipe, is written to.

    Raises:
        OSError: it cannot be written (a full disk, say).
    """
    if is_there(path) and not is_file(path):
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
        return
    with whole_file(resolved(path)) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")
