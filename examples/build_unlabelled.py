"""Build unlabelled.zip, a pool of images without labels: public-domain illustrations, and icons.

    python -m examples.build_unlabelled --out client/data/bundled/unlabelled.zip --sheets sheets

The illustrations come from Debian's package `openclipart-svg`, fetched with apt-get unless `--openclipart`
names the folder that it was unpacked into. The icons come from the npm package `@iconify/json`, as those of
build_icons.py do. examples/unlabelled.toml says which of them count. The same packages give the same images.

Each image lies in a folder named for its style. `exclude` in that file says which folders must stay out of
the pool where a style of the labelled icons is held out.
"""

import argparse
import io
import json
import re
import subprocess
import tomllib
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from html import unescape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import resvg_py
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from client.data.bundled_set import ICONS
from examples.build_icons import (
    LICENCES,
    MARGIN,
    PACKAGE,
    archived,
    draw,
    fetch,
    ink_of,
    on_white,
)

RULES = Path(__file__).with_name("unlabelled.toml")
OPENCLIPART = "openclipart-svg=1:0.18+dfsg-19"
OPENCLIPART_DIGEST = "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5"
SIDE = 128
QUALITY = 80  # of WebP, from 0 to 100
# Two shapes that agree more than this may be one drawing. Chosen by looking at pairs: above it most are the
# same plain thing (a heart, a bell, a globe), and below it nearly all are different drawings.
NEAR_DUPLICATE = 0.93
# Within the pool, only what is all but the same counts.
REPEAT = 0.97
# Pixels: an edge is so wide, and what is nowhere wider than a line is drawn with lines (two of an icon's 24
# units make ten).
_EDGE = 5
_LINE = 13
# An illustration is drawn so wide, cut to what is drawn, and only then made small.
_DRAWN_WIDTH = 256
_PUBLIC_DOMAIN = re.compile(
    r'<(cc:)?license\s+(rdf:)?resource="http://(web\.resource\.org/cc/PublicDomain|'
    r'creativecommons\.org/licenses/publicdomain/?)"'
)
_CREATOR = re.compile(r"<dc:creator>.*?<dc:title>\s*(.*?)\s*</dc:title>", re.DOTALL)


@dataclass(frozen=True)
class Drawing:
    """One picture of the pool.

    Attributes:
        source: "openclipart", or the name of an icon set.
        name: what it is called there.
        style: how it is drawn: "illustration", or as a domain of the labelled icons is.
        author: who drew it, where the drawing says so.
        webp: the file.
        shape: what is drawn, as `shape_of` gives it.
    """

    source: str
    name: str
    style: str
    author: str
    webp: bytes = field(repr=False)
    shape: NDArray[np.float32] = field(repr=False)

    @property
    def path(self) -> str:
        """Where it lies in the archive."""
        return f"unlabelled/{self.style}/{self.source}__{self.name}.webp"


def main() -> None:
    """Build the archive, and say what is in it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("unlabelled.zip"), help="the archive to write")
    parser.add_argument("--package", type=Path, help=f"folder of {PACKAGE}; fetched with npm by default")
    parser.add_argument("--openclipart", type=Path, help=f"folder of {OPENCLIPART}; fetched by default")
    parser.add_argument("--sheets", type=Path, help="write contact sheets of each style into this folder")
    arguments = parser.parse_args()
    rules = tomllib.loads(RULES.read_text(encoding="utf-8"))
    with TemporaryDirectory() as scratch:
        package = arguments.package or fetch(Path(scratch))
        clipart = arguments.openclipart or fetch_openclipart(Path(scratch))
        drawn = [*illustrations(clipart, rules["openclipart"]), *icons(package, rules["sets"])]
        pool = unlike(drawn, labelled_shapes(ICONS))
        write_pool(arguments.out, pool, attribution(package, pool))
    if arguments.sheets:
        write_sheets(arguments.sheets, pool)
    print("\n".join(f"{count:>6} {style}" for style, count in sorted(Counter(d.style for d in pool).items())))
    print(f"{len(drawn) - len(pool)} of {len(drawn)} left out: like a labelled icon, or like each other.")
    size = arguments.out.stat().st_size / 1e6
    digest = sha256(arguments.out.read_bytes()).hexdigest()
    print(f"{arguments.out}: {len(pool)} images, {size:.1f} MB, sha256 {digest}")


def fetch_openclipart(folder: Path) -> Path:
    """Download the package with apt-get, and unpack it; the folder of its drawings.

    Raises:
        SystemExit: it is not the package that the pool was made from.
    """
    subprocess.run(["apt-get", "download", "--quiet=2", OPENCLIPART], cwd=folder, check=True)
    (archive,) = folder.glob("openclipart-svg_*.deb")
    if sha256(archive.read_bytes()).hexdigest() != OPENCLIPART_DIGEST:
        raise SystemExit(f"{archive.name} is another package than {OPENCLIPART} of Debian")
    subprocess.run(["dpkg-deb", "--extract", archive, folder / "openclipart"], check=True)
    return folder / "openclipart" / "usr" / "share" / "openclipart" / "svg"


# -- drawings


def illustrations(root: Path, rules: dict[str, Any]) -> list[Drawing]:
    """The drawings of openclipart that are wanted and in the public domain, in the order of their paths."""
    without = re.compile(rules["without"])
    paths = [
        path
        for folder in rules["folders"]
        for path in sorted((root / folder).rglob("*.svg"))
        if path.is_file() and not path.is_symlink() and not without.search(f"{path.relative_to(root)}")
    ]
    with ProcessPoolExecutor() as pool:
        drawn = pool.map(partial(illustration, root, rules), paths, chunksize=50)
        return [each for each in drawn if each is not None]


def illustration(root: Path, rules: dict[str, Any], path: Path) -> Drawing | None:
    """One drawing; `None` if it cannot be drawn, is empty, or is not said to be in the public domain."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if not _PUBLIC_DOMAIN.search(text):
        return None
    try:
        png = bytes(resvg_py.svg_to_bytes(svg_string=text, dpi=96, width=_DRAWN_WIDTH))
    except ValueError:
        return None
    pixels = squared(Image.open(io.BytesIO(png)).convert("RGBA"))
    if pixels is None:
        return None
    name = path.relative_to(root).with_suffix("")
    creator = _CREATOR.search(text)
    author = " ".join(unescape(creator[1]).split()) if creator else ""
    is_icon = any(name.is_relative_to(folder) for folder in rules["icons"])
    found = make_drawing(
        "openclipart", "--".join(name.parts), author, pixels, coloured="colour" if is_icon else "illustration"
    )
    return replace(found, style="emoji") if re.search(rules["emoji"], name.name) else found


def squared(drawing: Image.Image) -> Image.Image | None:
    """What is drawn, on white paper of SIDE x SIDE; `None` if there is nothing."""
    box = drawing.getchannel("A").point([255 * (value > 8) for value in range(256)]).getbbox()
    if box is None:
        return None
    cut = drawing.crop(box)
    side = round((1 + 2 * MARGIN) * max(cut.size))
    paper = Image.new("RGB", (side, side), "white")
    paper.paste(cut, ((side - cut.width) // 2, (side - cut.height) // 2), cut)
    return paper.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def icons(package: Path, sets: dict[str, dict[str, str]]) -> list[Drawing]:
    """The icons of these sets, each drawing once."""
    with ProcessPoolExecutor() as pool:
        parts = pool.map(
            partial(icons_of, package), sets, (rule.get("matching", "") for rule in sets.values())
        )
        return [each for part in parts for each in part]


def icons_of(package: Path, name: str, matching: str) -> list[Drawing]:
    """The icons of a set whose names match."""
    document = json.loads((package / "json" / f"{name}.json").read_text(encoding="utf-8"))
    wanted = re.compile(matching)
    found = []
    for icon, about in sorted(document["icons"].items()):
        if about.get("hidden") or not wanted.search(icon) or "arrow" in icon or "chevron" in icon:
            continue
        pixels = on_white(draw(document, icon, SIDE))
        if ink_of(pixels).mean() > 0.01:
            found.append(make_drawing(name, icon, "", pixels, coloured="colour"))
    return found


def make_drawing(source: str, name: str, author: str, pixels: Image.Image, *, coloured: str) -> Drawing:
    """A picture of the pool, in the style `coloured` unless it is of one dark colour.

    Style and shape are those of the file, which whoever has the pool can check.
    """
    file = io.BytesIO()
    pixels.save(file, "WEBP", quality=QUALITY, method=6)
    shown = Image.open(file)
    return Drawing(source, name, style_of(shown) or coloured, author, file.getvalue(), shape_of(shown))


def style_of(pixels: Image.Image) -> str | None:
    """ "line" or "solid" for what is drawn in one dark colour; `None` for what is in colours or shades."""
    values = np.asarray(pixels, np.int16)
    brightest, darkest = values.max(axis=2), values.min(axis=2)
    ink = darkest < 230
    if not ink.any() or (brightest - darkest > 40)[ink].mean() > 0.05:
        return None
    inside = _worn(ink, _EDGE)  # without the edges, which are grey in any drawing
    if inside.any() and (brightest < 90)[inside].mean() < 0.8:
        return None
    return "solid" if _worn(ink, _LINE).sum() > 0.15 * ink.sum() else "line"


def _worn(ink: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """Where there is ink that far around."""
    return np.asarray(Image.fromarray((255 * ink).astype(np.uint8)).filter(ImageFilter.MinFilter(width))) > 0


# -- what is alike


def labelled_shapes(archive: Path) -> NDArray[np.float32]:
    """What is drawn in each labelled icon, shape (n, 24 x 24)."""
    with zipfile.ZipFile(archive) as icons:
        names = [name for name in icons.namelist() if name.endswith(".png")]
        return np.stack([shape_of(Image.open(io.BytesIO(icons.read(name)))) for name in names])


def shape_of(pixels: Image.Image) -> NDArray[np.float32]:
    """What is drawn, whatever its size, place and colour: a unit vector, shape (24 x 24).

    The product of two says how much the drawings agree: 1 if they are the same.
    """
    ink = Image.fromarray(255 - np.asarray(pixels.convert("RGB")).min(axis=2))
    box = ink.point([255 * (value > 40) for value in range(256)]).getbbox() or (0, 0, 1, 1)
    cut = ink.crop(box)
    side = max(cut.size)
    paper = Image.new("L", (side, side))
    paper.paste(cut, ((side - cut.width) // 2, (side - cut.height) // 2))
    small = paper.filter(ImageFilter.GaussianBlur(side / 48)).resize((24, 24), Image.Resampling.BOX)
    flat = np.asarray(small, np.float32).ravel()
    flat = flat - flat.mean()
    return np.asarray(flat / max(float(np.linalg.norm(flat)), 1e-6), np.float32)


def mirrored(shapes: NDArray[np.float32]) -> NDArray[np.float32]:
    """The shapes of the same drawings seen in a mirror."""
    return shapes.reshape(-1, 24, 24)[:, :, ::-1].reshape(len(shapes), -1)


def unlike(drawings: Sequence[Drawing], labelled: NDArray[np.float32]) -> list[Drawing]:
    """The drawings that look like no labelled icon, mirrored neither, and like no drawing before them."""
    known = np.concatenate([labelled, mirrored(labelled)])
    new = [drawing for drawing in drawings if (known @ drawing.shape).max() <= NEAR_DUPLICATE]
    shapes = np.stack([drawing.shape for drawing in new])
    alike = shapes @ shapes.T > REPEAT
    kept = np.zeros(len(new), bool)
    for row in range(len(new)):
        kept[row] = not (alike[row] & kept).any()
    return [drawing for drawing, keep in zip(new, kept, strict=True) if keep]


# -- what comes out


def attribution(package: Path, pool: Sequence[Drawing]) -> str:
    """Whose drawings these are, source by source, image by image.

    Raises:
        SystemExit: a set may not be passed on.
    """
    collections = json.loads((package / "collections.json").read_text(encoding="utf-8"))
    lines = [
        f"Unlabelled images, drawn at {SIDE} x {SIDE} from Debian's {OPENCLIPART} and from {PACKAGE}.",
        "Each source: title, author, licence; then its images, with their authors where they say them.",
        "A folder is named for a style. Where a style is held out, its folder must stay out of what is",
        "learnt from; and where line drawings or solid ones are held out, both.",
    ]
    for source in sorted({drawing.source for drawing in pool}):
        lines += ["", f"{source}: {_terms(source, collections)}"]
        lines += [
            f"  {drawing.path.removeprefix('unlabelled/')}"
            + (f" ({drawing.author})" if drawing.author else "")
            for drawing in pool
            if drawing.source == source
        ]
    return "\n".join(lines) + "\n"


def _terms(source: str, collections: dict[str, Any]) -> str:
    if source == "openclipart":
        return (
            "Open Clip Art Library, its contributors, dedicated to the public domain (http://openclipart.org)"
        )
    about, licence = collections[source], collections[source]["license"]
    if licence.get("spdx") not in LICENCES:
        raise SystemExit(f"the set {source} is under {licence}, which does not let it be passed on")
    return f"{about['name']}, {about['author']['name']}, {licence['spdx']} {licence.get('url', '')}".strip()


def write_pool(path: Path, pool: Iterable[Drawing], attributed: str) -> None:
    """Write the zip; the same drawings give the same bytes."""
    ordered = sorted(pool, key=lambda drawing: drawing.path)
    images = ((drawing.path, drawing.webp) for drawing in ordered)
    archived(path, [("unlabelled/ATTRIBUTION.txt", attributed.encode()), *images])


def write_sheets(folder: Path, pool: Sequence[Drawing]) -> None:
    """Pictures of 400 images each, by style."""
    folder.mkdir(parents=True, exist_ok=True)
    for style in sorted({drawing.style for drawing in pool}):
        members = [drawing for drawing in pool if drawing.style == style]
        for number, start in enumerate(range(0, len(members), 400)):
            sheet = Image.new("RGB", (20 * SIDE, 20 * SIDE), "white")
            for place, drawing in enumerate(members[start : start + 400]):
                picture = Image.open(io.BytesIO(drawing.webp))
                sheet.paste(picture, (place % 20 * SIDE, place // 20 * SIDE))
            sheet.save(folder / f"{style}-{number}.png")


if __name__ == "__main__":
    main()
