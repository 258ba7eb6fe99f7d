"""What the tests of whole runs share."""

from collections.abc import Iterator

import pytest

from client.errors import ClientError
from client.results import speed


@pytest.fixture(scope="session", autouse=True)
def brief() -> Iterator[None]:
    """Measure the speed of students for an instant: four long measurements are a third of a short run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed, "_SECONDS", 0.01)
        yield


@pytest.fixture
def without_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have runs write no ONNX file, as where the package is missing: it is a third of a short run."""

    def refuse() -> None:
        raise ClientError("the tests ask for none.")

    monkeypatch.setattr("client.runs.conclusion.require_onnx", refuse)


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher knows little about toy pictures; here all that it says is learnt from."""
    monkeypatch.setattr("client.runs.forecast.TRUSTED", 0.0)
