"""What the tests of whole runs share."""

import pytest

from tests.support.brief import briefly, onnx

__all__ = ["briefly", "onnx"]


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher knows little about toy pictures; here all that it says is learnt from."""
    monkeypatch.setattr("client.runs.teacher_check.TRUSTED", 0.0)
