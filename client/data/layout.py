"""The layout of an image folder: which folders on the way to a picture are its domain and its class."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from client.data.names import composed
from client.errors import DataError, UsageError

_DOMAIN, _CLASS = "domain", "class"
_CLASSES_SHOWN = 4


@dataclass(frozen=True)
class Layout:
    """A layout, folder by folder: "domain", "class", or the name of a folder that all lie in (or `*`)."""

    parts: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> "Layout":
        """A layout as it is typed: `class`, `domain/class`, or with names between, `domain/full/class`.

        Raises:
            UsageError: it is none.
        """
        parts = tuple(text.strip("/").split("/"))
        if parts.count(_CLASS) != 1 or parts.count(_DOMAIN) > 1 or not all(parts) or parts[-1] != _CLASS:
            raise UsageError(
                f"--layout {text!r} is not a layout. It says which folder is what: `class` for "
                "ROOT/<class>/<image>, `domain/class` for ROOT/<domain>/<class>/<image>, or with names of "
                "folders that pictures lie in besides, `kfold/domain/class`."
            )
        return cls(parts)

    def __str__(self) -> str:
        return "/".join(self.parts)

    @property
    def depth(self) -> int:
        """How many folders there are above a class's pictures, the root aside."""
        return len(self.parts)

    @property
    def has_domains(self) -> bool:
        """Whether it tells domains."""
        return _DOMAIN in self.parts

    def takes(self, names: Sequence[str]) -> bool:
        """Whether a path below the root goes by the folders that the layout names, as far as it goes."""
        return all(
            part in (_DOMAIN, _CLASS) or fnmatchcase(name, part)
            for part, name in zip(self.parts, names, strict=False)
        )

    def domain_of(self, names: Sequence[str]) -> str | None:
        """The domain by the folders of a path below the root; `None` where none is told."""
        if _DOMAIN not in self.parts or len(names) <= (place := self.parts.index(_DOMAIN)):
            return None
        return composed(names[place])

    def class_of(self, names: Sequence[str]) -> str:
        """The class by the folders of a path below the root, of which there are enough."""
        return composed(names[self.depth - 1])


CLASSES, DOMAINS = Layout((_CLASS,)), Layout((_DOMAIN, _CLASS))


def layout_of(root: Path, images: Sequence[tuple[str, ...]]) -> Layout:
    """The layout of a folder by the paths of its images below it, each as its parts.

    It has domains, unless all images lie in a folder of the root and none lies deeper.

    Raises:
        DataError: it can be read in two ways that train different things; the message shows both.
    """
    deepest = max(map(len, images), default=0)
    if deepest <= 2:
        return CLASSES if deepest == 2 else DOMAINS
    placed = [names for names in images if len(names) > 1]
    loose = Counter(names[0] for names in placed if len(names) == 2)
    classed = Counter(names[0] for names in placed if len(names) > 2)
    folders = loose.keys() | classed.keys()
    are_classes = (
        2 * loose.total() > len(placed) or loose.keys() - classed.keys() or 2 * len(loose) > len(folders)
    )
    if loose and are_classes:
        raise _two_readings(root, images, CLASSES, DOMAINS)
    is_wrapped = len(folders) == 1 and all(len(names) > 3 for names in placed)
    if is_wrapped:
        raise _two_readings(root, images, DOMAINS, Layout((*folders, *DOMAINS.parts)))
    return DOMAINS


def _two_readings(root: Path, images: Sequence[tuple[str, ...]], first: Layout, second: Layout) -> DataError:
    return DataError(
        f"{root} can be read in two ways, and a student would learn other classes by each. Nothing is "
        f"bought. {described(first, images)}. {described(second, images)}. Say which with --layout."
    )


def described(layout: Layout, images: Iterable[tuple[str, ...]]) -> str:
    """What a layout makes of images, in words."""
    images = list(images)
    taken = [names for names in images if len(names) > layout.depth and layout.takes(names)]
    classes = sorted({layout.class_of(names) for names in taken})
    domains = {layout.domain_of(names) for names in taken} - {None}
    more = f" and {len(classes) - _CLASSES_SHOWN} more" if len(classes) > _CLASSES_SHOWN else ""
    told = [f"{len(classes)} classes ({', '.join(classes[:_CLASSES_SHOWN])}{more})"]
    if domains:
        told.insert(0, f"{len(domains)} domains")
    rest = f", and {len(images) - len(taken)} left out" if len(images) > len(taken) else ""
    return f"--layout {layout}: {', '.join(told)}, {len(taken)} images{rest}"
