"""A real vendor whose models are those of a file, for tests that exchange them while it serves."""

import json
import os
import signal
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx

from tests.support.vendor_process import VendorProcess, wait_until

DEPRECATED = datetime(2026, 10, 1, tzinfo=UTC)
SUNSET = datetime(2027, 1, 31, 14, tzinfo=timezone(timedelta(hours=2)))
ICONS = """
[[model]]
id = "icon-clip"
source = "icon-clip"
device = "cpu"
default = true
"""
TINY = f"""
[[model]]
id = "tiny/1"
source = "local-dir:tiny"
device = "cpu"
deprecated_at = {DEPRECATED.date()}
sunset_at = {SUNSET.isoformat()}
prices.standard = {{image_micros = 7, text_micros = 3}}
prices.research = {{image_micros = 2}}
limits = {{max_inputs = 4}}
"""
OTHER = """
[[model]]
id = "other"
source = "local-dir:other"
device = "cpu"
"""


class Shop(VendorProcess):
    """A vendor whose models are those of a file."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.file = folder / "models.toml"
        self.folder = folder
        super().__init__(folder, "--models", str(self.file), "--log-format", "json", *options)

    def offer(self, *tables: str) -> None:
        """Write the file, and have a vendor that runs read it."""
        self.file.write_text("".join(tables))
        if self.url:
            told = len(self.told())
            os.kill(self.pid, signal.SIGHUP)
            wait_until(lambda: len(self.told()) > told, seconds=60)

    def told(self) -> list[str]:
        """The outcome of each reading of the file."""
        lines = [json.loads(each) for each in self.log.read_text().splitlines() if each.startswith("{")]
        return [
            each["message"]
            for each in lines
            if each["message"].startswith(("models: ", "the file of models is not"))
        ]

    def models(self, api_key: str | None = None) -> dict[str, Any]:
        headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        cards = httpx.get(f"{self.url}/v1/models", headers=headers, timeout=30).json()["data"]
        return {card["id"]: card for card in cards}

    def ask(self, api_key: str, path: str = "/embed", **body: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {api_key}"} | body.pop("headers", {})
        return httpx.post(f"{self.url}{path}", json=body, headers=headers, timeout=60)
