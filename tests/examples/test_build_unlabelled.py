"""The pool without labels: who drew it, in which style, and that no labelled icon is in it."""

import io
import re
import tomllib
from collections import Counter
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from client.data.bundled_set import ICONS, UNLABELLED
from examples import build_icons, build_unlabelled
from examples.build_unlabelled import (
    NEAR_DUPLICATE,
    SIDE,
    attribution,
    icons_of,
    illustrations,
    labelled_shapes,
    make_drawing,
    mirrored,
    shape_of,
    squared,
    style_of,
    unlike,
    write_pool,
)
from examples.icon_corpus import read_sets
from tests.examples.packages import BAR, DISC, RED_DISC, RING, TRIANGLE, write_package

RULES = tomllib.loads(build_unlabelled.RULES.read_text(encoding="utf-8"))
CLIPART = """<svg xmlns="http://www.w3.org/2000/svg" width="40mm" height="20mm" viewBox="0 0 400 200"
  xmlns:cc="cc" xmlns:dc="dc" xmlns:rdf="rdf"><metadata>
  <dc:creator><cc:Agent><dc:title>Ann &amp; Bo</dc:title></cc:Agent></dc:creator>
  <cc:license rdf:resource="{licence}"/></metadata>{body}</svg>"""
PUBLIC_DOMAIN = "http://web.resource.org/cc/PublicDomain"


def disc(colour: str = "black", size: int = 60, at: int = 20) -> Image.Image:
    pixels = Image.new("RGB", (SIDE, SIDE), "white")
    ImageDraw.Draw(pixels).ellipse((at, at, at + size, at + size), fill=colour)
    return pixels


def tent(size: int, colour: str) -> Image.Image:
    pixels = Image.new("RGB", (SIDE, SIDE), "white")
    ImageDraw.Draw(pixels).polygon([(20, 20 + size), (20 + size // 2, 20), (20 + size, 20 + size)], colour)
    return pixels


@pytest.mark.slow
def test_no_drawing_of_the_pool_is_like_a_labelled_icon() -> None:
    known = labelled_shapes(ICONS)
    known = np.concatenate([known, mirrored(known)])
    with ZipFile(UNLABELLED) as archive:
        names = [name for name in archive.namelist() if name.endswith(".webp")]
        shapes = np.stack([shape_of(Image.open(io.BytesIO(archive.read(name)))) for name in names])
    assert 4000 <= len(names) <= 6500
    alike = (shapes @ known.T).max(axis=1)
    assert alike.max() <= NEAR_DUPLICATE + 1e-5, names[int(alike.argmax())]


def test_every_source_of_the_pool_may_be_passed_on() -> None:
    with ZipFile(UNLABELLED) as archive:
        sources = Counter(name.rpartition("/")[2].partition("__")[0] for name in archive.namelist()[1:])
        told = archive.read("unlabelled/ATTRIBUTION.txt").decode()
    assert set(sources) == {"openclipart", *RULES["sets"]}
    for source in sources:
        (terms,) = re.findall(rf"^{source}: (.*)$", told, re.MULTILINE)
        assert (
            "public domain" in terms
            if source == "openclipart"
            else any(licence in terms for licence in build_icons.LICENCES)
        )


def test_each_style_that_may_be_held_out_says_what_must_stay_out() -> None:
    with ZipFile(UNLABELLED) as archive:
        styles = {name.split("/")[1] for name in archive.namelist()[1:]}
    rules = build_icons.read_rules(build_icons.RULES)
    assert set(RULES["exclude"]) == set(rules.domains)
    for held_out, excluded in RULES["exclude"].items():
        assert set(excluded) <= styles
        assert held_out in excluded or held_out not in styles


def test_no_set_of_the_pool_is_labelled_or_teaches_the_teacher() -> None:
    labelled = {each.name for each in build_icons.read_rules(build_icons.RULES).sets}
    assert set(RULES["sets"]).isdisjoint(labelled | {each.name for each in read_sets()})


def test_a_shape_is_the_same_in_another_size_place_and_colour_and_a_mirror_is_seen() -> None:
    plain = shape_of(disc())
    assert plain @ shape_of(disc(colour="orange", size=30, at=70)) > 0.98
    assert plain @ shape_of(tent(60, "black")) < NEAR_DUPLICATE
    corner = disc()
    corner.paste("black", (0, 0, 40, 20))
    seen = shape_of(ImageOps.mirror(corner))
    assert shape_of(corner) @ seen < NEAR_DUPLICATE
    assert mirrored(shape_of(corner)[None])[0] @ seen > 0.99


def test_what_is_like_a_labelled_icon_or_an_earlier_drawing_is_left_out() -> None:
    corner = disc()
    corner.paste("black", (0, 0, 40, 20))
    drawn = [
        make_drawing("set", name, "", pixels, coloured="colour")
        for name, pixels in {
            "disc": disc(),
            "corner": corner,
            "tent": tent(60, "black"),
            "red-tent": tent(90, "red"),
        }.items()
    ]
    left = unlike(drawn, np.stack([shape_of(disc(size=40)), shape_of(ImageOps.mirror(corner))]))
    assert [each.name for each in left] == ["tent"]


def test_styles_are_told_by_colour_and_thickness() -> None:
    ring = Image.new("RGB", (SIDE, SIDE), "white")
    ImageDraw.Draw(ring).ellipse((20, 20, 100, 100), outline="black", width=5)
    assert style_of(ring) == "line"
    assert style_of(disc()) == "solid"
    assert style_of(ring.resize((32, 32)).resize((SIDE, SIDE))) == "line"
    assert style_of(disc(colour="red")) is None
    assert style_of(disc(colour="lightgrey")) is None


def test_a_drawing_is_cut_to_what_is_drawn() -> None:
    page = Image.new("RGBA", (400, 800))
    assert squared(page) is None
    page.paste("black", (10, 20, 60, 45))
    pixels = squared(page)
    assert pixels is not None
    ink = np.asarray(pixels.convert("L")) < 128
    assert (ink.any(axis=0).sum(), ink.any(axis=1).sum()) == pytest.approx((118, 59), abs=2)


def test_only_what_is_in_the_public_domain_and_wanted_is_taken(tmp_path: Path) -> None:
    red = '<rect x="50" y="50" width="80" height="40" fill="#d22"/>'
    for name, licence, body in (
        ("food/pie", PUBLIC_DOMAIN, red),
        ("food/cake", "http://creativecommons.org/licenses/by/2.0/", red),
        ("food/nothing", PUBLIC_DOMAIN, ""),
        ("computer/icons/disk", PUBLIC_DOMAIN, red),
        ("people/smilies/smiley001", PUBLIC_DOMAIN, red),
        ("tools/flag", PUBLIC_DOMAIN, red),
        ("tools/pen", PUBLIC_DOMAIN, red.replace("#d22", "black")),
        ("logos/shop", PUBLIC_DOMAIN, red),
    ):
        file = tmp_path / f"{name}.svg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(CLIPART.format(licence=licence, body=body))
    found = {each.name: (each.style, each.author) for each in illustrations(tmp_path, RULES["openclipart"])}
    assert found == {
        "food--pie": ("illustration", "Ann & Bo"),
        "computer--icons--disk": ("colour", "Ann & Bo"),
        "people--smilies--smiley001": ("emoji", "Ann & Bo"),
        "tools--pen": ("solid", "Ann & Bo"),
    }


def test_the_same_drawings_give_the_same_bytes_and_say_whose_they_are(tmp_path: Path) -> None:
    icons = {
        "sun": RING.replace('width="2"', 'width="1"'),
        "arrow-up": BAR,
        "tent": TRIANGLE,
        "disc": DISC,
        "red": RED_DISC,
    }
    package = write_package(tmp_path / "package", {"thin": icons})
    pool = icons_of(package, "thin", "^(?!disc)")
    assert {each.name: each.style for each in pool} == {"sun": "line", "tent": "solid", "red": "colour"}
    told = attribution(package, pool)
    assert "\nthin: Thin, Team thin, MIT\n" in told
    assert "\n  line/thin__sun.webp\n" in told
    write_pool(tmp_path / "one.zip", pool, told)
    write_pool(tmp_path / "two.zip", reversed(pool), told)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_a_set_that_may_not_be_passed_on_stops_the_build(tmp_path: Path) -> None:
    package = write_package(tmp_path / "package", {"thin": {"sun": RING}}, licence="CC-BY-NC-4.0")
    with pytest.raises(SystemExit, match="thin"):
        attribution(package, icons_of(package, "thin", ""))
