"""Tests of the names and addresses of machines."""

import pytest

from shared.hosts import subscriber


@pytest.mark.parametrize(
    ("host", "whose"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2::7", "2001:0db8:0001:0002::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:0db8:0001:0002::/64"),
        ("2001:db8:1:3::7", "2001:0db8:0001:0003::/64"),
        ("::1", "::1"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("fe80::7%eth0", "fe80:0000:0000:0000::/64"),
        ("nowhere", "nowhere"),
    ],
)
def test_all_addresses_of_a_network_that_one_subscriber_has_are_one(host: str, whose: str) -> None:
    assert subscriber(host) == whose
