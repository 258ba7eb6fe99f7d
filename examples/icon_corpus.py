"""The icons that the bundled teacher learns from: drawn once, named, and none of them in the data set.

A set is one team's design, and no set that supplies images to icons.zip is used here.
"""

import io
import json
import re
import tomllib
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from examples.build_icons import SAME_DRAWING, SIDE, draw

SETS = Path(__file__).with_name("icon_clip.toml")
# Regions that a line encloses: at most so many, and none smaller than so many pixels.
MOST_REGIONS = 7
SMALLEST_REGION = 12
# Of one name and style, at most so many icons of a set.
_REPEATS = 3
_STYLE_ENDINGS = {
    "outline-rounded": "line",
    "outline-sharp": "line",
    "outline": "line",
    "linear": "line",
    "line-duotone": "duotone",
    "line": "line",
    "rounded": "solid",
    "sharp": "solid",
    "filled": "solid",
    "fill": "solid",
    "solid": "solid",
    "bold-duotone": "duotone",
    "duotone": "duotone",
    "two-tone": "duotone",
    "duo": "duotone",
    "bold": "solid",
    "thin": "line",
    "light": "line",
    "regular": "line",
    "broken": "line",
    "flat": "flat",
}
_NOT_THINGS = re.compile(
    r"(^|-)(brand|logo|logos|skin|tone|flag-for|regional|keycap|alpha|letter|negative)(-|$)|^flag-"
)
_SIZES = frozenset({"16", "20", "24", "28", "32", "48", "px", "24px", "alt", "alternate", "v1", "v2", "o"})


@dataclass(frozen=True)
class Corpus:
    """Icons with their names; those of one colour first, then those of many.

    Attributes:
        ink: how much is drawn, of the icons of one colour: uint8 of shape (n, SIDE, SIDE).
        regions: which enclosed region a pixel of them is in, 0 for none: uint8 of shape (n, SIDE, SIDE).
        colours: the icons of many colours, RGBA: uint8 of shape (m, SIDE, SIDE, 4).
        captions: what each of all n + m shows.
        styles: how each of them is drawn ("line", "solid" ...).
    """

    ink: NDArray[np.uint8]
    regions: NDArray[np.uint8]
    colours: NDArray[np.uint8]
    captions: list[str]
    styles: list[str]

    def save(self, path: Path) -> None:
        """Write it to one file."""
        named = np.array([self.captions, self.styles])
        np.savez(path, ink=self.ink, regions=self.regions, colours=self.colours, named=named)

    @classmethod
    def load(cls, path: Path) -> "Corpus":
        """What `save` wrote."""
        with np.load(path) as file:
            captions, styles = file["named"].tolist()
            return cls(file["ink"], file["regions"], file["colours"], captions, styles)


@dataclass(frozen=True)
class SetRule:
    """A set: how it is drawn where an icon's name does not say so, and which names count.

    Attributes:
        name: of its file in the package.
        style: of all its icons, whatever their names say; `None` to go by the names.
        matching: names must fit this pattern.
        without: what this pattern finds in a name says nothing of the thing.
    """

    name: str
    style: str | None = None
    matching: re.Pattern[str] = re.compile("")
    without: re.Pattern[str] = re.compile("(?!)")


def read_sets(path: Path = SETS) -> list[SetRule]:
    """The sets of icon_clip.toml."""
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    return [
        SetRule(
            name,
            rule.get("style"),
            re.compile(rule.get("matching", "")),
            re.compile(rule.get("without", "(?!)")),
        )
        for name, rule in document["sets"].items()
    ]


def words_of_no_thing(path: Path = SETS) -> frozenset[str]:
    """The words of emoji's names that name no thing."""
    return frozenset(tomllib.loads(path.read_text(encoding="utf-8"))["no_things"].split())


def build_corpus(package: Path, sets: Sequence[SetRule], data: Path) -> Corpus:
    """Draw every icon of these sets that has a name, but for those that look like an image of `data`.

    Args:
        package: folder of `@iconify/json`.
        sets: which of its sets.
        data: icons.zip.
    """
    collections = json.loads((package / "collections.json").read_text(encoding="utf-8"))
    with ProcessPoolExecutor() as pool:
        parts = list(pool.map(partial(_draw_set, package, collections), sets))
    known = _shapes(np.stack([255 - grey for grey in _greys(data)]))
    ink, plain = _unlike(known, [plain for plain, _ in parts])
    colours, coloured = _unlike(known, [coloured for _, coloured in parts])
    with ProcessPoolExecutor() as pool:
        regions = np.stack(list(pool.map(enclosed_regions, ink, chunksize=500)))
    named = [*plain, *coloured]
    return Corpus(ink, regions, colours, [caption for caption, _ in named], [style for _, style in named])


Drawings = tuple[NDArray[np.uint8], list[tuple[str, str]]]


def _draw_set(package: Path, collections: dict[str, Any], rule: SetRule) -> tuple[Drawings, Drawings]:
    """The set's icons of one colour, and those of many, each with captions and styles."""
    document = json.loads((package / "json" / f"{rule.name}.json").read_text(encoding="utf-8"))
    about = collections[rule.name]
    plain: tuple[list[NDArray[np.uint8]], list[tuple[str, str]]] = ([], [])
    coloured: tuple[list[NDArray[np.uint8]], list[tuple[str, str]]] = ([], [])
    seen: Counter[tuple[str, str]] = Counter()
    for name, icon in sorted(document["icons"].items()):
        if icon.get("hidden") or _NOT_THINGS.search(name) or not rule.matching.search(name):
            continue
        named = caption_and_style(name, rule, about)
        seen[named] += 1
        if not 2 <= len(named[0]) <= 48 or seen[named] > _REPEATS:
            continue
        drawing = np.asarray(draw(document, name))
        ink = drawing[..., 3]
        if (ink > 40).mean() < 0.01:
            continue
        one_colour = drawing[..., :3][ink > 40].max() < 40
        pile = plain if one_colour else coloured
        pile[0].append(ink if one_colour else drawing)
        pile[1].append(named)
    shape = (SIDE, SIDE)
    return (
        (np.array(plain[0], np.uint8).reshape(-1, *shape), plain[1]),
        (np.array(coloured[0], np.uint8).reshape(-1, *shape, 4), coloured[1]),
    )


def caption_and_style(name: str, rule: SetRule, about: dict[str, Any]) -> tuple[str, str]:
    """What an icon shows and how it is drawn, by its name ("bell-ring-outline": "bell ring", "line")."""
    name, style = rule.without.sub("", name), rule.style
    while True:
        ending = next((end for end in _STYLE_ENDINGS if name.endswith(f"-{end}")), None)
        if ending is None:
            break
        name = name[: -len(ending) - 1]
        style = rule.style or _STYLE_ENDINGS[ending]
    if style is None:
        drawn_with_lines = any("Stroke" in tag for tag in about.get("tags", []))
        style = "colour" if about.get("palette") else "line" if drawn_with_lines else "icon"
    words = [word for word in re.split("[-_]", name) if word and word not in _SIZES]
    words = [re.sub(r"(?<=[a-z])\d+$", "", word) for word in words if not re.fullmatch(r"x?\d+", word)]
    return " ".join(words), style


def _greys(data: Path) -> Iterator[NDArray[np.uint8]]:
    with zipfile.ZipFile(data) as archive:
        for name in archive.namelist():
            if name.endswith(".png"):
                yield np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("L"))


def _shapes(ink: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Unit vectors of where ink is, shape (n, 24 x 24), from uint8 of shape (n, SIDE, SIDE)."""
    block = SIDE // 24
    blocks = ink.reshape(len(ink), 24, block, 24, block)
    small: NDArray[np.float32] = blocks.mean(axis=(2, 4), dtype=np.float32).reshape(len(ink), -1)
    small -= small.mean(axis=1, keepdims=True)
    small /= np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-6)
    return small


def _unlike(known: NDArray[np.float32], parts: Sequence[Drawings]) -> Drawings:
    """All drawings that look like no known one, in one pile."""
    drawings = np.concatenate([drawn for drawn, _ in parts])
    new = ~_like(drawings if drawings.ndim == 3 else drawings[..., 3], known)
    named = [name for _, names in parts for name in names]
    return drawings[new], [name for name, keep in zip(named, new, strict=True) if keep]


def _like(ink: NDArray[np.uint8], known: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which of these drawings look like a known one."""
    starts = range(0, len(ink), 4096)
    found = [(_shapes(ink[start : start + 4096]) @ known.T).max(axis=1) for start in starts]
    return np.concatenate(found) > SAME_DRAWING if found else np.zeros(0, bool)


def enclosed_regions(ink: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The regions that lines enclose, the largest first, numbered from 1; 0 is everything else."""
    labels, _ = ndimage.label(ink < 110)
    outside = {0, *labels[[0, -1]].ravel().tolist(), *labels[:, [0, -1]].ravel().tolist()}
    sizes = np.bincount(labels.ravel())
    inside = [
        int(label)
        for label in np.argsort(-sizes, kind="stable")
        if int(label) not in outside and sizes[label] >= SMALLEST_REGION
    ]
    regions = np.zeros(ink.shape, np.uint8)
    for number, label in enumerate(inside[:MOST_REGIONS], start=1):
        regions[labels == label] = number
    return regions
