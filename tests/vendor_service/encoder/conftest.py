"""Fixtures of the encoder's tests."""

import pytest


@pytest.fixture
def without_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have models run as they are: a graph takes longer to make than all else that a start does."""
    monkeypatch.setattr("vendor_service.encoder.clip.traced", lambda model, name, *_: getattr(model, name))
    monkeypatch.setattr(
        "vendor_service.encoder.short_texts.as_graph", lambda model, name, *_: getattr(model, name)
    )
