"""What the bundled teacher learns from: names, drawings, and none of the data set's."""

import re
from pathlib import Path

import numpy as np
import pytest

from examples.build_icons import choose, draw_set, without_repeats, write_archive
from examples.icon_corpus import Corpus, SetRule, build_corpus, caption_and_style, enclosed_regions
from examples.train_icon_clip import Lessons, Schedule, concept_weights, kinds_of
from tests.examples.packages import BAR, DISC, RED_DISC, RING, TRIANGLE, write_package
from tests.examples.test_build_icons import RULES


@pytest.mark.parametrize(
    ("name", "rule", "expected"),
    [
        ("bell-ring-outline", SetRule("mdi"), ("bell ring", "line")),
        ("bell2-24-bold-duotone", SetRule("mdi"), ("bell", "duotone")),
        ("bell", SetRule("mdi"), ("bell", "icon")),
        (
            "weather-bell-solid",
            SetRule("p", "pixel art", without=re.compile("^weather-")),
            ("bell", "pixel art"),
        ),
    ],
)
def test_names_say_what_is_drawn_and_how(name: str, rule: SetRule, expected: tuple[str, str]) -> None:
    assert caption_and_style(name, rule, {}) == expected


def test_regions_are_what_lines_enclose() -> None:
    ink = np.zeros((96, 96), np.uint8)
    ink[10:60, 10:60] = 255
    ink[20:50, 20:50] = 0  # the larger
    ink[70:90, 70:90] = 255
    ink[75:85, 75:85] = 0
    regions = enclosed_regions(ink)
    assert regions[30, 30] == 1
    assert regions[80, 80] == 2
    assert regions[5, 5] == regions[15, 15] == 0


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    sets = {
        "thin": {"sun": RING},
        "thick": {"sun": BAR},
        "others": {"sun": BAR, "tent": TRIANGLE, "disc": DISC},
    }
    package = write_package(tmp_path / "package", sets | {"emoji": {"tent": RED_DISC}})
    drawn = [icon for each in RULES.sets for icon in draw_set(package, each, RULES.classes)]
    write_archive(tmp_path / "icons.zip", choose(without_repeats(drawn)[0], RULES), "")
    return build_corpus(package, [SetRule("others"), SetRule("emoji", "emoji")], tmp_path / "icons.zip")


def test_drawings_of_the_data_set_are_left_out(corpus: Corpus, tmp_path: Path) -> None:
    assert corpus.captions == ["disc", "tent", "tent"]
    assert corpus.styles == ["icon", "icon", "emoji"]
    assert (corpus.ink.shape, corpus.colours.shape) == ((2, 96, 96), (1, 96, 96, 4))
    corpus.save(tmp_path / "corpus.npz")
    assert Corpus.load(tmp_path / "corpus.npz").captions == corpus.captions


def test_things_are_drawn_oftener_than_what_no_emoji_names(corpus: Corpus) -> None:
    disc, tent, emoji = concept_weights(corpus, kinds_of(corpus)).tolist()
    assert disc < tent < emoji


def test_a_batch_follows_from_seed_and_step(corpus: Corpus) -> None:
    first, again = (Lessons(corpus, Schedule(batch=6), seed=3) for _ in range(2))
    one, same, other = first(5), again(5), first(6)
    assert (one.pictures.shape, one.tokens.shape) == ((6, 3, 64, 64), (6, 16))
    for part in ("pictures", "tokens", "names", "kinds"):
        assert getattr(one, part).equal(getattr(same, part))
    assert not one.pictures.equal(other.pictures)
