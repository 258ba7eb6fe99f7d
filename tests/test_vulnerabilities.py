"""tests/vulnerabilities.py: the real pip-audit, asking a service that knows one bad package."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests import vulnerabilities

FAULT = {
    "id": "PYSEC-2026-1",
    "summary": "it does what strangers say",
    "affected": [
        {
            "package": {"name": "leaky", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.1"}]}],
        }
    ],
}


class Service(BaseHTTPRequestHandler):
    """Answers as OSV does."""

    asked = 0

    def do_POST(self) -> None:
        """Tell what is known of one version."""
        Service.asked += 1
        query = json.loads(self.rfile.read(int(self.headers["content-length"])))
        known = query == {"package": {"name": "leaky", "ecosystem": "PyPI"}, "version": "1.0"}
        body = json.dumps({"vulns": [FAULT]} if known else {}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


pytestmark = pytest.mark.slow  # each starts pip-audit, and `make audit` runs it


@pytest.fixture
def service() -> Iterator[str]:
    Service.asked = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/query"
        server.shutdown()


def _options(folder: Path, url: str, name: str, version: str) -> list[str]:
    installed = folder / "installed" / f"{name}-{version}.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    where = ["--path", str(installed.parent), "--cache-dir", str(folder / "cache")]
    return [*where, "--vulnerability-service", "osv", "--osv-url", url]


def test_a_known_vulnerability_fails_each_time(
    tmp_path: Path, service: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = _options(tmp_path, service, "leaky", "1.0")
    for _ in range(2):
        assert vulnerabilities.main([*options, "--if-reachable", "--remember", str(tmp_path / "kept")]) == 1
    assert capsys.readouterr().err == "VULNERABLE: leaky 1.0: PYSEC-2026-1, mended in 1.1\n" * 2
    assert Service.asked == 2


def test_what_is_sound_is_asked_about_once_a_day(
    tmp_path: Path, service: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = _options(tmp_path, service, "leaky", "1.1")
    kept = tmp_path / "kept"
    for _ in range(2):
        assert vulnerabilities.main([*options, "--remember", str(kept)]) == 0
    assert Service.asked == 1
    kept.write_text(json.dumps(json.loads(kept.read_text()) | {"at": 0}))
    assert vulnerabilities.main([*options, "--remember", str(kept)]) == 0
    assert Service.asked == 2
    assert capsys.readouterr().out == "1 packages have no known vulnerabilities\n" * 3


def test_who_cannot_be_asked_is_no_clean_bill(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = _options(tmp_path, "http://127.0.0.1:9/query", "leaky", "1.0")
    options += ["--remember", str(tmp_path / "kept")]
    assert vulnerabilities.main(options) == 2
    assert vulnerabilities.main([*options, "--if-reachable"]) == 0
    assert capsys.readouterr().err.count("NOT AUDITED for known vulnerabilities: ") == 2
