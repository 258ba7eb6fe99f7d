"""The server as a process: ready line, answers, signals, exit codes."""

import json
import os
import signal
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from shared.http.server import CannotServe, bind
from tests.support.forking import ForkedCommand
from tests.support.vendor_process import VendorProcess, wait_until
from tests.vendor_service.given_settings import GivenSettings
from vendor_service.errors import OperatorError
from vendor_service.run import serve
from vendor_service.run.settings import Settings


def run_vendor(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    log = folder / "stderr"
    log.write_text("")
    process = ForkedCommand("vendor_service.cli.main", arguments, folder, os.environ, log)
    printed, said = process.communicate(timeout=60)
    return subprocess.CompletedProcess(arguments, process.wait(), printed, said)


def read_settings(folder: Path, *options: str) -> Settings:
    """Settings with books in the folder, and these options."""
    given = {
        name.lstrip("-").replace("-", "_"): value for name, value in zip(*[iter(options)] * 2, strict=True)
    }
    return GivenSettings(**{"port": 0, "database_url": f"sqlite:///{folder / 'books.db'}", **given})


def ask(vendor: VendorProcess, api_key: str, text: str = "a photo of a cat") -> httpx.Response:
    headers = {"authorization": f"Bearer {api_key}"}
    return httpx.post(f"{vendor.url}/embed", json={"inputs": [{"text": text}]}, headers=headers, timeout=30)


def test_a_key_from_the_command_line_buys_an_embedding(vendor_process: VendorProcess, tmp_path: Path) -> None:
    books = ("--database-url", vendor_process.database_url, "--json")
    created = run_vendor(tmp_path, "accounts", "create", "from-cli", "--quota", "2", *books)
    assert created.returncode == 0, created.stderr
    issued = json.loads(run_vendor(tmp_path, "keys", "create", "from-cli", *books).stdout)

    answer = ask(vendor_process, issued["api_key"])

    assert answer.status_code == 200
    assert vendor_process.charges(issued["api_key"]).queries == 1
    shown = json.loads(run_vendor(tmp_path, "accounts", "show", "from-cli", *books).stdout)
    assert (shown["queries_used"], shown["queries_held"], shown["spent_micros"]) == (1, 0, 20)
    assert run_vendor(tmp_path, "keys", "revoke", issued["key_id"], "--yes", *books).returncode == 0
    assert ask(vendor_process, issued["api_key"]).json()["error"]["code"] == "key_revoked"


def test_a_killed_vendor_starts_again_on_its_port_with_its_books(tmp_path: Path) -> None:
    vendor = VendorProcess(tmp_path).start()
    try:
        url, key = vendor.url, vendor.create_key(quota=2)
        assert ask(vendor, key).status_code == 200
        vendor.kill()
        vendor.start()
        assert vendor.url == url
        assert ask(vendor, key).status_code == 200
        assert ask(vendor, key).json()["error"]["code"] == "quota_exhausted"
    finally:
        code = vendor.stop()
    assert code == 0
    assert key not in vendor.log.read_text()


def test_a_hangup_ends_no_vendor(tmp_path: Path) -> None:
    with VendorProcess(tmp_path) as vendor:
        os.kill(vendor.pid, signal.SIGHUP)
        wait_until(lambda: "no file of models to read again" in vendor.log.read_text())
        assert httpx.get(f"{vendor.url}/livez").status_code == 200
        assert "/livez" not in vendor.log.read_text()


def test_an_interrupted_vendor_says_so_with_its_exit_code(tmp_path: Path) -> None:
    vendor = VendorProcess(tmp_path).start()
    assert vendor.interrupt() == 130
    log = vendor.log.read_text()
    assert "Traceback" not in log
    assert 0 < log.index("INFO stopping: ") < log.index("INFO stopped")


def test_a_port_that_is_taken_is_told_in_one_line(vendor_process: VendorProcess, tmp_path: Path) -> None:
    refused = run_vendor(tmp_path, "serve", "--port", vendor_process.url.rpartition(":")[2])
    assert refused.returncode == 1
    assert "choose another --port" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not refused.stdout


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--batch-store", "/proc/nowhere"], 1, "the store of files /proc/nowhere cannot be written"),
        (["--model", "icon-klip"], 2, "icon-clip"),
        (["--device", "none-such"], 2, "there is no device 'none-such' here"),
        (["--billing-log", "/proc/nowhere/log"], 1, "the billing log cannot be written"),
        (["--keys-in", "/proc/nowhere"], 1, "VENDOR_KEYS_IN: no keys can be kept in /proc/nowhere"),
        (["--first-key-to", "/proc/nowhere/key"], 1, "VENDOR_FIRST_KEY_TO: the key cannot be written"),
        (["--dtype", "int8"], 2, "`calibration` in a file of models"),
        (["--port", "0", "--host", "192.0.2.1"], 1, "choose another --host"),
    ],
)
def test_what_is_wrong_is_found_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], code: int, said: str
) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(serve, "create_app", load)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    settings = read_settings(tmp_path, *options)
    with pytest.raises(OperatorError, match=said) as refused:
        serve.start(settings, lambda *_: None)
    assert refused.value.exit_code == code


@pytest.mark.parametrize("host", ["no host", "192.0.2.1"])
def test_a_host_that_is_none_is_told_apart_from_a_port(host: str) -> None:
    with pytest.raises(CannotServe, match=rf"cannot listen on {host}:0: .*choose another --host") as refused:
        bind(host, 0)
    assert "--port" not in str(refused.value)


def test_a_vendor_that_stops_finishes_what_it_has_and_sends_the_rest_away(tmp_path: Path) -> None:
    vendor = VendorProcess(tmp_path).start()
    key = vendor.create_key()
    body = json.dumps({"inputs": [{"text": "a photo of a cat"}]}).encode()
    host, _, port = vendor.url.removeprefix("http://").partition(":")
    length = f"content-length: {len(body)}"
    head = f"POST /embed HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n{length}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=30) as slow, ThreadPoolExecutor() as pool:
        slow.sendall(head.encode() + body[:10])
        wait_until(lambda: "tuition_in_hand_bytes 10.0" in httpx.get(f"{vendor.url}/metrics").text)
        stopping = pool.submit(vendor.stop)
        wait_until(lambda: httpx.get(f"{vendor.url}/readyz").status_code == 503)
        for answer in (httpx.get(f"{vendor.url}/readyz"), ask(vendor, key)):
            assert answer.json()["error"]["code"] == "shutting_down"
            assert int(answer.headers["retry-after"]) > 0
        assert httpx.get(f"{vendor.url}/livez").status_code == 200
        slow.sendall(body[10:])
        assert slow.recv(1000).startswith(b"HTTP/1.1 200 OK")
        assert stopping.result() == 0
    assert vendor.charges(key).queries == 1
    assert vendor.open_holds() == 0
