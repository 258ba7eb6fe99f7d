"""What the tests of whole runs share."""

import pytest

from client.errors import ClientError


@pytest.fixture
def onnx() -> None:
    """Have runs write an ONNX file all the same."""


@pytest.fixture(autouse=True)
def _without_onnx(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have runs write no ONNX file, as where the package is missing: it is a third of a short run."""

    def refuse() -> None:
        raise ClientError("the tests ask for none.")

    if "onnx" not in request.fixturenames:
        monkeypatch.setattr("client.runs.conclusion.require_onnx", refuse)


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher knows little about toy pictures; here all that it says is learnt from."""
    monkeypatch.setattr("client.runs.teacher_check.TRUSTED", 0.0)
