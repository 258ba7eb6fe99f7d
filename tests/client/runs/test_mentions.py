"""Notes before a run."""

from io import StringIO

import pytest
from rich.console import Console

from client.learning.recipe import PAPER, RECIPES, Recipe
from client.progress import Display
from client.runs.mentions import mention_arithmetic
from tests.client.cards import MODEL


@pytest.mark.parametrize(
    ("recipe", "dtype", "said"),
    [
        (PAPER, "bfloat16", True),
        (RECIPES["paper-domainnet"], "int8", True),
        (PAPER, "float32", False),
        (Recipe(), "bfloat16", False),
    ],
)
def test_the_papers_recipe_asks_for_a_teacher_in_float32(recipe: Recipe, dtype: str, said: bool) -> None:
    out = StringIO()
    display = Display(Console(file=out, width=1000))
    for _ in range(2):
        mention_arithmetic(MODEL.model_copy(update={"dtype": dtype}), recipe, display)
    assert out.getvalue().count("ask for `vendor serve --dtype float32`") == said
