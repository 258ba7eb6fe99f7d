"""Fixtures of the vendor's tests."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.postgres import Postgres
from tests.vendor_service.books import Books, opened_books, renewed
from tests.vendor_service.local_vendor import LocalVendor, ScriptedTexts, Vendor

LIMITS: dict[str, Any] = {
    "max_inputs": 8,
    "max_request_bytes": 200_000,
    "max_image_bytes": 100_000,
    "max_image_pixels": 250_000,
    "max_text_characters": 1000,
}


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Vendor]:
    """A vendor with small limits that one module's tests share; with `--on-ray` it is one on Ray."""
    folder = tmp_path_factory.mktemp("vendor")
    if request.config.getoption("--on-ray"):
        from tests.scale.ray_vendor import RayVendor

        with RayVendor(folder, **LIMITS) as on_ray:
            yield on_ray
    else:
        with LocalVendor(folder, **LIMITS) as local:
            yield local


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedTexts]:
    """Take hold of the model before a vendor is made; a held-up model is let go at the end."""
    script = ScriptedTexts(monkeypatch)
    yield script
    script.go.set()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, of each kind that there is."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'books.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.create_database()


@pytest.fixture(params=["sqlite", "postgresql"])
def books(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Books]:
    """Fresh books in a database of each kind."""
    url = f"sqlite:///{tmp_path / 'books.db'}"
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        url = renewed(server)
    with opened_books(url) as opened:
        yield opened
