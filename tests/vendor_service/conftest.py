"""Fixtures of the vendor's tests."""

from collections.abc import Iterator

import pytest

from tests.vendor_service.local_vendor import LocalVendor, ScriptedTexts


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalVendor]:
    """A vendor with small limits that one module's tests share."""
    limits = {"max_inputs": 8, "max_request_bytes": 200_000, "max_image_bytes": 100_000}
    with LocalVendor(
        tmp_path_factory.mktemp("vendor"), max_image_pixels=250_000, max_text_characters=1000, **limits
    ) as local:
        yield local


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedTexts]:
    """Take hold of the model before a vendor is made; a held-up model is let go at the end."""
    script = ScriptedTexts(monkeypatch)
    yield script
    script.go.set()
