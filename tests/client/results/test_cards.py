"""Results in a notebook: cards that carry what they need, and nothing that a name could do in them."""

import re
import sys

import pandas
import pytest

from client.errors import UsageError
from client.learning.student_metadata import StudentMetadata
from client.results.comparison_table import Setting, as_card
from client.results.records import Plan, Summary
from client.results.rendering import render
from client.results.run_result import RunResult
from tests.client.results.test_records import PLAN, SUMMARY

HOSTILE = "<img src=x onerror=alert(1)>\u202e"
ACTIVE = re.compile(r"<script|<img|<iframe|javascript:|https?:|@import|url\(|\u202e", re.IGNORECASE)


def _cards() -> dict[str, str]:
    plan = Plan.model_validate(
        {**PLAN, "target_domain": HOSTILE, "images_by_domain": {HOSTILE: 3}, "left_out": {HOSTILE: 1}}
    )
    summary = Summary.model_validate(SUMMARY)
    renamed = {
        "in_domain": 0.5,
        "out_of_domain": 0.25,
        "by_domain": {HOSTILE: 0.25},
        "images_by_domain": {HOSTILE: 8},
    }
    summary = Summary.model_validate(
        {**summary.model_dump(), "target_domain": HOSTILE, "accuracy": {**renamed, "worst_domain": HOSTILE}}
    )
    runs = [RunResult(m, HOSTILE, s, 0.9, 0.7 + s / 10, 5, 10, 1.0) for m in ("erm", HOSTILE) for s in (0, 1)]
    setting = Setting(HOSTILE, {HOSTILE: 3}, 2, HOSTILE, 32, HOSTILE, None, "cpu", 4)
    metadata = StudentMetadata.from_file(
        {"student": HOSTILE, "reliability": "[[0.5, 0.25, 8], [0.9, 1.0, 8]]"}
    )
    student = render("student_card.html", student=metadata, classes=[HOSTILE], image_size=32, asking=[])
    return {
        "plan": plan._repr_html_(),
        "summary": summary._repr_html_(),
        "comparison": as_card(runs, setting),
        "student": student,
    }


def test_a_card_shows_names_as_they_are_and_fetches_and_runs_nothing() -> None:
    for name, card in _cards().items():
        assert "&lt;img src=x" in card, name
        assert not ACTIVE.search(card), name


def test_a_card_says_what_its_result_says() -> None:
    cards = _cards()
    assert "25.0%" in cards["summary"]
    assert re.search(r"<b>80\.0 ± 0\.0|75\.0 ± 7\.1", cards["comparison"])
    assert f"<b>{PLAN['purchase']['to_buy']:,}</b>queries to buy" in cards["plan"]
    assert cards["student"].count("<circle") == 2


def test_colours_of_text_are_the_notebooks_own() -> None:
    style = re.search(r"<style>(.*?)</style>", _cards()["plan"], re.DOTALL)
    assert style is not None
    assert re.findall(r"(?<![-\w])color: ([^;]+)", style[1]) == [
        "inherit"
    ]  # so that it is read on dark pages
    assert {rule.strip()[:13] for rule in re.findall(r"([^{}]+){", style[1])} == {".tuition-card"}


def test_tables_of_pandas_have_the_numbers_of_their_results(monkeypatch: pytest.MonkeyPatch) -> None:
    summary = Summary.model_validate(SUMMARY)
    table = summary.to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert dict(zip(table["domain"], table["accuracy"], strict=True)) == summary.accuracy.by_domain
    to_buy = Plan.model_validate(PLAN).to_pandas()
    assert to_buy["to_buy"].sum() == sum(
        count for each in PLAN["purchase"]["to_buy_by_domain_and_class"].values() for count in each.values()
    )
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match="pip install pandas"):
        summary.to_pandas()
