"""Tests of the names and addresses of machines."""

import pytest

from shared.hosts import is_same_site, subscriber


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


@pytest.mark.parametrize(
    ("headers", "own"),
    [
        ({}, True),  # a program
        ({"origin": "http://127.0.0.1:80"}, True),
        ({"origin": "https://127.0.0.1:80"}, True),  # a proxy has undone its TLS
        ({"sec-fetch-site": "same-origin", "origin": "https://proxied.example"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"origin": "http://127.0.0.1:8000"}, False),  # another server of this machine
        ({"origin": "http://127.0.0.1"}, False),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "http://127.0.0.1:80.evil.example"}, False),
        ({"origin": "http://127.0.0.1:80", "sec-fetch-site": "cross-site"}, False),
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
        ({"sec-fetch-site": "same-site"}, False),
    ],
)
def test_a_page_is_of_the_very_host_and_port_that_it_asks(headers: dict[str, str], own: bool) -> None:
    assert is_same_site({"host": "127.0.0.1:80", **headers}) == own
