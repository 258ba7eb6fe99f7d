"""Everyday words for what icons show."""

import tomllib
from collections import Counter

import pytest

from examples import icon_kinds
from examples.icon_kinds import Kinds

KINDS = Kinds.read()


@pytest.mark.parametrize(
    ("caption", "style", "kind"),
    [
        ("sailboat", "line", "ship"),
        ("cargo ship", "icon", "ship"),
        ("boat electric", "icon", "ship"),
        ("moon waning gibbous", "line", "moon"),
        ("first quarter moon face", "emoji", "moon"),
        ("grinning cat with smiling eyes", "emoji", "cat"),
        ("hot dog", "emoji", "hot dog"),
        ("light bulb", "solid", "light bulb"),
        ("blacktelephone", "emoji", "telephone"),
        ("wolfface", "emoji", "wolf"),
    ],
)
def test_a_thing_has_an_everyday_word(caption: str, style: str, kind: str) -> None:
    assert KINDS.of(caption, style) == kind


@pytest.mark.parametrize(
    ("caption", "style"),
    [
        ("ship wheel", "line"),  # a wheel
        ("cloud moon", "line"),  # a cloud as well
        ("share", "line"),  # ends as "hare" does
        ("arrow left", "line"),
        ("", "line"),
    ],
)
def test_what_may_be_something_else_has_none(caption: str, style: str) -> None:
    assert KINDS.of(caption, style) is None


def test_a_name_means_one_kind_of_thing() -> None:
    kinds = tomllib.loads(icon_kinds.KINDS.read_text())["kinds"]
    names = Counter(name for kind, others in kinds.items() for name in (kind, *others))
    assert max(names.values()) == 1
    assert all(KINDS.by_name[kind] == kind for kind in kinds)
