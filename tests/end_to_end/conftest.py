"""What the tests of whole runs share."""

from collections.abc import Iterator

import pytest

from client.results import speed


@pytest.fixture(scope="session", autouse=True)
def brief() -> Iterator[None]:
    """Measure the speed of students for an instant: four long measurements are a third of a short run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed, "_SECONDS", 0.01)
        yield


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher knows little about toy pictures; here all that it says is learnt from."""
    monkeypatch.setattr("client.runs.forecast.TRUSTED", 0.0)
