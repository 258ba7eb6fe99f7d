"""The data set's builder: strict names, no drawing on both sides of a split, the same bytes every time."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples import build_icons
from examples.build_icons import (
    ClassRule,
    IconSet,
    Rules,
    attribution,
    choose,
    draw_set,
    label_of,
    read_rules,
    tokens_of,
    without_repeats,
    write_archive,
)
from tests.examples.packages import BAR, DISC, RED_DISC, RING, TRIANGLE, write_package

SUN = ClassRule("sun", (("sun",),), frozenset({"bright"}), frozenset({"thick/sun-bright"}))
TENT = ClassRule("big tent", (("tent",), ("camp", "site")), frozenset(), frozenset())
RULES = Rules((IconSet("thin", "line"), IconSet("thick", "solid")), (SUN, TENT), per_cell=1)


def build(package: Path, out: Path) -> list[str]:
    drawn = [icon for each in RULES.sets for icon in draw_set(package, each, RULES.classes)]
    icons = choose(without_repeats(drawn)[0], RULES)
    write_archive(out, icons, attribution(package, icons))
    return [icon.path for icon in icons]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("sun", "sun"),
        ("sun-bright-24-filled", "sun"),
        ("camp-site", "big tent"),
        ("sun-tent", None),
        ("sunset", None),
        ("sun-behind-cloud", None),
        ("site-camp", None),
    ],
)
def test_a_name_makes_a_class_only_if_all_its_words_fit(name: str, label: str | None) -> None:
    assert label_of(name, RULES.classes) == label


def test_words_that_say_how_it_is_drawn_do_not_count() -> None:
    assert tokens_of("alarm-clock2-16-filled") == ["alarm", "clock"]


def test_one_icon_a_cell_of_classes_that_every_domain_has(tmp_path: Path) -> None:
    package = write_package(
        tmp_path / "package",
        {
            "thin": {"sun": RING, "sun-bright": BAR, "tent": TRIANGLE},
            "thick": {"sun": RED_DISC, "sun-bright": DISC},
        },
    )
    paths = build(package, tmp_path / "icons.zip")
    assert len(paths) == 2
    assert paths[0] in ("icons/line/sun/thin__sun.png", "icons/line/sun/thin__sun-bright.png")
    assert paths[1] == "icons/solid/sun/thick__sun.png"


def test_the_same_package_gives_the_same_bytes_and_says_whose_they_are(tmp_path: Path) -> None:
    package = write_package(tmp_path / "package", {"thin": {"tent": RING}, "thick": {"tent": TRIANGLE}})
    for name in ("one.zip", "two.zip"):
        build(package, tmp_path / name)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert "icons/solid/big_tent/thick__tent.png" in archive.namelist()
        about = archive.read("icons/ATTRIBUTION.txt").decode()
    assert "thick: Thick, Team thick, MIT" in about
    assert "  solid/big_tent/thick__tent.png" in about


def test_a_drawing_in_two_domains_is_in_neither(tmp_path: Path) -> None:
    package = write_package(
        tmp_path / "package", {"thin": {"sun": DISC, "tent": RING}, "thick": {"sun": DISC, "tent": TRIANGLE}}
    )
    assert {path.split("/")[2] for path in build(package, tmp_path / "icons.zip")} == {"big_tent"}


def test_a_set_that_may_not_be_passed_on_stops_the_build(tmp_path: Path) -> None:
    package = write_package(
        tmp_path / "package", {"thin": {"sun": RING}, "thick": {"sun": BAR}}, licence="CC-BY-NC-4.0"
    )
    with pytest.raises(SystemExit, match="thick"):
        build(package, tmp_path / "icons.zip")


def test_few_colours_make_a_small_file_of_the_same_pixels() -> None:
    pixels = Image.new("RGB", (96, 96), "white")
    pixels.paste((200, 30, 40), (10, 10, 50, 60))
    file = build_icons.encode(pixels)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(file)).convert("RGB")), np.asarray(pixels))
    assert len(file) < 400


def test_no_set_of_the_data_teaches_the_teacher() -> None:
    from examples.icon_corpus import read_sets

    data = {each.name for each in read_rules(build_icons.RULES).sets}
    assert data.isdisjoint(each.name for each in read_sets())
