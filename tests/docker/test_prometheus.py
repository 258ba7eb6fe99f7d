"""A real Prometheus with our configuration: it scrapes a vendor, and can evaluate whatever is asked of it."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.docker.test_observability import FOLDER, panels, rules
from tests.support.vendor_process import VendorProcess, held_port, wait_until
from tests.vendor_service.local_vendor import image_input

PROMTOOL, PROMETHEUS = shutil.which("promtool"), shutil.which("prometheus")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="needs promtool (apt-get install promtool)")
needs_prometheus = pytest.mark.skipif(
    PROMETHEUS is None, reason="needs Prometheus (apt-get install prometheus)"
)
GRAFANA = {"$instance": ".*", "$__rate_interval": "1m"}  # what a dashboard's variables become


@pytest.fixture(scope="module")
def prometheus(
    vendor_process: VendorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """Prometheus's own API, after it has scraped a vendor that served and refused."""
    assert PROMETHEUS is not None
    folder = tmp_path_factory.mktemp("prometheus")
    shutil.copy(FOLDER / "alerts.yml", folder)
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (scrape,) = config["scrape_configs"]
    del scrape["dns_sd_configs"]
    scrape["static_configs"] = [{"targets": [vendor_process.url.removeprefix("http://")]}]
    (folder / "prometheus.yml").write_text(json.dumps(config))
    held = held_port()
    address = f"127.0.0.1:{held.getsockname()[1]}"
    options = [f"--web.listen-address={address}", "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([PROMETHEUS, *options], cwd=folder, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://{address}/api/v1", timeout=10) as http:
            wait_until(lambda: _is_ready(address) or process.poll() is not None, 30)
            wait_until(lambda: bool(_query(http, "up == 1")), 30)
            _trade(vendor_process)
            wait_until(lambda: bool(_query(http, "count(rate(tuition_batch_size_count[1m])) == 2")), 30)
            wait_until(lambda: bool(_query(http, "rate(tuition_refused_inputs_total[1m])")), 30)  # the last
            yield http
    finally:
        process.terminate()
        process.wait(20)
        held.close()


def _trade(vendor: VendorProcess) -> None:
    inputs = [{"text": "a cat"}, image_input()]
    for key in (vendor.create_key(quota=10), vendor.create_key(quota=0)):
        headers = {"authorization": f"Bearer {key}"}
        httpx.post(f"{vendor.url}/embed", json={"inputs": inputs}, headers=headers, timeout=30)
    bad = {"inputs": [*inputs, {"image": "%"}], "on_error": "skip"}
    headers = {"authorization": f"Bearer {vendor.create_key()}"}
    httpx.post(f"{vendor.url}/embed", json=bad, headers=headers, timeout=30)


def _is_ready(address: str) -> bool:
    try:
        return httpx.get(f"http://{address}/-/ready").is_success
    except httpx.TransportError:
        return False


def _query(http: httpx.Client, expression: str) -> list[dict[str, Any]]:
    """The series that an expression comes to; what cannot be evaluated fails."""
    answer = http.get("/query", params={"query": expression})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]["result"]
    return found


@needs_promtool
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", FOLDER / "prometheus.yml"),
        ("test", "rules", Path(__file__).with_name("alerts.yml")),
        ("test", "rules", Path(__file__).with_name("alerts_over_days.yml")),
    ],
)
def test_promtool_finds_nothing_wrong(arguments: tuple[str, ...]) -> None:
    """The configuration is right, and each alert fires when it should and no sooner."""
    ran = subprocess.run([str(PROMTOOL), *arguments], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@needs_prometheus
def test_every_alert_is_evaluated(prometheus: httpx.Client) -> None:
    def loaded() -> list[dict[str, Any]]:
        groups = prometheus.get("/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    wait_until(lambda: all(rule["health"] != "unknown" for rule in loaded()))
    assert {rule["name"]: rule["health"] for rule in loaded()} == {rule["alert"]: "ok" for rule in rules()}


@needs_prometheus
def test_every_panel_shows_something(prometheus: httpx.Client) -> None:
    empty = set()
    for panel in panels():
        for target in panel.get("targets", []):
            expression = target["expr"]
            for name, value in GRAFANA.items():
                expression = expression.replace(name, value)
            if not _query(prometheus, expression):
                empty.add(panel["title"])
    # No GPU, and the first audit is ten minutes after a start.
    assert empty - {"Ledger verified"} == {"GPU memory"}
