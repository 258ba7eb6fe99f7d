"""Fixtures for whole runs: short training and no ONNX file, wherever `briefly` is imported."""

from collections.abc import Iterator

import pytest

from client.errors import ClientError
from client.learning.recipe import RECIPES
from client.results.onnx_classifier import require_onnx
from tests.support.quick import BRIEF


@pytest.fixture(autouse=True, scope="module")
def briefly() -> Iterator[None]:
    """Have runs train on small batches, as commands do that tests run in a process of their own.

    And have them write no ONNX file, as where the package is missing: it is a third of a short run.
    """

    def refuse() -> None:
        raise ClientError("the tests ask for none.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, "default", BRIEF)
        patch.setattr("client.results.expectations.Recipe", lambda: BRIEF)
        patch.setattr("client.runs.conclusion.require_onnx", refuse)
        yield


@pytest.fixture
def onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have runs write an ONNX file all the same."""
    monkeypatch.setattr("client.runs.conclusion.require_onnx", require_onnx)
