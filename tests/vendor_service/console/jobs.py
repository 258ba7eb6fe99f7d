"""Bulk jobs for pages to show."""

import json
from typing import Any

from tests.support.vendor_process import wait_until
from tests.vendor_service.local_vendor import LocalVendor


def begun(vendor: LocalVendor, key: str, *texts: str, metadata: dict[str, str] | None = None) -> Any:
    """A bulk job of a line a text."""
    lines = [
        {"custom_id": f"{number}", "method": "POST", "url": "/v1/embeddings",
         "body": {"model": "icon-clip", "input": [text]}}
        for number, text in enumerate(texts)
    ]  # fmt: skip
    headers = {"authorization": f"Bearer {key}"}
    content = "\n".join(map(json.dumps, lines)).encode()
    files = {"file": ("in.jsonl", content)}
    sent = vendor.http.post("/v1/files", data={"purpose": "batch"}, files=files, headers=headers)
    job = {"endpoint": "/v1/embeddings", "completion_window": "24h", "input_file_id": sent.json()["id"]}
    return vendor.http.post("/v1/batches", json=job | {"metadata": metadata}, headers=headers).json()


def ended(vendor: LocalVendor, key: str, job: Any) -> Any:
    """A job when it has ended."""
    path = f"/v1/batches/{job['id']}"
    wait_until(lambda: vendor.get(path, key)["status"] != "in_progress", 20)
    return vendor.get(path, key)
