"""The data sets of the domain generalisation literature: what a whole copy of each holds."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from client.data.domains import ImageFolder
from client.data.layout import Layout
from client.errors import DataError

_OFFICE_HOME_CLASSES = (
    "Alarm_Clock Backpack Batteries Bed Bike Bottle Bucket Calculator Calendar Candles Chair Clipboards "
    "Computer Couch Curtains Desk_Lamp Drill Eraser Exit_Sign Fan File_Cabinet Flipflops Flowers Folder Fork "
    "Glasses Hammer Helmet Kettle Keyboard Knives Lamp_Shade Laptop Marker Monitor Mop Mouse Mug Notebook "
    "Oven Pan Paper_Clip Pen Pencil Postit_Notes Printer Push_Pin Radio Refrigerator Ruler Scissors "
    "Screwdriver Shelf Sink Sneakers Soda Speaker Spoon TV Table Telephone ToothBrush Toys Trash_Can Webcam"
)
# What RISE's released code says of pictures where the names of domains say nothing.
PHOTO_STYLES = ("bright photo", "corrupted photo", "dark photo", "good photo")


# The folder of all of Caltech's camera traps' pictures, as `_plain` has it.
_RAW_TERRA = "eccv18allimagessm"


@dataclass(frozen=True)
class Manifest:
    """A data set: how many images each domain has, and its classes.

    Attributes:
        name: as papers write it.
        folder: as DomainBed names its folder.
        images: how many each domain has.
        classes: how many there are.
        class_names: their names, where they are few enough to be written down here; otherwise empty.
        says_styles: whether the names of its domains say what its pictures look like.
        recipe: which of the paper's recipes is for it.
        published: how its publishers lay it out, where that is otherwise than DomainBed does.
        published_as: what its domains are called there, and here.
        published_classes: its classes, in the order of the numbers that they are called by there; otherwise
            empty.
    """

    name: str
    folder: str
    images: dict[str, int]
    classes: int
    class_names: tuple[str, ...] = ()
    says_styles: bool = True
    recipe: str = "paper"
    published: Layout | None = None
    published_as: Mapping[str, str] = field(default_factory=dict)
    published_classes: tuple[str, ...] = ()

    def differences(self, folder: ImageFolder) -> list[str]:
        """In what a folder is not a whole copy of this data set; a line each. Reads no file."""
        return [*self._domain_differences(folder), *self._class_differences(folder.classes)]

    def _domain_differences(self, folder: ImageFolder) -> list[str]:
        renamed = {_plain(name): _plain(own) for name, own in self.published_as.items()}
        there = {renamed.get(plain := _plain(domain), plain): domain for domain in folder.domains}
        expected = {_plain(domain): domain for domain in self.images}
        found = [f"The domain {expected[key]} is missing." for key in expected if key not in there]
        for key, domain in there.items():
            if key not in expected:
                found.append(f"The folder {domain} is not one of its domains.")
                continue
            count, right = folder.count(domain), self.images[expected[key]]
            if count != right:
                found.append(f"The domain {domain} has {count:,} images instead of {right:,}.")
        return found

    def _class_differences(self, classes: Iterable[str]) -> list[str]:
        numbers = {str(number): _plain(name) for number, name in enumerate(self.published_classes)}
        there = {numbers.get(plain := _plain(name), plain): name for name in classes}
        if not self.class_names:
            wrong = len(there) != self.classes
            return [f"There are {len(there)} classes instead of {self.classes}."] if wrong else []
        expected = {_plain(name): name for name in self.class_names}
        missing = [f"The class {expected[key]} is missing." for key in expected if key not in there]
        return missing + [f"{there[key]} is not one of its classes." for key in there if key not in expected]


# Counts as DomainBed's loaders find them (Gulrajani & Lopez-Paz, ICLR 2021); DomainNet's are of its cleaned
# version.
MANIFESTS = (
    Manifest(
        "PACS",
        "PACS",
        {"art_painting": 2048, "cartoon": 2344, "photo": 1670, "sketch": 3929},
        7,
        ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person"),
        published=Layout(("kfold", "domain", "class")),
        published_as={domain: domain for domain in ("art_painting", "cartoon", "photo", "sketch")},
    ),
    Manifest(
        "VLCS",
        "VLCS",
        {"Caltech101": 1415, "LabelMe": 2656, "SUN09": 3282, "VOC2007": 3376},
        5,
        ("bird", "car", "chair", "dog", "person"),
        says_styles=False,
        published=Layout(("domain", "full", "class")),
        published_as={"CALTECH": "Caltech101", "LABELME": "LabelMe", "PASCAL": "VOC2007", "SUN": "SUN09"},
        published_classes=("bird", "car", "chair", "dog", "person"),
    ),
    Manifest(
        "Office-Home",
        "office_home",
        {"Art": 2427, "Clipart": 4365, "Product": 4439, "Real World": 4357},
        65,
        tuple(_OFFICE_HOME_CLASSES.split()),
    ),
    Manifest(
        "TerraIncognita",
        "terra_incognita",
        {"location_100": 4741, "location_38": 9736, "location_43": 3970, "location_46": 5883},
        10,
        ("bird", "bobcat", "cat", "coyote", "dog", "empty", "opossum", "rabbit", "raccoon", "squirrel"),
        says_styles=False,
    ),
    Manifest(
        "DomainNet",
        "domain_net",
        {
            "clipart": 48_129,
            "infograph": 51_605,
            "painting": 72_266,
            "quickdraw": 172_500,
            "real": 172_947,
            "sketch": 69_128,
        },
        345,
        recipe="paper-domainnet",
    ),
)


def recognise(folder: ImageFolder) -> Manifest | None:
    """The data set that a folder seems to be a copy of, by its own name or by those of all its domains.

    Case, spaces and punctuation do not count: "OfficeHome" is "office_home".
    """
    return recognise_names(folder.root.resolve().name, folder.domains)


def recognise_names(name: str, domains: Iterable[str]) -> Manifest | None:
    """The same by these names alone, where the folder is not at hand."""
    plain = {_plain(domain) for domain in domains}
    for manifest in MANIFESTS:
        named = _plain(name) in (_plain(manifest.folder), _plain(manifest.name))
        if named or plain in ({*map(_plain, manifest.images)}, {*map(_plain, manifest.published_as)} or None):
            return manifest
    return None


def require_not_as_published(root: Path, images: Sequence[tuple[str, ...]]) -> None:
    """Refuse a data set that lies as its publishers lay it out, and would be read as another one.

    Args:
        root: the folder.
        images: the paths of its images below it, each as its parts.

    Raises:
        DataError: it does; the message names the folder to name, or the layout.
    """
    if images and all(_plain(root.name if len(each) < 2 else each[-2]) == _RAW_TERRA for each in images):
        raise DataError(
            f"{root} has the pictures of TerraIncognita as they are published, in one folder: what they show "
            "is in a file of annotations. Nothing is bought. DomainBed's download script sorts them into "
            "<location>/<class>/, and --data takes the folder with these."
        )
    for manifest in MANIFESTS:
        if manifest.published is not None:
            _require_not_in_layout(root, images, manifest, manifest.published)
        _require_not_below(root, images, manifest)


def _require_not_in_layout(
    root: Path, images: Sequence[tuple[str, ...]], manifest: Manifest, layout: Layout
) -> None:
    """Refuse a data set in its publishers' layout, or a domain of it alone."""
    known = {_plain(name) for name in manifest.published_as}
    codes = ", ".join(f"{code} {name}" for code, name in enumerate(manifest.published_classes))
    named = f" Its classes are numbers ({codes}): name them with --names." if codes else ""
    if any(
        len(names) > layout.depth and layout.takes(names) and _plain(layout.domain_of(names) or "") in known
        for names in images
    ):
        above = Path(*layout.parts[: layout.parts.index("domain")])
        folder = f" --data {root / above}, or" if above.parts else ""
        raise DataError(
            f"{root} is {manifest.name} as it is published, with a folder more than "
            f"<domain>/<class>/<image> has. Nothing is bought. Say{folder} --layout {layout}.{named}"
        )
    inner = layout.parts[layout.parts.index("domain") + 1 : -1]
    if inner and _plain(root.name) in known and any(names[: len(inner)] == inner for names in images):
        raise DataError(
            f"{root} is a domain of {manifest.name} as it is published, several times over. Nothing is "
            f"bought. Say --data {root.joinpath(*inner)}.{named}"
        )


def _require_not_below(root: Path, images: Sequence[tuple[str, ...]], manifest: Manifest) -> None:
    """Refuse a folder that has all domains of a data set some folders further down."""
    expected = {_plain(domain) for domain in manifest.images}
    found: dict[tuple[str, ...], set[str]] = {}
    for names in images:
        for depth in range(1, len(names) - 2):
            if (plain := _plain(names[depth])) in expected:
                found.setdefault(names[:depth], set()).add(plain)
    for above, domains in found.items():
        if domains == expected:
            raise DataError(
                f"{root} has {manifest.name} further down. Nothing is bought. Say --data "
                f"{root.joinpath(*above)}."
            )


def styles_of(folder: ImageFolder, domains: Sequence[str]) -> tuple[str, ...]:
    """Names of styles for sentences about the pictures of some domains of a folder: the domains' own.

    Those of VLCS and TerraIncognita say nothing of a picture; they, and a domain alone, get the four styles
    that RISE's released code has for these two.
    """
    known = recognise(folder)
    if len(domains) < 2 or (known is not None and not known.says_styles):
        return PHOTO_STYLES
    return tuple(domains)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()
