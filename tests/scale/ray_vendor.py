"""`serve run vendor_service.run.ray:app` as a real process, with a Ray cluster of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import httpx

from tests.support.vendor_process import wait_until
from tests.vendor_service.local_vendor import Vendor
from vendor_service.clock import system_clock

_START_SECONDS = 180.0
_STOP_SECONDS = 90.0


class RayVendor(Vendor):
    """A vendor on Ray: `scale` are arguments of `vendor_service.run.ray:app`, `settings` are VENDOR_*.

    Its books are in SQLite unless it is given the URL of another database.
    """

    def __init__(
        self,
        folder: Path,
        *,
        scale: dict[str, Any] | None = None,
        database_url: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(database_url or f"sqlite:///{folder / 'ray.db'}")
        self.clock = system_clock
        self.log = folder / "serve.log"
        self._folder = folder
        self._settings = {f"VENDOR_{name.upper()}": str(value) for name, value in settings.items()}
        self._scale = scale or {}

    def __enter__(self) -> Self:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        config = {
            "http_options": {"host": "127.0.0.1", "port": port},
            "applications": [
                {"name": "tuition", "import_path": "vendor_service.run.ray:app", "args": self._scale}
            ],
        }
        file = self._folder / "serve.json"  # JSON is YAML
        file.write_text(json.dumps(config))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("VENDOR_")}
        own = {
            "RAY_AUTH_MODE": "disabled",
            "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "vendor_service.run.ray:proxy_layers",
            "RAY_USAGE_STATS_ENABLED": "0",
            "VENDOR_DATABASE_URL": self.database_url,
        }
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [Path(sys.executable).with_name("serve"), "run", file],
                env=environment | own | self._settings,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.connect(port)
        wait_until(self._ready, _START_SECONDS)
        return self

    def _ready(self) -> bool:
        assert self._process.poll() is None, self.log.read_text()
        try:
            return self.http.get("/readyz").is_success
        except httpx.TransportError:
            return False

    def __exit__(self, *_: object) -> None:
        self.close()
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_STOP_SECONDS)
        finally:
            # The cluster's own processes; whatever of Ray's outlives the command.
            subprocess.run(["pkill", "--signal", "KILL", "--session", str(self._process.pid)], check=False)
