"""A folder of labelled images: ROOT/<domain>/<class>/<image>, as DomainBed lays it out."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from client.data.images import (
    SUFFIXES,
    Pixels,
    UnreadableImage,
    decode_and_compare,
    decode_square,
    read_image,
)
from client.data.views import ORIGINAL, View, encoded
from client.errors import DataError

# What tells one variant of a drawing from another in icon names ("bell", "bell-filled", "bell-small").
_VARIANTS = frozenset({"filled", "fill", "solid", "outline", "line", "bold", "sharp", "small", "flat", "alt"})

_ACCEPTED = ", ".join(sorted(SUFFIXES))


@dataclass(frozen=True)
class Skipped:
    """A file that is left out, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Example:
    """One labelled image that was read whole and decodes, or a further view of one.

    `digest` is the SHA-256 (hex) of `content()`; `drawing` names what it shares with variants of itself, and
    is the file's SHA-256 where nothing does, so that no split hangs on how Pillow encodes; `side` is the
    shorter side of the file's image in pixels.
    """

    path: Path
    domain: str
    label: int
    digest: str
    drawing: str
    side: int
    view: View = ORIGINAL

    def content(self) -> bytes:
        """What is sent: the bytes of the file, or what else the view makes of it (see `View.encode`).

        Raises:
            UnreadableImage: the file has changed since it was read, and is no longer an image.
        """
        file = read_image(self.path)
        return file if hashlib.sha256(file).hexdigest() == self.digest else self.view.encode(file)

    def square(self, side: int) -> tuple[Pixels, float]:
        """What the student sees of it, as `decode_square` gives it.

        Raises:
            UnreadableImage: as `content`.
        """
        file = read_image(self.path)
        return decode_square(self.view.encode(file) if self.view.index else file, side)

    def seen_as(self, view: View) -> "Example":
        """A further view of this image, with a digest of its own."""
        digest = hashlib.sha256(view.encode(read_image(self.path))).hexdigest()
        return replace(self, digest=digest, view=view)


@dataclass(frozen=True)
class ImageFolder:
    """The names of an image folder: its domains and classes, sorted, and the files of each pair.

    Listing reads names only; `read` opens the files of the domains that it is asked for and no others,
    which is how the target domain stays unread until evaluation.
    """

    root: Path
    domains: tuple[str, ...]
    classes: tuple[str, ...]
    files: dict[tuple[str, str], tuple[Path, ...]]
    ignored: tuple[Skipped, ...]

    def count(self, domain: str) -> int:
        """How many image files a domain has, readable or not."""
        return sum(len(paths) for (name, _), paths in self.files.items() if name == domain)

    def ignored_in(self, domains: Collection[str]) -> list[Skipped]:
        """The files in class folders of these domains that their names rule out."""
        return [file for file in self.ignored if file.path.parts[-3] in domains]

    def digest(self) -> str:
        """A SHA-256 (hex) of the names and sizes of all image files, none of which is opened."""
        digest = hashlib.sha256()
        for (domain, name), paths in sorted(self.files.items()):
            files = [(os.fsencode(path.name), _size(path)) for path in paths]
            digest.update(repr((domain, name, files)).encode())
        return digest.hexdigest()

    def require_domains(self, names: Iterable[str]) -> None:
        """Check that these domains exist.

        Raises:
            DataError: one does not; the message names those that do.
        """
        for name in names:
            if name not in self.domains:
                raise DataError(
                    f"{self.root} has no domain named {name!r}. It has: {', '.join(self.domains)}."
                )

    def source_domains(self, target: str) -> tuple[str, ...]:
        """The domains to train on when `target` is held out.

        Raises:
            DataError: the target does not exist, a domain has no image by name, nothing is left to train on,
                or a class lacks a folder.
        """
        self.require_domains([target])
        if len(self.domains) < 2:
            raise DataError(
                f"{self.root} has one domain only ({target}). Holding one out needs at least one more: "
                f"put the images in {self.root}/<domain>/<class>/, a domain for each style, camera or season."
            )
        self._require_complete()
        if empty := [name for name in self.domains if not self.count(name)]:
            raise DataError(
                f"{self.root} has no image in the domain {empty[0]!r} (accepted: {_ACCEPTED}). Add some, or "
                "move the folder elsewhere."
            )
        return tuple(name for name in self.domains if name != target)

    def _require_complete(self) -> None:
        gaps = [
            f"{domain}/{name}"
            for domain in self.domains
            for name in self.classes
            if (domain, name) not in self.files
        ]
        if gaps:
            more = f" and {len(gaps) - 5} more" if len(gaps) > 5 else ""
            raise DataError(
                f"{self.root} lacks the class folders {', '.join(gaps[:5])}{more}. Every domain must have "
                "the same classes, spelled alike; where one has no image of a class, leave its folder empty."
            )

    def read(
        self, domains: Iterable[str], on_read: Callable[[int], None] = lambda _: None
    ) -> tuple[list[Example], list[Skipped]]:
        """Read, hash and decode every image of these domains, in a fixed order.

        `on_read` is called with the number of files done. Files that are not whole images are returned as
        skipped; they are never fatal.
        """
        files = [
            (path, domain, self.classes.index(name))
            for (domain, name), paths in sorted(self.files.items())
            if domain in set(domains)
            for path in paths
        ]
        examples: list[Example] = []
        skipped: list[Skipped] = []
        with ThreadPoolExecutor() as pool:
            for done, outcome in enumerate(pool.map(lambda file: _read_example(*file), files), start=1):
                if isinstance(outcome, Skipped):
                    skipped.append(outcome)
                else:
                    examples.append(outcome)
                on_read(done)
        return examples, skipped


def list_folder(root: Path) -> ImageFolder:
    """List the domains, classes and image files below `root`, without opening a file.

    Hidden names are passed over. Other files that are not images by name, or whose name is not UTF-8, are
    listed as ignored.

    Raises:
        DataError: the folder is missing, cannot be read, is not laid out as ROOT/<domain>/<class>/<image>,
            or has a folder whose name is not UTF-8.
    """
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"{root} {what}. --data takes a folder laid out as ROOT/<domain>/<class>/<image>.")
    files: dict[tuple[str, str], tuple[Path, ...]] = {}
    ignored: list[Skipped] = []
    for domain in _folders(root):
        for class_folder in _folders(domain):
            images, others = _image_files(class_folder)
            files[domain.name, class_folder.name] = images
            ignored += others
    if not any(files.values()):
        raise DataError(
            f"{root} holds no images in ROOT/<domain>/<class>/ (accepted: {_ACCEPTED}). "
            "Is it the right folder, or one level too high or too low?"
        )
    return ImageFolder(
        root=root,
        domains=tuple(sorted({domain for domain, _ in files})),
        classes=tuple(sorted({name for _, name in files})),
        files=files,
        ignored=tuple(ignored),
    )


def _folders(folder: Path) -> list[Path]:
    folders = [entry for entry in _entries(folder) if entry.is_dir()]
    for each in folders:
        if not _is_unicode(each.name):
            raise DataError(f"The name of {shown(each)} is not UTF-8. Rename the folder.")
    return folders


def _image_files(folder: Path) -> tuple[tuple[Path, ...], list[Skipped]]:
    reasons = {entry: _why_ignored(entry) for entry in _entries(folder) if not entry.is_dir()}
    images = tuple(entry for entry, reason in reasons.items() if reason is None)
    return images, [Skipped(entry, reason) for entry, reason in reasons.items() if reason is not None]


def _why_ignored(path: Path) -> str | None:
    if path.suffix.lower() not in SUFFIXES:
        return "not an image by name"
    return None if _is_unicode(path.name) else "its name is not UTF-8"


def _is_unicode(name: str) -> bool:
    """Whether a name is UTF-8 on disk; Python gives other bytes as what no text holds."""
    return shown(name) == name


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}.") from error


def _size(file: Path) -> int | None:
    """In bytes; `None` for a link to nowhere."""
    try:
        return file.stat().st_size
    except OSError:
        return None


def _read_example(path: Path, domain: str, label: int) -> Example | Skipped:
    try:
        content = read_image(path)
        pixels, alike = decode_and_compare(content)
    except UnreadableImage as error:
        return Skipped(path, str(error))
    file = hashlib.sha256(content).hexdigest()
    digest = file if alike else hashlib.sha256(encoded(pixels)).hexdigest()
    return Example(path, domain, label, digest, drawing_of(path.stem) or file, min(pixels.shape[:2]))


def drawing_of(stem: str) -> str | None:
    """What variants of one drawing share, for files named `<set>__<name>`; `None` for any other name.

    "fluent-emoji-flat__pouting-cat" and "fluent-emoji__pouting-cat" are one drawing, and so are
    "pixel__bell" and "pixel__bell-solid". A number of one or two digits tells variants apart; a longer one
    tells photographs apart ("train__dog-0001").
    """
    family, separator, name = stem.partition("__")
    if not separator:
        return None
    words = [
        word
        for word in name.lower().split("-")
        if word not in _VARIANTS and not (word.isdigit() and len(word) <= 2)
    ]
    return f"{family.removesuffix('-flat')}__{'-'.join(sorted(words)) or name}"


def split(examples: Sequence[Example], *, holdout: float, seed: int) -> tuple[list[int], list[int]]:
    """Positions to train on and positions held out for selection: a share `holdout` of each domain.

    Variants of one drawing, and files with the same bytes, stay on one side, in whatever domain they are,
    or in-domain accuracy would be flattered. The same seed gives the same split, and a domain is split alike
    whichever others stand beside it (but for drawings that they share): over all targets, an image that no
    run trains on need not be bought.

    Raises:
        DataError: a domain has too few images to hold any out.
    """
    groups = _groups(examples)
    order = sorted(groups, key=lambda group: hashlib.sha256(f"split:{seed}:{group}".encode()).digest())
    wanted = {name: holdout * n for name, n in Counter(e.domain for e in examples).items()}
    held: list[int] = []
    for group in order:
        inside = Counter(examples[i].domain for i in groups[group])
        if all(wanted[name] >= n / 2 for name, n in inside.items()):
            held += groups[group]
            wanted = {name: left - inside[name] for name, left in wanted.items()}
    train = sorted(set(range(len(examples))) - set(held))
    for name in wanted:
        sides = [any(examples[i].domain == name for i in side) for side in (train, held)]
        if not all(sides):
            raise DataError(f"The domain {name!r} has too few images to train on some and hold some out.")
    return train, sorted(held)


def _groups(examples: Sequence[Example]) -> dict[str, list[int]]:
    """Positions by drawing, drawings that share a file's bytes merged (union-find over drawing names)."""
    parent: dict[str, str] = {}

    def find(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    by_digest: dict[str, str] = {}
    for example in examples:
        first = by_digest.setdefault(example.digest, example.drawing)
        parent[find(example.drawing)] = find(first)
    groups: dict[str, list[int]] = defaultdict(list)
    for position, example in enumerate(examples):
        groups[find(example.drawing)].append(position)
    return groups


def class_prompts(classes: Iterable[str]) -> list[str]:
    """ "a photo of a {class}" with underscores as spaces: the paper's only prompt (section 4)."""
    return [f"a photo of a {name.replace('_', ' ')}" for name in classes]


def relative(path: Path, root: Path) -> str:
    """The path as it is shown: relative to the data folder, with `/`."""
    return shown(Path(os.path.relpath(path, root)).as_posix())


def shown(name: str | Path) -> str:
    """A name as text that can be written; of one that is not UTF-8, its bytes as Python escapes them."""
    return str(name).encode("utf-8", "backslashreplace").decode()
