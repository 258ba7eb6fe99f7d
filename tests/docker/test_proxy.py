"""The Caddyfile of the operations guide: Caddy takes it as it stands, and it lets through what it must."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.caddy import CADDY, caddyfile, started_caddy
from tests.support.vendor_process import VendorProcess, wait_until
from tests.vendor_service.local_vendor import image_input

LARGEST = 32 * 1024 * 1024  # bytes of a request


@pytest.fixture
def proxied(vendor_process: VendorProcess) -> Iterator[httpx.Client]:
    """Connections to a vendor through the proxy, with a key."""
    with started_caddy([vendor_process.url]) as url:
        headers = {"authorization": f"Bearer {vendor_process.create_key(quota=3)}"}
        with httpx.Client(base_url=url, headers=headers, timeout=60) as http:
            wait_until(lambda: http.get("/livez").is_success)
            yield http


def test_caddy_takes_the_file_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "Caddyfile").write_text(caddyfile())
    command = [CADDY, "validate", "--adapter", "caddyfile", "--config", "Caddyfile"]
    ran = subprocess.run(command, cwd=tmp_path, env={"HOME": str(tmp_path)}, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "not formatted" not in ran.stderr


def test_headers_pass_unchanged_both_ways_and_metrics_do_not(proxied: httpx.Client) -> None:
    body = {"inputs": [{"text": "a cat"}, image_input()]}
    headers = {"idempotency-key": "through a proxy", "x-max-cost-micros": "120"}
    first, again = (proxied.post("/embed", json=body, headers=headers) for _ in range(2))
    assert (first.status_code, again.json()["id"]) == (200, first.json()["id"])
    assert again.headers["idempotent-replayed"] == "true"
    assert first.headers["x-quota-remaining-queries"] == "1"
    assert {"x-request-id", "x-model-fingerprint", "server-timing"} <= first.headers.keys()
    assert proxied.get("/metrics").status_code == proxied.get("/metrics/").status_code == 404


@pytest.mark.parametrize("size", [LARGEST + 1, 2 * LARGEST])
def test_what_is_too_large_is_for_the_vendor_to_say(proxied: httpx.Client, size: int) -> None:
    answer = proxied.post("/embed", content=b"x" * size)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
