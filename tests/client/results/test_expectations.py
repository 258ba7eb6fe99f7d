"""What a plan says that each kind of spending gained is what the documents measured."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from client.results.expectations import GAINED, VIEWS_BESIDE_A_POOL, gains_of

_DOCS = Path(__file__).parents[3] / "docs"


def _means() -> dict[str, float]:
    """The mean over styles of each method, from the table of docs/results.md."""
    rows = re.findall(r"^\| ([a-z0-9:+-]+) \|(.*)\|$", (_DOCS / "results.md").read_text(), re.MULTILINE)
    return {
        name: float(cells.split("|")[5].strip(" *").split(" ")[0])
        for name, cells in reversed(rows)  # of several tables, the first
        if cells.count("|") == 10 and "±" in cells
    }


def test_gains_are_those_of_the_table() -> None:
    means = _means()
    order = ("label-only", "text-only", "vl2v-adip", "vl2v-adip:2")
    gains = [means[after] - means[before] for before, after in pairwise(order)]
    assert [GAINED["texts"], GAINED["labelled"], GAINED["views"]] == pytest.approx(gains, abs=0.051)


def test_the_gain_of_unlabelled_images_is_that_of_the_experiment() -> None:
    text = (_DOCS / "experiments.md").read_text()
    table = text.split("## Images without labels")[1].split("\n\n")[2]
    rows = re.findall(r"^\| [a-z]+ \| ([\d.]+) ±.*?\|.*?\| ([\d.]+) ±", table, re.MULTILINE)
    assert len(rows) == 5
    gain = sum(float(pooled) - float(alone) for alone, pooled in rows) / 5
    assert GAINED["unlabelled"] == pytest.approx(gain, abs=0.051)


@pytest.mark.parametrize(("method", "known"), [("vl2v-adip", True), ("vl2v-adip+swad", True), ("kd", False)])
def test_only_the_method_that_was_measured_has_expectations(method: str, known: bool) -> None:
    assert gains_of(method, pool=False) == (GAINED if known else None)
    assert gains_of(method, pool=True) == ({**GAINED, "views": VIEWS_BESIDE_A_POOL} if known else None)
