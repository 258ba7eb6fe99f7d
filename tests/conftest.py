"""Fixtures for every test: one real vendor process, started when the first test asks for it."""

from collections.abc import Iterator

import pytest

from tests.vendor_process import VendorProcess


@pytest.fixture(scope="session")
def vendor_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VendorProcess]:
    """A vendor with the bundled model that all tests share: open an account of your own, and stop nothing."""
    with VendorProcess(tmp_path_factory.mktemp("vendor")) as vendor:
        yield vendor
