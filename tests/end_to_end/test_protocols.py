"""Our own vendor as any other: bought from through OpenAI's API, in both dialects."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.client.toy import make_folder
from tests.end_to_end.command import TINY, Command
from tests.support.vendor_process import VendorProcess

CANARIES = 2


@pytest.mark.parametrize("protocol", ["infinity", "jina"])
def test_what_one_protocol_buys_is_what_another_would(
    vendor_process: VendorProcess, tmp_path: Path, protocol: str
) -> None:
    client = Command(tmp_path, vendor_process.url, vendor_process.create_key())
    for i in range(3):
        Image.new("RGB", (32, 32), (80 * i, 0, 90)).save(tmp_path / f"{i}.png")
    (tmp_path / "bad.png").write_text("no image")
    words = ["embed", "--text", "a photo of a cat", "--images", "*.png", "--out"]
    other = ["--protocol", protocol, "--vendor", f"{client.url}/v1"]
    client(*words, "own.npy", code=1)
    before = vendor_process.charges(client.api_key).queries
    shown = client(*words, "other.npy", *other, code=1)
    assert "4 of 5 embeddings" in shown.stderr
    assert "Skipped bad.png" in shown.stderr
    assert vendor_process.charges(client.api_key).queries == before + 4 + CANARIES
    own, through = np.load(tmp_path / "own.npy"), np.load(tmp_path / "other.npy")
    assert np.allclose(own, through, atol=1e-5, equal_nan=True)
    assert "0 bought" in client(*words, "again.npy", *other, code=1).stderr
    assert vendor_process.charges(client.api_key).queries == before + 4 + 2 * CANARIES
    holdings = json.loads(client("cache", "stats", "--json").stdout)["holdings"]
    assert {each["fingerprint"].split(":")[0] for each in holdings} == {protocol, holdings[0]["fingerprint"]}


def test_a_student_learns_from_a_vendor_that_states_no_price(
    vendor_process: VendorProcess, tmp_path: Path
) -> None:
    make_folder(tmp_path / "toy", images=6)
    client = Command(tmp_path, f"{vendor_process.url}/v1", vendor_process.create_key())
    what = ["--data", "toy", "--target-domain", "red", "--protocol", "infinity"]
    assert "states no prices" in client("plan", *what).stdout
    assert "--budget" in client("plan", *what, "--max-spend", "5", code=2).stderr
    small = [*TINY, "--image-size", "32", "--steps", "6", "--budget", "500", "--out", "run"]
    client("distill", *what, *small)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["queries_bought"] == summary["train_images"] + 3
    assert summary["teacher"]["fingerprint"].startswith("infinity:icon-clip:")
