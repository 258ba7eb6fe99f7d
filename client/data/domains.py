"""A folder of labelled images: ROOT/<domain>/<class>/<image>, as DomainBed lays it out."""

import hashlib
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from client.data.drawings import bundled_icons, drawing_of
from client.data.finder import UNNAMED, Skipped, counted, described, search
from client.data.images import (
    Pixels,
    UnreadableImage,
    decode_and_compare,
    decode_square,
    read_image,
    suffixes,
)
from client.data.views import ORIGINAL, View, encoded
from client.errors import DataError

CLASS_TEMPLATE = "a photo of a {}"
LOOSE_IN_ROOT = "loose in the root"
LOOSE_IN_DOMAIN = "loose in a domain"
_NOT_UTF8 = "its name is not UTF-8"


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

    Attributes:
        root: the folder.
        domains: names, composed (NFC) as those of classes are, however the disk spells them.
        classes: names.
        files: of each pair of a domain and a class, in folders below the class's as well.
        ignored: files that their names or places rule out.
        respelled: folders whose names the disk spells in another way.
        drawn: files whose names tell variants of one drawing, which `split` keeps together.
    """

    root: Path
    domains: tuple[str, ...]
    classes: tuple[str, ...]
    files: dict[tuple[str, str], tuple[Path, ...]]
    ignored: tuple[Skipped, ...]
    respelled: tuple[Path, ...] = ()
    drawn: tuple[Path, ...] = ()

    @cached_property
    def grouped(self) -> frozenset[Path]:
        """The same as `drawn`, to look files up in."""
        return frozenset(self.drawn)

    def count(self, domain: str) -> int:
        """How many image files a domain has, readable or not."""
        return sum(len(paths) for (name, _), paths in self.files.items() if name == domain)

    def ignored_in(self, domains: Collection[str]) -> list[Skipped]:
        """The files in these domains that their names or places rule out."""
        return [file for file in self.ignored if file.domain in domains]

    def ignored_outside(self, target: str) -> list[Skipped]:
        """The same everywhere but in the domain that is held out."""
        return [file for file in self.ignored if file.domain != target]

    @property
    def deeper(self) -> int:
        """How many image files lie in a folder below their class's."""
        return sum(len(self._parts(path)) > 3 for paths in self.files.values() for path in paths)

    def _parts(self, path: Path) -> tuple[str, ...]:
        return _parts_below(self.root, path)

    def digest(self) -> str:
        """A SHA-256 (hex) of the names and sizes of all image files, none of which is opened."""
        digest = hashlib.sha256()
        for (domain, name), paths in sorted(self.files.items()):
            files = [(os.fsencode("/".join(self._parts(path)[2:])), _size(path)) for path in paths]
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
                f"{self.root} has no image in the domain {empty[0]!r} (accepted: {_accepted()}). "
                "Add some, or move the folder elsewhere."
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
            (path, domain, self.classes.index(name), path in self.grouped)
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


def list_folder(root: Path, *, group_by_name: bool = False) -> ImageFolder:
    """List the domains, classes and image files below `root`, without opening an image.

    Files that are not images by name, hidden, outside every class, or whose name is not UTF-8, are listed as
    ignored. See `search` for how files are found.

    Args:
        root: the folder.
        group_by_name: whether files named `<set>__<name>` may be variants of one drawing; those of the
            bundled icons are, in any case.

    Raises:
        DataError: the folder is missing, cannot be read, is not laid out as ROOT/<domain>/<class>/<image>,
            or has a folder whose name is not UTF-8.
    """
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"{root} {what}. --data takes a folder laid out as ROOT/<domain>/<class>/<image>.")
    found = search(root)
    files: dict[tuple[str, str], list[Path]] = {}
    respelled = []
    for folder in found.folders:
        parts = _parts_below(root, folder)
        if 1 <= len(parts) <= 2:
            respelled += [folder] if _name_of(folder) != folder.name else []
        if len(parts) == 2:
            files.setdefault((composed(parts[0]), composed(parts[1])), [])
    ignored = list(_placed(root, found.left_out))
    for path in found.images:
        parts = _parts_below(root, path)
        if reason := _why_ignored(parts):
            ignored.append(_in_domain(root, Skipped(path, reason)))
        else:
            files[composed(parts[0]), composed(parts[1])].append(path)
    if not any(files.values()):
        raise DataError(_no_images(root, ignored))
    return ImageFolder(
        root=root,
        domains=tuple(sorted({domain for domain, _ in files})),
        classes=tuple(sorted({name for _, name in files})),
        files={pair: tuple(paths) for pair, paths in sorted(files.items())},
        ignored=tuple(ignored),
        respelled=tuple(respelled),
        drawn=found.images if group_by_name else _icons(root, found.images),
    )


def composed(name: str) -> str:
    """A name as one spelling of Unicode has it (NFC): a Mac writes "é" as two characters, others as one."""
    return unicodedata.normalize("NFC", name)


def _name_of(folder: Path) -> str:
    if not _is_unicode(folder.name):
        raise DataError(f"The name of {shown(folder)} is not UTF-8. Rename the folder.")
    return composed(folder.name)


def _parts_below(root: Path, path: Path) -> tuple[str, ...]:
    """The names that lead from the root to what was found below it; `Path.relative_to` takes far longer."""
    return path.parts[len(root.parts) :]


def _icons(root: Path, images: Sequence[Path]) -> tuple[Path, ...]:
    """Those of the images that are bundled icons."""
    names = bundled_icons(root)
    return tuple(path for path in images if "/".join(_parts_below(root, path)) in names) if names else ()


def _why_ignored(parts: Sequence[str]) -> str | None:
    """Why a file below the root is no image of a class, by the parts of its path."""
    if not _is_unicode("/".join(parts)):
        return _NOT_UTF8
    return {1: LOOSE_IN_ROOT, 2: LOOSE_IN_DOMAIN}.get(len(parts))


def _placed(root: Path, left_out: Iterable[Skipped]) -> Iterator[Skipped]:
    """With their domains; what is not named as an image and lies in no class, as a read-me does, goes."""
    for file in left_out:
        if file.reason != UNNAMED or len(_parts_below(root, file.path)) > 2:
            yield _in_domain(root, file)


def _in_domain(root: Path, file: Skipped) -> Skipped:
    parts = _parts_below(root, file.path)
    return replace(file, domain=composed(parts[0])) if len(parts) > 1 else file


def _no_images(root: Path, ignored: Sequence[Skipped]) -> str:
    """What to say of a folder without an image in a class."""
    left_out = described(counted(ignored))
    return (
        f"{root} holds no images in ROOT/<domain>/<class>/ (accepted: {_accepted()}). "
        f"{left_out and f'Left out: {left_out}. '}Is it the right folder, or one level too high or too low?"
    )


def _accepted() -> str:
    return ", ".join(sorted(suffixes()))


def _is_unicode(name: str) -> bool:
    """Whether a name is UTF-8 on disk; Python gives other bytes as what no text holds."""
    return name.isascii() or shown(name) == name


def _size(file: Path) -> int | None:
    """In bytes; `None` for a link to nowhere."""
    try:
        return file.stat().st_size
    except OSError:
        return None


def _read_example(path: Path, domain: str, label: int, grouped: bool) -> Example | Skipped:
    try:
        content = read_image(path)
        pixels, alike = decode_and_compare(content)
    except UnreadableImage as error:
        return Skipped(path, str(error), error.kind, domain)
    file = hashlib.sha256(content).hexdigest()
    digest = file if alike else hashlib.sha256(encoded(pixels)).hexdigest()
    drawing = drawing_of(path.stem) if grouped else None
    return Example(path, domain, label, digest, drawing or file, min(pixels.shape[:2]))


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
    return [CLASS_TEMPLATE.format(readable(name)) for name in classes]


def readable(name: str) -> str:
    """The name of a class or a domain as a sentence has it: with underscores as spaces."""
    return name.replace("_", " ")


def relative(path: Path, root: Path) -> str:
    """The path as it is shown: relative to the data folder, with `/`."""
    return shown(Path(os.path.relpath(path, root)).as_posix())


def shown(name: str | Path) -> str:
    """A name as text that can be written; of one that is not UTF-8, its bytes as Python escapes them."""
    return str(name).encode("utf-8", "backslashreplace").decode()
