"""Files go in and out in memory that does not grow with them."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.figures import holds
from tests.support.vendor_process import VendorProcess, forget_peak, resident_bytes

LINE_BYTES = 1 << 20
MB = 1_000_000


def lines(count: int) -> Iterator[bytes]:
    """Lines of a megabyte each, of what looks like an image."""
    filling = "A" * (LINE_BYTES - 200)
    for number in range(count):
        body = {"model": "icon-clip", "input": [{"image": filling}]}
        line = {"custom_id": str(number), "method": "POST", "url": "/v1/embeddings", "body": body}
        yield json.dumps(line).encode() + b"\n"


def form(count: int) -> Iterator[bytes]:
    yield b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="large.jsonl"\r\n\r\n'
    yield from lines(count)
    yield b"\r\n--x--\r\n"


@pytest.mark.parametrize(
    "count", [40, pytest.param(2048, marks=pytest.mark.slow)], ids=lambda count: f"{count} MiB"
)
def test_a_large_file_goes_in_and_out_in_flat_memory(tmp_path: Path, count: int) -> None:
    with VendorProcess(tmp_path, "--batch-store", str(tmp_path / "store")) as vendor:
        headers = {"authorization": f"Bearer {vendor.create_key()}"}
        with httpx.Client(base_url=vendor.url, headers=headers, timeout=600) as client:
            assert client.get("/v1/files").status_code == 200
            before = forget_peak(vendor.pid)
            media_type = {"content-type": "multipart/form-data; boundary=x"}
            sent = client.post("/v1/files", content=form(count), headers=media_type)
            assert sent.status_code == 200, sent.text
            stored = sent.json()
            grown = [resident_bytes(vendor.pid, "VmHWM") - before]
            digest, size = hashlib.sha256(), 0
            with client.stream("GET", f"/v1/files/{stored['id']}/content") as answer:
                for piece in answer.iter_raw():
                    digest.update(piece)
                    size += len(piece)
            grown.append(resident_bytes(vendor.pid, "VmHWM") - before)
    expected = hashlib.sha256()
    for line in lines(count):
        expected.update(line)
    assert digest.digest() == expected.digest()
    assert holds(max(grown) / MB, 30, "MB"), [each // MB for each in grown]
