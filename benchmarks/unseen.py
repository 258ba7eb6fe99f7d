"""Students of all five bundled styles, tested on styles that are in none of the bundled archives.

    python -m benchmarks.unseen --rows vl2v-adip vl2v-adip@pool

So a customer trains: nothing is held out, and what the student will meet is unknown. unseen.toml says what
the styles are made of; their packages are fetched with apt-get, unless `--packages` names a folder of them. A
sealed style is asked with `--open STYLE`, after a recipe is frozen, and openings.csv keeps when, and by which
recipe. Rows are those of accuracy.py, and runs are on record as its are, a line a style.
"""

import argparse
import hashlib
import re
import subprocess
import tomllib
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from shutil import copytree
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from benchmarks.accuracy import Row, recipes
from benchmarks.records import ROOT, Record, made_with, record, recorded, sha256
from benchmarks.rivals import enrolled
from benchmarks.runs import (
    comparison_of,
    config_of,
    customer,
    icons,
    made_once,
    parser_of_runs,
    unpacked,
)
from client.data.bundled_set import UNLABELLED
from client.results.comparison_table import Spread
from client.results.predictions import LabelledPrediction, read_predictions
from client.runs.cells import Cell
from client.runs.comparison import ComparisonConfig
from examples.build_icons import RULES, SIDE, label_of, on_white, read_rules

STYLES: dict[str, dict[str, Any]] = tomllib.loads(
    Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
)["styles"]
OPENINGS = ROOT / "benchmarks" / "openings.csv"
UNSEEN = "unseen"  # the domain that all of them are in
# Of a class a font has many twins, as clock faces are: so many of them count.
_MOST_GLYPHS = 6
_OTHER_THINGS = frozenset({"earth"})  # the planet's sign
_MARGIN = SIDE // 16

Picture = tuple[str, str, Image.Image]


def main() -> None:
    """Run what has not been run, then print a table."""
    parser = parser_of_runs(__doc__, targets=[], seeds=(0, 1, 2))
    parser.add_argument("--rows", nargs="+", default=["vl2v-adip", "vl2v-adip@pool"], metavar="ROW")
    parser.add_argument("--open", nargs="+", default=[], choices=[n for n in STYLES if STYLES[n]["sealed"]])
    parser.add_argument("--packages", type=Path, help="the folder of Debian's packages; fetched by default")
    arguments = parser.parse_args()
    enrolled()
    styles = arguments.open or [name for name, style in STYLES.items() if not style["sealed"]]
    data = _data(styles, arguments.packages)
    rows = [Row(words) for words in arguments.rows]
    found = {
        row.words: [_run(arguments, row, seed, styles, data) for seed in arguments.seeds] for row in rows
    }
    print(f"| | {' | '.join(styles)} | mean |\n" + "|---" * (len(styles) + 2) + "|")
    for words, seeds in found.items():
        by_style = [[each[style] for each in seeds] for style in styles]
        means = [fmean(each.values()) for each in seeds]
        print(f"| {words} | {' | '.join(Spread.of(shares).show() for shares in [*by_style, means])} |")


def _run(
    arguments: argparse.Namespace, row: Row, seed: int, styles: Sequence[str], data: Path
) -> dict[str, float]:
    """The accuracy of a row and seed on each style, from the record; what is missing there is run."""
    folders = tuple(str(each) for each in sorted(unpacked(UNLABELLED).iterdir()) if each.is_dir())
    unlabelled = folders if row.pool else ()
    variant = row.variant(arguments.steps)
    config = config_of(arguments, UNSEEN, seed, variant, data=data, unlabelled=unlabelled)
    (cell,) = comparison_of(config).cells
    keys = {style: _made_with(cell, style) for style in styles}
    known = recorded()
    if any(key not in known for key in keys.values()):
        log_openings(styles, arguments.steps)
        with customer() as connection:
            comparison_of(config, connection).execute()
        record(_records(config, cell, keys))
        known = recorded()
    return {style: known[key].result.out_of_domain for style, key in keys.items()}


def _records(config: ComparisonConfig, cell: Cell, keys: dict[str, str]) -> list[Record]:
    by_style: dict[str, list[LabelledPrediction]] = defaultdict(list)
    for answer in read_predictions(cell.run.answers):
        if not answer.seen:
            by_style[Path(answer.image).name.partition("__")[0]].append(answer)
    name = f"unseen-{config.run.student}-{config.run.image_size}px-{cell.config.recipe.steps}"
    return [
        Record(
            key,
            name,
            "",
            replace(
                cell.result,
                target=style,
                out_of_domain=fmean(float(answer.right) for answer in by_style[style]),
            ),
        )
        for style, key in keys.items()
    ]


def _made_with(cell: Cell, style: str) -> str:
    """What decides a run's accuracy on a style: the run, whatever other styles it was asked about, and it."""
    return hashlib.sha256(f"{made_with(cell)} {style} {STYLES[style]['seal']}".encode()).hexdigest()[:12]


def log_openings(styles: Sequence[str], steps: int) -> None:
    """A line for each sealed style and recipe that it is opened by for the first time."""
    if not OPENINGS.exists():
        OPENINGS.write_text("when,style,seal,recipe\n", encoding="utf-8")
    recipe = hashlib.sha256(repr(recipes(steps)[""]).encode()).hexdigest()[:12]
    log = OPENINGS.read_text(encoding="utf-8")
    for name in styles:
        line = f"{name},{STYLES[name]['seal']},{recipe}"
        if STYLES[name]["sealed"] and line not in log:
            with OPENINGS.open("a", encoding="utf-8") as file:
                file.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%MZ},{line}\n")


# -- the images


def _data(styles: Sequence[str], packages: Path | None) -> Path:
    """The bundled icons, and beside their styles one domain of all these."""

    def lay(folder: Path) -> None:
        copytree(icons(), folder, dirs_exist_ok=True)
        for known in icons().glob("*/*"):  # a class without images has its folder too
            (folder / UNSEEN / known.name).mkdir(parents=True, exist_ok=True)
        for name in styles:
            for label, stem, picture in pictures_of(name, packages):
                picture.save(folder / UNSEEN / label / f"{name}__{stem}.png")

    return made_once(f"{icons().parent.name}-and-{'-'.join(styles)}", lay)


def pictures_of(name: str, packages: Path | None) -> list[Picture]:
    """The pictures of a style.

    Raises:
        SystemExit: they are not those that were sealed.
    """
    style = STYLES[name]
    with TemporaryDirectory() as scratch:
        root = _unpacked(style, packages, Path(scratch))
        drawn = sorted(
            _glyphs(style, root) if "fonts" in style else _stamps(style, root), key=lambda p: p[:2]
        )
    if (seal := seal_of(drawn)) != style["seal"]:
        raise SystemExit(f"{name} has the seal {seal}: these are not the images of unseen.toml")
    return drawn


def seal_of(pictures: Sequence[Picture]) -> str:
    """The SHA-256 (hex) of the classes and names; the bytes of their package have a digest of their own."""
    return hashlib.sha256("\n".join(f"{label}/{stem}" for label, stem, _ in pictures).encode()).hexdigest()


def _unpacked(style: dict[str, Any], packages: Path | None, scratch: Path) -> Path:
    name, _, _ = style["package"].partition("=")
    if packages is None:
        subprocess.run(["apt-get", "download", "--quiet=2", style["package"]], cwd=scratch, check=True)
    (archive,) = (packages or scratch).glob(f"{name}_*.deb")
    if sha256(archive) != style["sha256"]:
        raise SystemExit(f"{archive.name} is another package than {style['package']} of Debian")
    subprocess.run(["dpkg-deb", "--extract", archive, scratch / "files"], check=True)
    return scratch / "files"


def _glyphs(style: dict[str, Any], root: Path) -> Iterator[Picture]:
    """Characters whose names are those of a class, as icons' are (icons.toml)."""
    rules = read_rules(RULES)
    classes = {folder.name for folder in icons().glob("*/*")}
    by_class: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for code in range(0x2000, 0x1FB00):
        name = unicodedata.name(chr(code), "").lower().replace(" ", "-")
        label = (label_of(name, rules.classes) or "").replace(" ", "_")
        if label in classes and name not in _OTHER_THINGS and unicodedata.category(chr(code)) == "So":
            by_class[label].append((name, chr(code)))
    fonts = [
        ImageFont.truetype(str(root / each), style.get("grid", SIDE - 2 * _MARGIN)) for each in style["fonts"]
    ]
    for label, named in by_class.items():
        drawn = [(name, ink) for name, character in named if (ink := _ink(fonts, character)) is not None]
        for name, ink in sorted(drawn, key=lambda each: hashlib.sha256(each[0].encode()).digest())[
            :_MOST_GLYPHS
        ]:
            yield label, name, _fitted(ink, whole="grid" in style)


def _ink(fonts: Sequence[ImageFont.FreeTypeFont], character: str) -> Image.Image | None:
    """A character in black on white, cut to what is drawn, by the first font that has it."""
    for font in fonts:
        nothing, box = font.getmask("\U0010ffff"), font.getbbox(character)
        if bytes(font.getmask(character)) == bytes(nothing) or box[2] <= box[0]:
            continue
        picture = Image.new("RGB", (int(box[2] - box[0]), int(box[3] - box[1])), "white")
        pen = ImageDraw.Draw(picture)
        pen.fontmode = "1" if font.size < SIDE // 2 else "L"
        pen.text((-box[0], -box[1]), character, "black", font)
        return picture
    return None


def _stamps(style: dict[str, Any], root: Path) -> Iterator[Picture]:
    """Drawings and photographs whose paths are those of a class, by their PNG files."""
    folder = root / style["folder"]
    for file in sorted(folder.rglob("*.png")):
        path = file.relative_to(folder).with_suffix("").as_posix()
        for label, rule in style["classes"].items():
            if re.fullmatch(rule, path) and not path.endswith("_mirror"):
                with Image.open(file) as picture:
                    yield label, path.replace("/", "-"), _fitted(on_white(picture.convert("RGBA")))


def _fitted(picture: Image.Image, *, whole: bool = False) -> Image.Image:
    """The picture in the middle of a white square of `SIDE`; enlarged a `whole` number of times."""
    room = SIDE - 2 * _MARGIN
    scale = room / max(picture.size)
    scale = max(1, int(scale)) if whole else scale
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    small = picture.resize(size, Image.Resampling.NEAREST if whole else Image.Resampling.LANCZOS)
    paper = Image.new("RGB", (SIDE, SIDE), "white")
    paper.paste(small, ((SIDE - small.width) // 2, (SIDE - small.height) // 2))
    return paper


if __name__ == "__main__":
    main()
