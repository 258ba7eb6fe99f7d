"""Fixtures for every test: one real vendor process and one real PostgreSQL, started when first asked for."""

from collections.abc import Iterator

import pytest

from tests.postgres import Postgres, started_postgres
from tests.vendor_process import VendorProcess


@pytest.fixture(scope="session")
def vendor_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VendorProcess]:
    """A vendor with the bundled model that all tests share: open an account of your own, and stop nothing."""
    with VendorProcess(tmp_path_factory.mktemp("vendor")) as vendor:
        yield vendor


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL that all tests share: make a database of your own."""
    with started_postgres() as server:
        yield server
