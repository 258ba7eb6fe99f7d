"""Build icons.zip, the demo's images: five drawing styles are domains, things are classes.

    python -m examples.build_icons --out client/data/bundled/icons.zip --sheets sheets

The icons come from the npm package `@iconify/json`, fetched with npm unless `--package` names its folder.
examples/icons.toml says which sets serve which domain, and which names make a class. The same package gives
the same bytes.
"""

import argparse
import io
import json
import re
import subprocess
import tarfile
import tomllib
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import resvg_py
from numpy.typing import NDArray
from PIL import Image, ImageDraw

PACKAGE = "@iconify/json@2.2.535"
RULES = Path(__file__).with_name("icons.toml")
SIDE = 96
# An icon is drawn this much smaller than the image, so that nothing touches the edge.
MARGIN = 0.04
# Two drawings whose ink agrees more than this are one drawing.
SAME_DRAWING = 0.985
# Licences of a set that let anybody pass its pictures on, changed too, if its author is named.
LICENCES = frozenset({"MIT", "Apache-2.0", "ISC", "CC0-1.0", "CC-BY-4.0", "BSD-3-Clause", "Unlicense"})
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip can hold


@dataclass(frozen=True)
class IconSet:
    """A set of icons, and which of them count.

    Attributes:
        name: of its file in the package.
        domain: the one domain that it serves.
        ending: only names that end so, if any are given.
        not_ending: no names that end so.
    """

    name: str
    domain: str
    ending: tuple[str, ...] = ()
    not_ending: tuple[str, ...] = ()

    def takes(self, icon: str) -> bool:
        """Whether an icon of this name counts."""
        return (not self.ending or icon.endswith(self.ending)) and not icon.endswith(self.not_ending)


@dataclass(frozen=True)
class ClassRule:
    """Which names make a class: one of `words`, and beside it nothing but `beside`.

    Attributes:
        name: of the class.
        words: what the thing is called, each a tuple of one or more words.
        beside: words that may stand beside it without making it another thing.
        wrong: icons ("set/name") that fit by name and show something else.
    """

    name: str
    words: tuple[tuple[str, ...], ...]
    beside: frozenset[str]
    wrong: frozenset[str]

    def fits(self, tokens: Sequence[str]) -> bool:
        """Whether a name of these words is of this class."""
        for words in self.words:
            for start in range(len(tokens) - len(words) + 1):
                if tuple(tokens[start : start + len(words)]) == words:
                    return self.beside.issuperset([*tokens[:start], *tokens[start + len(words) :]])
        return False


@dataclass(frozen=True)
class Rules:
    """What icons.toml says."""

    sets: tuple[IconSet, ...]
    classes: tuple[ClassRule, ...]
    per_cell: int

    @property
    def domains(self) -> tuple[str, ...]:
        """In the order of the file."""
        return tuple(dict.fromkeys(each.domain for each in self.sets))


@dataclass(frozen=True)
class Icon:
    """One picture of the data set; `ink` is what is drawn, (24, 24) in [0, 1], for comparing."""

    set: str
    name: str
    domain: str
    label: str
    png: bytes = field(repr=False)
    ink: NDArray[np.float32] = field(repr=False)

    @property
    def path(self) -> str:
        """Where it lies in the archive."""
        return f"icons/{self.domain}/{self.label.replace(' ', '_')}/{self.set}__{self.name}.png"


def main() -> None:
    """Build the archive, and say what is in it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("icons.zip"), help="the archive to write")
    parser.add_argument("--package", type=Path, help=f"folder of {PACKAGE}; fetched with npm by default")
    parser.add_argument("--sheets", type=Path, help="write a contact sheet a class into this folder")
    arguments = parser.parse_args()
    rules = read_rules(RULES)
    with TemporaryDirectory() as scratch:
        package = arguments.package or fetch(Path(scratch))
        drawn = [icon for each in rules.sets for icon in draw_set(package, each, rules.classes)]
        unique, repeated = without_repeats(drawn)
        icons = choose(unique, rules)
        write_archive(arguments.out, icons, attribution(package, icons))
    if arguments.sheets:
        write_sheets(arguments.sheets, icons, rules.domains)
    print(table(icons, rules))
    size = arguments.out.stat().st_size / 1e6
    digest = sha256(arguments.out.read_bytes()).hexdigest()
    print(f"{repeated} of {len(drawn)} drawings left out: another set, or another domain, has them too.")
    print(f"{arguments.out}: {len(icons)} images, {size:.1f} MB, sha256 {digest}")


def read_rules(path: Path) -> Rules:
    """Read icons.toml."""
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    general = set(document["beside"].split())
    sets = [
        IconSet(name, domain, tuple(wanted.get("ending", ())), tuple(wanted.get("not_ending", ())))
        for domain, sets in document["domains"].items()
        for name, wanted in sets.items()
    ]
    classes = []
    for name, rule in document["classes"].items():
        words = tuple(tuple(each.split()) for each in rule["words"])
        beside = {*general, *rule.get("beside", "").split(), *(word for each in words for word in each)}
        classes.append(ClassRule(name, words, frozenset(beside), frozenset(rule.get("wrong", ()))))
    return Rules(tuple(sets), tuple(classes), document["per_cell"])


def fetch(folder: Path) -> Path:
    """Download the package with npm, and unpack what is needed of it."""
    subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as members:
        members.extractall(folder, filter="data")
    return folder / "package"


# -- names


def tokens_of(name: str) -> list[str]:
    """The words of an icon's name, without numbers and what only says how it is drawn."""
    name = re.sub(r"-(filled|fill|solid|outline|sharp|color|flat|bold|bulk)$", "", name)
    words = [re.sub(r"(?<=[a-z])\d+$", "", word) for word in re.split("[-_]", name)]
    return [word for word in words if word and not word.isdigit()]


def label_of(name: str, classes: Sequence[ClassRule]) -> str | None:
    """The only class that a name fits; `None` if there is none, or more than one."""
    tokens = tokens_of(name)
    fitting = [rule.name for rule in classes if rule.fits(tokens)]
    return fitting[0] if len(fitting) == 1 else None


# -- pictures


def draw_set(package: Path, wanted: IconSet, classes: Sequence[ClassRule]) -> Iterator[Icon]:
    """Every icon of a set that is of a class, drawn; of one name in several sizes, the largest."""
    document = json.loads((package / "json" / f"{wanted.name}.json").read_text(encoding="utf-8"))
    wrong = {each for rule in classes for each in rule.wrong}
    largest: dict[tuple[str, ...], tuple[int, str, str]] = {}
    for name, icon in sorted(document["icons"].items()):
        label = label_of(name, classes)
        if label is None or icon.get("hidden") or not wanted.takes(name) or f"{wanted.name}/{name}" in wrong:
            continue
        size = re.search(r"-(16|20|24|28|32|48)(?=-|$)", name)
        key = (re.sub(r"-(16|20|24|28|32|48)(?=-|$)", "", name),) if size else (name, "")
        largest[key] = max(largest.get(key, (0, "", "")), (int(size[1]) if size else 1, name, label))
    for _, name, label in sorted(largest.values(), key=lambda found: found[1]):
        pixels = on_white(draw(document, name))
        ink = ink_of(pixels)
        if ink.mean() > 0.01:
            yield Icon(wanted.name, name, wanted.domain, label, encode(pixels), ink)


def draw(document: dict[str, Any], name: str, size: int = SIDE) -> Image.Image:
    """An icon of a set, black where it has no colour of its own: RGBA of size x size."""
    icon = document["icons"][name]
    width, height = (icon.get(key, document.get(key, 16)) for key in ("width", "height"))
    left, top = (icon.get(key, document.get(key, 0)) for key in ("left", "top"))
    side = (1 + 2 * MARGIN) * max(width, height)
    view = f"{left - (side - width) / 2} {top - (side - height) / 2} {side} {side}"
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{view}" width="{size}" height="{size}" color="#000">{icon["body"]}</svg>'
    )
    return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg)))).convert("RGBA")


def on_white(drawing: Image.Image) -> Image.Image:
    """The drawing on white paper, RGB."""
    paper = Image.new("RGBA", drawing.size, "white")
    return Image.alpha_composite(paper, drawing).convert("RGB")


def encode(pixels: Image.Image) -> bytes:
    """PNG, with a palette where it has few colours: the same pixels in fewer bytes."""
    colours = pixels.getcolors(256)
    file = io.BytesIO()
    if colours:
        paletted = pixels.quantize(len(colours), dither=Image.Dither.NONE)
        if paletted.convert("RGB").tobytes() == pixels.tobytes():
            pixels = paletted
    pixels.save(file, "PNG", optimize=True)
    return file.getvalue()


def ink_of(pixels: Image.Image) -> NDArray[np.float32]:
    """How far each spot is from white, shape (24, 24)."""
    small = pixels.convert("L").resize((24, 24), Image.Resampling.BOX)
    return 1 - np.asarray(small, np.float32) / np.float32(255)


def without_repeats(icons: Sequence[Icon]) -> tuple[list[Icon], int]:
    """Leave out drawings that an earlier set has, or that another domain has; how many those were.

    A drawing in two domains would be in training and in the target: both go.
    """
    ink = np.stack([icon.ink.ravel() for icon in icons])
    ink = ink - ink.mean(axis=1, keepdims=True)
    ink /= np.linalg.norm(ink, axis=1, keepdims=True)
    domains = np.array([icon.domain for icon in icons])
    kept: list[Icon] = []
    for row, icon in enumerate(icons):
        alike = ink @ ink[row] > SAME_DRAWING
        across = alike & (domains != icon.domain)
        before = alike[:row] & (domains[:row] == icon.domain)
        if not across.any() and not before.any():
            kept.append(icon)
    return kept, len(icons) - len(kept)


def choose(icons: Iterable[Icon], rules: Rules) -> list[Icon]:
    """At most `per_cell` of a class and domain, from each of its sets in turn; classes of all domains."""
    cells: dict[tuple[str, str], dict[str, list[Icon]]] = defaultdict(lambda: defaultdict(list))
    for icon in icons:
        cells[icon.domain, icon.label][icon.set].append(icon)
    chosen: list[Icon] = []
    for sets in cells.values():
        turns = [
            (turn, sha256(icon.path.encode()).hexdigest(), icon)
            for members in sets.values()
            for turn, icon in enumerate(sorted(members, key=lambda i: sha256(i.path.encode()).hexdigest()))
        ]
        chosen += [icon for _, _, icon in sorted(turns, key=lambda t: t[:2])[: rules.per_cell]]
    everywhere = Counter(label for _, label in cells)
    return sorted(
        (icon for icon in chosen if everywhere[icon.label] == len(rules.domains)), key=lambda i: i.path
    )


# -- what comes out


def attribution(package: Path, icons: Sequence[Icon]) -> str:
    """Whose drawings these are, set by set, image by image.

    Raises:
        SystemExit: a set may not be passed on.
    """
    collections = json.loads((package / "collections.json").read_text(encoding="utf-8"))
    lines = [f"Drawn from {PACKAGE} at {SIDE} x {SIDE}. Set: title, author, licence; then its images."]
    for name in sorted({icon.set for icon in icons}):
        about, licence = collections[name], collections[name]["license"]
        if licence.get("spdx") not in LICENCES:
            raise SystemExit(f"the set {name} is under {licence}, which does not let it be passed on")
        terms = f"{licence['spdx']} {licence.get('url', '')}".strip()
        lines += ["", f"{name}: {about['name']}, {about['author']['name']}, {terms}"]
        lines += [f"  {icon.path.removeprefix('icons/')}" for icon in icons if icon.set == name]
    return "\n".join(lines) + "\n"


def write_archive(path: Path, icons: Sequence[Icon], attributed: str) -> None:
    """Write the zip; the same icons give the same bytes."""
    archived(path, [("icons/ATTRIBUTION.txt", attributed.encode()), *((i.path, i.png) for i in icons)])


def archived(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write files, each with its name, into a zip that has no dates; pictures are not compressed again."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files:
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED if name.endswith(".txt") else zipfile.ZIP_STORED
            info.external_attr = 0o644 << 16
            archive.writestr(info, content)


def write_sheets(folder: Path, icons: Sequence[Icon], domains: Sequence[str]) -> None:
    """A picture a class: every image with its name under it, a block of rows a domain."""
    folder.mkdir(parents=True, exist_ok=True)
    across, cell = 12, SIDE + 26
    for label in sorted({icon.label for icon in icons}):
        shown: list[Icon | None] = []
        for domain in domains:
            shown += [icon for icon in icons if (icon.label, icon.domain) == (label, domain)]
            shown += [None] * (-len(shown) % across)
        sheet = Image.new("RGB", (across * cell, len(shown) // across * cell), "white")
        pen = ImageDraw.Draw(sheet)
        for number, icon in enumerate(shown):
            if icon is None:
                continue
            x, y = number % across * cell, number // across * cell
            sheet.paste(Image.open(io.BytesIO(icon.png)).convert("RGB"), (x, y))
            pen.text((x, y + SIDE), icon.set[:19], "grey")
            pen.text((x, y + SIDE + 10), icon.name[:19], "black")
        sheet.save(folder / f"{label.replace(' ', '_')}.png")


def table(icons: Sequence[Icon], rules: Rules) -> str:
    """How many images there are of each class and domain."""
    count = Counter((icon.label, icon.domain) for icon in icons)
    rows = [["class", *rules.domains]]
    for label in sorted({icon.label for icon in icons}):
        rows.append([label, *(str(count[label, domain]) for domain in rules.domains)])
    rows.append(["all", *(str(sum(icon.domain == domain for icon in icons)) for domain in rules.domains)])
    return "\n".join(f"{row[0]:<14}" + "".join(f"{entry:>8}" for entry in row[1:]) for row in rows)


if __name__ == "__main__":
    main()
