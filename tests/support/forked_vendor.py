"""The real vendor in a process that starts fast, for tests that kill it again and again."""

import os
import socket
import time
from pathlib import Path

import httpx

from tests.support.forking import CONTEXT


class ForkedVendor:
    """`vendor serve` on one port and one database, started and killed as often as a test likes."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self._folder = folder
        self._database_url = database_url
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        arguments = (self._folder, self._port, self._database_url)
        self._process = CONTEXT.Process(target=_serve, args=arguments)
        self._process.start()
        deadline = time.monotonic() + 60
        while not self._answers():
            assert self._process.is_alive(), (self._folder / "vendor.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def kill(self) -> None:
        """End it at once (SIGKILL), in the middle of whatever it does; harmless if it has ended."""
        self._process.kill()
        self._process.join()
        self._process.close()

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/livez").is_success
        except httpx.TransportError:
            return False


def _serve(folder: Path, port: int, database_url: str) -> None:
    from vendor_service.cli.main import app

    log = os.open(folder / "vendor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(folder)
    for name in [name for name in os.environ if name.startswith("VENDOR_")]:
        del os.environ[name]
    app(["serve", "--migrate", "--port", str(port), "--database-url", database_url])
