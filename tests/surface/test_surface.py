"""What users can type, call, send, read and set is what was recorded until a commit records otherwise."""

import pytest

from tests.surface.record import SURFACES, difference


@pytest.mark.parametrize("name", SURFACES)
def test_the_surface_is_as_recorded(name: str) -> None:
    found = difference(name)
    assert not found, (
        f"the surface differs from what was recorded:\n{found}\n\n"
        "Where this is meant, run `python -m tests.surface --write` and commit the change with its reason."
    )
