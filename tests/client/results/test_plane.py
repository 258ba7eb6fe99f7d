"""A plan's advice is read from the plane as it was measured, and says where that ends."""

import pytest

from client.results.expectations import GAINED
from client.results.plane import Plane, PlaneCell, measured_plane

PLANE = Plane(
    image_size=64,
    steps=100,
    styles=["emoji"],
    seeds=1,
    cells=[
        PlaneCell(labels=labels, queries=queries, accuracy=accuracy)
        for labels, row in {
            1: {0: 30.0, 100: 60.0, 1000: 60.5},
            7: {0: 50.0, 100: 70.0, 1000: 75.0},
            31: {0: 70.0, 100: 70.0, 1000: 70.9},
        }.items()
        for queries, accuracy in row.items()
    ],
)


@pytest.mark.parametrize(
    ("labels", "queries", "said"),
    [
        (
            1.5,
            100,
            "with 1 labels a class (64 px, 100 steps, emoji held out, 1 seed) a student had 30.0% without",
        ),
        (1, 100, "60.0% with as many as here, as much as about 15 labels a class gave without them."),
        (1, 1000, "100 queries did as well there: begin with --budget 100."),
        (7, 1000, "75.0% with as many as here, which 31 labels a class did not reach without them."),
        (
            31,
            1000,
            "no gain beyond chance. Train with --method label-only first, and buy if that falls short.",
        ),
        (200, 1000, "What queries are worth with 200 labels a class was not measured on icons."),
    ],
)
def test_advice_is_that_of_the_nearest_row(labels: float, queries: float, said: str) -> None:
    assert said in PLANE.advice(labels, queries)


def test_the_plane_that_plans_read_is_that_of_the_documents() -> None:
    plane = measured_plane()
    assert (plane.image_size, plane.steps, plane.seeds, len(plane.styles)) == (128, 1200, 3, 5)
    everything = max(cell.labels for cell in plane.cells)
    free, labelled, pool = sorted(
        (cell.queries, cell.accuracy) for cell in plane.cells if cell.labels == everything
    )
    gains = [labelled[1] - free[1], pool[1] - labelled[1]]
    assert gains == pytest.approx(list(GAINED.values()), abs=0.11)
    assert "no gain beyond chance" in plane.advice(everything, labelled[0])
    assert "no gain" not in plane.advice(everything, pool[0])
