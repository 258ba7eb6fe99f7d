"""`client embed` against the real vendor: what it writes, what it skips, and where it stops."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.end_to_end.command import Command
from tests.vendor_process import VendorProcess, wait_until


@pytest.fixture
def client(vendor_process: VendorProcess, tmp_path: Path) -> Command:
    return Command(tmp_path, vendor_process.url, vendor_process.create_key(quota=1000))


def _texts(count: int) -> list[str]:
    return [word for i in range(count) for word in ("--text", f"number {i}")]


def test_images_that_cannot_be_embedded_are_listed_and_free(
    client: Command, vendor_process: VendorProcess
) -> None:
    folder = client.folder / "photos"
    (folder / "below.png").mkdir(parents=True)
    Image.new("RGB", (32, 32), "green").save(folder / "below.png" / "good.png")
    (folder / "empty.png").write_bytes(b"")
    (folder / "gone.png").symlink_to("nothing")
    (folder / "notes.txt").write_text("not named as an image")
    (folder / "text.png").write_text("not an image")
    shown = client("embed", "--text", "a square", "--images", "photos", "--out", "out.npy", "--json")
    said = json.loads(shown.stdout)
    assert set(said["skipped"]) == {f"photos/{name}.png" for name in ("empty", "gone", "text")}
    assert (said["rows"], said["queries_bought"], said["cost_micros"]) == (2, 2, 120)
    assert "Skipped photos/text.png" in shown.stderr
    rows = np.load(client.folder / "out.npy")
    assert rows.shape == (4, 256)
    assert np.isnan(rows).all(axis=1).tolist() == [False, False, True, True]
    assert vendor_process.charges(client.api_key).queries == 2


def test_a_budget_that_ends_writes_nothing_and_goes_on_with_a_larger_one(
    client: Command, vendor_process: VendorProcess
) -> None:
    command = ["embed", *_texts(10), "--out", "out.jsonl", "--budget"]
    stopped = client(*command, "4", code=3)
    assert "The budget of 4 queries" in stopped.stderr
    assert not (client.folder / "out.jsonl").exists()
    assert client(*command, "4", code=3).stdout == ""
    assert vendor_process.charges(client.api_key).queries == 4
    assert "6 bought" in client(*command, "10").stderr
    assert len((client.folder / "out.jsonl").read_text().splitlines()) == 10
    assert vendor_process.charges(client.api_key).queries == 10


def test_a_quota_that_ends_is_a_resumable_stop(client: Command, vendor_process: VendorProcess) -> None:
    client.api_key = vendor_process.create_key(quota=3)
    stopped = client("embed", *_texts(10), "--out", "out.npy", code=3)
    assert "What was bought is kept" in stopped.stderr
    assert vendor_process.charges(client.api_key).queries == 3


def test_the_key_may_be_in_a_file(client: Command) -> None:
    (client.folder / "key").write_text(client.api_key + "\n")
    client.api_key = "tk_wrong"
    assert "TUITION_API_KEY" in client("usage", code=1).stderr
    assert "1000 of 1000 queries left" in client("usage", "--api-key-file", "key").stdout


def test_ctrl_c_ends_soon_and_the_same_command_goes_on(
    client: Command, vendor_process: VendorProcess
) -> None:
    command = ["embed", *_texts(900), "--out", "out.npy"]
    process = client.start(*command)
    wait_until(lambda: vendor_process.charges(client.api_key).entries > 0)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 130, said
    assert "the same command goes on from here" in " ".join(said.split())
    assert "Traceback" not in said
    assert vendor_process.charges(client.api_key).queries < 900
    client(*command)
    assert np.isfinite(np.load(client.folder / "out.npy")).all()
    assert vendor_process.charges(client.api_key).queries == 900
