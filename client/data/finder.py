"""The one finder of files: which pictures there are below a folder, and which are left out, by reason."""

import os
import re
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import glob, has_magic
from operator import attrgetter
from pathlib import Path

from client.data.images import HEIC_MISSING, HEIC_SUFFIXES, suffixes
from client.errors import DataError, UsageError
from client.paths import absence, is_file, is_folder, is_there

HIDDEN = "hidden"
LINKED = "a link to what is taken already"
UNNAMED = "not an image by name"
NO_FILE = "not a file"
ELSEWHERE = "not where the layout says"
OF_TEST = "of the test split, which nothing is learnt from"
# What begins, or goes on, the reason of a file that is left out for another one.
COPY = "a copy of "
COPY_OF_ANOTHER_DOMAIN = f"{COPY}an image of another domain"
# Left out on purpose: nobody loses a picture by it.
_NO_LOSS = frozenset({HIDDEN, LINKED, UNNAMED, ELSEWHERE, OF_TEST})
# What programs leave beside pictures: a Mac's archives, a Synology's thumbnails.
_LITTER = frozenset({"__MACOSX", "@eaDir"})
# A character that would be a wildcard, as `glob.escape` writes it.
_ESCAPED = re.compile(r"\[([*?[])\]")
# Pictures that are named as such, and that nothing here reads.
_OTHER_PICTURES = frozenset({
    ".ai", ".arw", ".cr2", ".cr3", ".dcm", ".dng", ".eps", ".exr", ".hdr", ".ico", ".j2k", ".jp2",
    ".jxl", ".nef", ".orf", ".pbm", ".pgm", ".ppm", ".psd", ".raf", ".raw", ".rw2", ".svg", ".tga",
    ".xcf",
})  # fmt: skip


@dataclass(frozen=True)
class Skipped:
    """A file that is left out, and why.

    Attributes:
        path: the file.
        reason: in words.
        kind: the reason that it is counted under, where `reason` tells more; otherwise empty.
        domain: that it lies in; `None` outside every domain.
    """

    path: Path
    reason: str
    kind: str = ""
    domain: str | None = None

    @property
    def is_loss(self) -> bool:
        """Whether somebody may miss it: it is named as a picture, and neither hidden nor taken elsewhere."""
        return self.reason not in _NO_LOSS and COPY not in self.reason


@dataclass(frozen=True)
class FoundFiles:
    """The result of a search: pictures in order of their paths, what is left out, and the folders seen."""

    images: tuple[Path, ...]
    left_out: tuple[Skipped, ...]
    folders: tuple[Path, ...] = ()


def search(folder: Path) -> FoundFiles:
    """All files below a folder that are named as pictures.

    Hidden names are left out. Links are followed, once: what is there itself goes before links to it, and
    a link to a folder or a file that is taken already is left out.

    Raises:
        DataError: a folder cannot be read.
    """
    found = _Search()
    found.enter(str(folder), os.path.realpath(folder))
    return found.finished()


def find_images(word: str) -> FoundFiles:
    """The pictures that a path or a pattern such as `shots/**/*` means; folders are searched as by `search`.

    A file that is named itself is taken whatever its name.

    Raises:
        UsageError: nothing is there, a pattern matches folders alone, or the name is empty.
        DataError: a folder cannot be read.
    """
    require_name(word)
    path = Path(word)
    if is_folder(path):
        return search(path)
    if is_there(path):
        return FoundFiles((path,), ())
    found = _below(path) if "**" in path.parts else _matches(word)
    if not found.images and not found.left_out:
        if "**" not in path.parts and glob(word):  # noqa: PTH207 (absolute)
            raise UsageError(
                f"{path} matches only folders, and a pattern is for files: {path}/** for those in them."
            )
        raise UsageError(f"{path} {absence(path)}.")
    return found


def require_name(word: str) -> None:
    """Refuse an empty name, which `Path` takes for the working directory, and a shell has where a variable is
    not set.

    Raises:
        UsageError: it is empty.
    """
    if not word:
        raise UsageError("An empty name stands for no images: is a variable not set? The folder here is `.`.")


def counted(left_out: Iterable[Skipped]) -> dict[str, int]:
    """How many files are left out for each reason, the most frequent first."""
    return dict(Counter(file.kind or file.reason for file in left_out).most_common())


def described(by_reason: Mapping[str, int]) -> str:
    """The counts of `counted`, in words."""
    return ", ".join(f"{count} {reason}" for reason, count in by_reason.items())


class _Search:
    """A search in progress: what is a file or folder itself is taken first, links to others after it.

    Paths are strings until the end, and what a folder tells of its files is not asked of each again: a data
    set has hundreds of thousands.
    """

    def __init__(self) -> None:
        self._images: list[str] = []
        self._left_out: list[Skipped] = []
        self._folders: list[str] = []
        # By their real paths, so that nothing is taken twice under two names.
        self._entered: set[str] = set()
        self._taken: set[str] = set()
        self._links: deque[str] = deque()

    def enter(self, folder: str, real: str) -> None:
        """Search a folder, its links aside; `real` is its path without links."""
        waiting = [(folder, real)]
        while waiting:
            folder, real = waiting.pop()
            self._folders.append(folder)
            if real in self._entered:
                self._left_out.append(Skipped(Path(folder), LINKED))
                continue
            self._entered.add(real)
            below = real if real.endswith(os.sep) else real + os.sep
            for entry in _entries(folder):
                path = entry.path
                if _is_hidden(entry.name):
                    self._leave_out_hidden(entry)
                elif entry.is_symlink():
                    self._links.append(path)
                elif entry.is_dir():
                    waiting.append((path, below + entry.name))
                else:
                    self.take(path, below + entry.name, is_file=entry.is_file())

    def take(self, path: str, real: str, *, is_file: bool = False) -> None:
        """Take a file, if it is named as a picture and not taken already; `is_file` if it is known as one."""
        left_out = why_left_out(path, is_file)
        if left_out is None and real in self._taken:
            left_out = Skipped(Path(path), LINKED)
        if left_out is None:
            self._taken.add(real)
            self._images.append(path)
        else:
            self._left_out.append(left_out)

    def finished(self) -> FoundFiles:
        """Follow the links, those that are found on the way among them, and tell all."""
        while self._links:
            link = self._links.popleft()
            # Unlike `Path.resolve`, it takes a link to itself as it is.
            real = os.path.realpath(link)
            if is_folder(link):
                self.enter(link, real)
            else:
                self.take(link, real)
        return FoundFiles(
            tuple(map(Path, sorted(self._images, key=_by_parts))),
            tuple(sorted(self._left_out, key=lambda file: file.path)),
            tuple(map(Path, self._folders)),
        )

    def _leave_out_hidden(self, entry: os.DirEntry[str]) -> None:
        """Count the pictures that are hidden there; links are not followed."""
        files = [Path(entry.path)]
        if entry.is_dir(follow_symlinks=False):
            files = [Path(place) / name for place, _, names in os.walk(entry.path) for name in names]
        hidden = (file for file in files if file.suffix.lower() in suffixes())
        self._left_out += [Skipped(file, HIDDEN) for file in hidden]


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=attrgetter("name"))
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}.") from error


def _by_parts(path: str) -> str:
    """The key by which paths are compared part by part, as `Path` does it: no part has the lowest letter.

    Lists of parts take longer, the more there are: the garbage collector looks through all of them.
    """
    return os.path.normcase(path).replace(os.sep, "\0")


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _LITTER


def why_left_out(name: str, known: bool) -> Skipped | None:
    """Why a file is left out, unless it is named as a picture; `known` if it is known as a file."""
    # As `Path.suffix` has it but for names that begin with a dot, which no search takes.
    if known and os.path.splitext(name)[1].lower() in suffixes():  # noqa: PTH122 (as above)
        return None
    path = Path(name)
    suffix = path.suffix.lower()
    if suffix in suffixes():
        # A link to nowhere is taken, and found out when it is read; a pipe would never end.
        return Skipped(path, NO_FILE) if not is_file(path) and is_there(path) else None
    kind = f"unsupported format ({suffix})"
    if suffix in HEIC_SUFFIXES:
        return Skipped(path, HEIC_MISSING, kind)
    return Skipped(path, kind if suffix in _OTHER_PICTURES else UNNAMED)


def _matches(pattern: str) -> FoundFiles:
    """The files that a pattern without `**` matches; folders that it matches are not searched."""
    found = _Search()
    files = [path for path in map(Path, sorted(glob(pattern))) if not is_folder(path)]  # noqa: PTH207 (absolute)
    for path in sorted(files, key=os.path.islink):
        found.take(str(path), os.path.realpath(path))
    return found.finished()


def _below(pattern: Path) -> FoundFiles:
    """The files that a pattern with `**` matches: the folder before its first wildcard is searched."""
    parts = pattern.parts
    fixed = next(position for position, part in enumerate(parts) if has_magic(_ESCAPED.sub("", part)))
    base = Path(*(_ESCAPED.sub(r"\1", part) for part in parts[:fixed]))
    if not is_folder(base):
        return FoundFiles((), ())
    found = search(base)

    def is_meant(path: Path) -> bool:
        return _is_match(path.relative_to(base).parts, parts[fixed:])

    return FoundFiles(
        tuple(filter(is_meant, found.images)),
        tuple(file for file in found.left_out if is_meant(file.path)),
    )


def _is_match(names: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether the parts of a path are what the parts of a pattern say; `**` is any number of folders."""
    if not patterns:
        return not names
    if patterns[0] == "**":
        return len(patterns) == 1 or any(
            _is_match(names[start:], patterns[1:]) for start in range(len(names) + 1)
        )
    return bool(names) and fnmatchcase(names[0], patterns[0]) and _is_match(names[1:], patterns[1:])
