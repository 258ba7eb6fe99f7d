"""The inspection of an image folder: its contents, and the faults that would spoil an evaluation."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from client.data.domains import ImageFolder
from client.data.drawings import drawing_of
from client.data.finder import Skipped, counted
from client.data.images import UnreadableImage, decode, read_image
from client.data.manifests import Manifest, recognise
from client.data.names import relative
from client.data.splits import never_parted


@dataclass(frozen=True)
class InspectedImage:
    """A readable file, and the SHA-256 (hex) of its pixels: files that are encoded otherwise share it."""

    path: Path
    domain: str
    label: str
    digest: str


@dataclass(frozen=True)
class Inspection:
    """The contents of an image folder, and its faults; every file has been opened.

    Attributes:
        folder: what was inspected.
        counts: readable images of each (domain, class), classes without any included.
        unreadable: files named as images that are not whole images.
        alike_by_name: how many files have the name of a drawing of which there are several, and are not
            kept together, as `group_by_name` keeps them.
        leaks: files with the same pixels in different domains, a group each: what is held out is trained on.
        ambiguous: files with the same pixels in different classes.
        repeats: how many further copies of a picture there are within one class of one domain, where all of
            them stay on one side of a split.
        parted: files with the same pixels within one class of one domain that a split may part.
        known: the data set that the folder seems to be a copy of.
        differences: in what it is not a whole copy of that.
    """

    folder: ImageFolder
    counts: dict[tuple[str, str], int]
    unreadable: list[Skipped]
    alike_by_name: int
    leaks: list[list[Path]]
    ambiguous: list[list[Path]]
    repeats: int
    parted: list[list[Path]]
    known: Manifest | None
    differences: list[str]

    @property
    def gaps(self) -> list[tuple[str, str]]:
        """Pairs of a domain and a class that have no folder, though the class has one elsewhere."""
        if self.folder.depth < 2:
            return []
        return [pair for pair in self.counts if pair not in self.folder.files]

    @property
    def misplaced(self) -> list[Skipped]:
        """Pictures that are left out, unopened, though somebody may miss them."""
        return [file for file in self.folder.ignored if file.is_loss]

    @property
    def left_out(self) -> dict[str, int]:
        """How many files are left out, by reason."""
        return counted([*self.folder.ignored, *self.unreadable])

    @property
    def is_sound(self) -> bool:
        """Whether nothing was found that distorts a result; repeats and files that are no images do not."""
        return not (
            self.unreadable
            or self.misplaced
            or self.leaks
            or self.ambiguous
            or self.parted
            or self.gaps
            or len(self.folder.classes) < 2
            or self.differences
        )

    def by_class(self, domain: str) -> list[int]:
        """Readable images of each class in a domain."""
        return [count for (name, _), count in self.counts.items() if name == domain]

    def to_json(self) -> dict[str, Any]:
        """The findings as `json.dumps` takes them; files are named below the folder."""
        root = self.folder.root

        def name(path: Path) -> str:
            return relative(path, root)

        return {
            "sound": self.is_sound,
            "classes": list(self.folder.classes),
            "images": {
                domain: {label: self.counts[domain, label] for label in self.folder.classes}
                for domain in self.folder.domains
            },
            "missing_folders": [f"{domain}/{label}" for domain, label in self.gaps],
            "unreadable": [{"path": name(s.path), "reason": s.reason} for s in self.unreadable],
            "ignored": [{"path": name(s.path), "reason": s.reason} for s in self.folder.ignored],
            "left_out": self.left_out,
            "in_deeper_folders": self.folder.deeper,
            "respelled": [name(path) for path in self.folder.respelled],
            "alike_by_name": self.alike_by_name,
            "in_several_domains": [[name(path) for path in group] for group in self.leaks],
            "in_several_classes": [[name(path) for path in group] for group in self.ambiguous],
            "may_be_parted": [[name(path) for path in group] for group in self.parted],
            "repeats": self.repeats,
            "known_as": self.known.name if self.known else None,
            "differences": self.differences,
        }


def inspect(folder: ImageFolder, on_read: Callable[[int], None] = lambda _: None) -> Inspection:
    """Open and decode every image of a folder; `on_read` is called with the number of files done."""
    files = [(path, *pair) for pair, paths in sorted(folder.files.items()) for path in paths]
    pictures: list[InspectedImage] = []
    unreadable: list[Skipped] = []
    with ThreadPoolExecutor() as pool:
        for done, outcome in enumerate(pool.map(lambda file: _look_at(*file), files), start=1):
            if isinstance(outcome, Skipped):
                unreadable.append(outcome)
            else:
                pictures.append(outcome)
            on_read(done)
    found = Counter((picture.domain, picture.label) for picture in pictures)
    copies = _copies(pictures)
    together, parted = _by_split(folder, copies)
    known = recognise(folder)
    return Inspection(
        folder=folder,
        counts={pair: found[pair] for pair in _pairs(folder)},
        unreadable=unreadable,
        alike_by_name=_alike_by_name(folder),
        leaks=[_paths(group) for group in copies if len({p.domain for p in group}) > 1],
        ambiguous=[_paths(group) for group in copies if len({p.label for p in group}) > 1],
        repeats=sum(len(group) - 1 for group in together),
        parted=parted,
        known=known,
        differences=known.differences(folder) if known else [],
    )


def _look_at(path: Path, domain: str, label: str) -> InspectedImage | Skipped:
    try:
        pixels = decode(read_image(path))
    except UnreadableImage as error:
        return Skipped(path, str(error), error.kind, domain)
    digest = hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()
    return InspectedImage(path, domain, label, digest)


def _alike_by_name(folder: ImageFolder) -> int:
    drawings = Counter(
        drawing_of(path.stem)
        for paths in folder.files.values()
        for path in paths
        if path not in folder.grouped
    )
    return sum(count for drawing, count in drawings.items() if drawing and count > 1)


def _copies(pictures: Iterable[InspectedImage]) -> list[list[InspectedImage]]:
    """Pictures that there are more than one of."""
    groups: dict[str, list[InspectedImage]] = defaultdict(list)
    for picture in pictures:
        groups[picture.digest].append(picture)
    return [group for group in groups.values() if len(group) > 1]


def _by_split(
    folder: ImageFolder, copies: Sequence[Sequence[InspectedImage]]
) -> tuple[list[list[Path]], list[list[Path]]]:
    """Copies within one class of one domain: groups that stay on one side of a split, and those that may not.

    A split knows files by their bytes, by what is sent of them, and by what is told of them.
    """
    copied = {picture.path for group in copies for picture in group}
    files = {pair: tuple(p for p in paths if p in copied) for pair, paths in folder.files.items()}
    examples, _ = replace(folder, files=files).read(folder.domains)
    keys = never_parted(examples, fixed_splits=folder.splits)
    key_of = {example.path: key for example, key in zip(examples, keys, strict=True)}
    together: list[list[Path]] = []
    parted: list[list[Path]] = []
    for group in copies:
        within: dict[tuple[str, str], list[Path]] = defaultdict(list)
        for picture in group:
            within[picture.domain, picture.label].append(picture.path)
        for paths in within.values():
            if len(paths) > 1:
                (together if len({key_of.get(path) for path in paths}) == 1 else parted).append(paths)
    return together, parted


def _pairs(folder: ImageFolder) -> list[tuple[str, str]]:
    return [(domain, name) for domain in folder.domains for name in folder.classes]


def _paths(group: Iterable[InspectedImage]) -> list[Path]:
    return [picture.path for picture in group]
