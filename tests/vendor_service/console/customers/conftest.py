"""The vendor whose console these tests visit."""

from collections.abc import Iterator

import pytest

from tests.vendor_service.console.customers.people import CAT, admin_of, signed_in
from tests.vendor_service.console.visits import Visit
from tests.vendor_service.local_vendor import LocalVendor, image_input


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalVendor]:
    folder = tmp_path_factory.mktemp("vendor")
    with LocalVendor(folder, batch_store=str(folder / "store")) as local:
        yield local


@pytest.fixture(scope="module")
def reader(vendor: LocalVendor) -> Visit:
    key = vendor.key(quota=100, spend_limit_micros=10**6, queries_per_second=100)
    vendor.embed(key, CAT, image_input())
    return signed_in(vendor, key)


@pytest.fixture(scope="module")
def admin(vendor: LocalVendor) -> Visit:
    return admin_of(vendor, vendor.key())
