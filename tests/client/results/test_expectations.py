"""What a plan says that each kind of spending gained is what the documents measured."""

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from client.learning.recipe import PAPER, Recipe
from client.results.expectations import GAINED, gains_of

_DOCS = Path(__file__).parents[3] / "docs"


def _means() -> dict[str, float]:
    """The mean over styles of each method, from the table of docs/results.md that a plan speaks of."""
    section = (_DOCS / "results.md").read_text().split("## Is the student worth having?")[1].split("\n## ")[0]
    rows = re.findall(r"^\| \**([a-z0-9@+-]+)\** \|(.*)\|$", section.split("\n### ")[0], re.MULTILINE)
    return {
        name: float(cells.split("|")[5].strip(" *").split(" ")[0]) for name, cells in rows if "±" in cells
    }


def test_gains_are_those_of_the_table() -> None:
    means = _means()
    gains = [means[after] - means[before] for before, after in pairwise(_ORDER)]
    assert [GAINED["labelled"], GAINED["unlabelled"]] == pytest.approx(gains, abs=0.051)


_ORDER = ("label-only", "vl2v-adip", "vl2v-adip@pool")


@pytest.mark.parametrize(
    ("method", "recipe", "known"),
    [
        ("vl2v-adip", Recipe(), True),
        ("vl2v-adip", Recipe().with_steps(30), True),
        ("vl2v-adip", replace(Recipe(), holdout=0.1), False),
        ("vl2v-adip", PAPER, False),
        ("vl2v-adip+swad", Recipe(), False),
        ("kd", Recipe(), False),
    ],
)
def test_only_what_was_measured_has_expectations(method: str, recipe: Recipe, known: bool) -> None:
    assert gains_of(method, recipe, held_out=True) == (GAINED if known else None)
    by_labels = {"labelled": GAINED["labelled"]}  # a pool was measured on a style that is held out
    assert gains_of(method, recipe, held_out=False) == (by_labels if known else None)
