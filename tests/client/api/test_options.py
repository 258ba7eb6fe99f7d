"""The options of the Python API: their defaults, what they refuse, and what a run is made of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from client import (
    CompareOptions,
    DistillOptions,
    EmbedOptions,
    Recipe,
    Variant,
    VendorOptions,
)
from client.api.settling import run_config
from client.errors import UsageError


def _options(**given: Any) -> DistillOptions:
    return DistillOptions(**{"data": Path("toy"), "target_domain": "red", **given})


def test_vendor_and_cache_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUITION_VENDOR_URL", "https://vendor.example")
    monkeypatch.setenv("TUITION_TEACHER", "jina")
    monkeypatch.setenv("TUITION_CACHE", "bought.db")
    assert VendorOptions() == VendorOptions(
        vendor="https://vendor.example", teacher="jina", cache=Path("bought.db")
    )
    assert VendorOptions(vendor="http://other").vendor == "http://other"
    monkeypatch.setenv("TUITION_TEACHER", "telepathy")
    with pytest.raises(ValidationError, match="telepathy"):
        VendorOptions()
    for name in ("TUITION_VENDOR_URL", "TUITION_TEACHER", "TUITION_CACHE"):
        monkeypatch.delenv(name)
    assert VendorOptions() == VendorOptions(vendor=None, teacher="tuition", cache=None)


@pytest.mark.parametrize(
    "given",
    [
        {"budget": -1},
        {"image_size": 8},
        {"select": "best"},
        {"recipe": "secret"},
        {"bugdet": 5},
    ],
    ids=str,
)
def test_a_value_that_an_option_does_not_take_is_named(given: dict[str, Any]) -> None:
    (name,) = given
    with pytest.raises(ValidationError, match=name):
        _options(**given)


def test_words_are_no_list() -> None:
    with pytest.raises(ValidationError, match="methods"):
        CompareOptions(data=Path("toy"), out=Path("table"), methods="erm")  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="texts"):
        EmbedOptions(texts="a cat")  # type: ignore[arg-type]


def test_a_run_is_what_the_command_line_makes_of_the_same_options() -> None:
    config = run_config(_options(method="erm+swad", steps=7, seed=3))
    assert (config.data, config.seed, config.image_size) == (Path("toy").resolve(), 3, 224)
    assert config.recipe == replace(Recipe().with_steps(7), selection="swad")


def test_a_recipe_may_be_ones_own() -> None:
    own = Recipe(learning_rate=3e-4)
    assert run_config(_options(recipe=own)).recipe == own
    assert run_config(_options(recipe="paper")).recipe.steps == 5000


@pytest.mark.parametrize(
    "changed",
    [
        {"evaluations": 0},  # no state would be chosen, and the student would be as it began
        {"unlabelled_share": 1.0},
        {"steps": 0},
        {"images_per_domain": 0},
        {"learning_rate": 0.0},
        {"holdout": 1.5},
        {"selection": "typo"},
    ],
    ids=str,
)
def test_a_recipe_by_which_nothing_can_be_learnt_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    (name,) = changed
    own = replace(Recipe(), **changed)
    with pytest.raises(ValidationError, match=name):
        _options(recipe=own)
    with pytest.raises(ValidationError, match=name):
        CompareOptions(data=Path("toy"), out=tmp_path / "table", methods=(Variant("own", "erm", own),))


def test_what_nobody_knows_is_refused_before_anything_is_done() -> None:
    with pytest.raises(UsageError, match="no method 'magic'"):
        run_config(_options(method="magic"))
    with pytest.raises(UsageError, match="is not a file"):
        run_config(_options(student_weights=Path("missing")))
