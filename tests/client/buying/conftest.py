"""A client in a hurry, for tests of what it does when a request fails."""

import pytest

from client.buying import transport


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once, and give up after the last try."""
    monkeypatch.setattr(transport, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(transport, "PATIENCE", 0.0)
