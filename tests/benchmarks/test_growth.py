"""benchmarks/growth.py: work of several sizes is measured, and the page says what is on record."""

from pathlib import Path

import pytest

from benchmarks import growth, growth_books, growth_images, results_page
from benchmarks.costs import Cost
from benchmarks.growth import PICTURE, Line, tables_and_picture


def test_the_tables_and_the_picture_of_the_results_are_those_of_the_record() -> None:
    tables, picture = tables_and_picture()
    page = results_page.RESULTS.read_text(encoding="utf-8")
    assert results_page.written(page, growth.COMMAND, tables) == page
    assert PICTURE.read_text(encoding="utf-8") == picture
    assert {part.table for part in growth.PARTS.values()} == set(_heads(tables))


def _heads(tables: str) -> list[str]:
    return [table.split("|")[1].strip() for table in tables.split("\n\n")]


@pytest.mark.parametrize(
    ("flat", "seconds", "worst"),
    [(True, [1, 1.5, 1.2], 1.5), (False, [1, 5, 80], 1.6), (False, [1], None), (False, [2, 20, 100], 1.0)],
)
def test_the_worst_step_is_told(flat: bool, seconds: list[float], worst: float | None) -> None:
    costs = {10**at: Cost("work", each, flat) for at, each in enumerate(seconds)}
    assert Line("work", costs).worst == (None if worst is None else pytest.approx(worst))


def test_books_and_a_cache_of_a_size_are_measured(tmp_path: Path) -> None:
    books = {cost.what: cost for cost in growth_books.sqlite(200, tmp_path)}
    assert books["verification"].seconds > books["ledger page, the last"].seconds > 0
    assert not books["verification"].flat
    assert books["charge, in bulk"].flat
    costs = [*growth_images.files(150, tmp_path), *growth_images.cache(150, tmp_path)]
    assert [cost.what for cost in costs] == ["listing", "put", "opened", "1,000 at random", "all read"]
    assert len(list((tmp_path / "pool-150").rglob("*.jpg"))) == 150
