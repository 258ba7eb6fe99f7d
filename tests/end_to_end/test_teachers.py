"""Every teacher by the commands: our own vendor through OpenAI's API, open_clip here, and others' servers."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

import vendor_service.models.icon_clip
from tests.client.toy import make_folder
from tests.client.vendors.servers import ApiServer, apis, listening
from tests.end_to_end.command import TINY, Command
from tests.support.student_process import StudentProcess
from tests.support.vendor_process import VendorProcess

CANARIES = 2


@pytest.mark.parametrize("teacher", ["openai", "jina"])
def test_what_one_api_buys_is_what_another_would(
    vendor_process: VendorProcess, tmp_path: Path, teacher: str
) -> None:
    client = Command(tmp_path, vendor_process.url, vendor_process.create_key())
    for i in range(3):
        Image.new("RGB", (32, 32), (80 * i, 0, 90)).save(tmp_path / f"{i}.png")
    (tmp_path / "bad.png").write_text("no image")
    words = ["embed", "--text", "a photo of a cat", "--images", "*.png", "--out"]
    other = ["--teacher", f"{teacher}:icon-clip", "--vendor", f"{client.url}/v1"]
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
    assert {each["fingerprint"].split(":")[0] for each in holdings} == {teacher, holdings[0]["fingerprint"]}


def test_a_student_learns_from_a_vendor_that_states_no_price(
    vendor_process: VendorProcess, tmp_path: Path
) -> None:
    make_folder(tmp_path / "toy", images=6)
    client = Command(tmp_path, f"{vendor_process.url}/v1", vendor_process.create_key())
    what = ["--data", "toy", "--target-domain", "red", "--teacher", "openai", "--vendor", client.url]
    assert "states no prices" in client("plan", *what).stdout
    assert "--budget" in client("plan", *what, "--max-spend", "5", code=2).stderr
    small = [*TINY, "--image-size", "32", "--steps", "6", "--budget", "500", "--out", "run"]
    client("distill", *what, *small)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["queries_bought"] == summary["train_images"] + 3
    assert summary["teacher"]["fingerprint"].startswith("openai:icon-clip:")


_OTHERS = ("voyage", "jina", "vertex", "bedrock", "openai")
_PATHS = {"vertex": "/v1/projects/p/locations/us-central1", "cohere": "", "bedrock": ""}
_UNLISTED = ("jina", "openai")


@pytest.fixture(params=["cohere", *(pytest.param(name, marks=pytest.mark.slow) for name in _OTHERS)])
def other(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[ApiServer, Sequence[str]]]:
    """The server of another vendor, and how it is named."""
    server, path = ApiServer(getattr(apis, request.param)), _PATHS.get(request.param, "/v1")
    (tmp_path / "key").write_text(apis.KEY)
    with listening(server) as url:
        at = ("--teacher", request.param, "--vendor", f"{url}{path}", "--api-key-file", "key")
        yield server, (*at, "--price", "image=200,text=1") if request.param in _UNLISTED else at


def test_every_command_asks_another_teacher(other: tuple[ApiServer, Sequence[str]], tmp_path: Path) -> None:
    server, at = other
    make_folder(tmp_path / "toy", images=8)
    client = Command(tmp_path, "http://127.0.0.1:9", "")
    client("embed", "--text", "a photo of a cat", "--images", "toy/red/*/*.png", "--out", "red.npy", *at)
    assert np.isfinite(np.load(tmp_path / "red.npy")).all()
    what = ["--data", "toy", "--target-domain", "red"]
    planned = client("plan", *what, "--probe", "23", *at)
    assert "--price sets others" in planned.stderr
    assert "counts as paid each time" in planned.stderr
    quote = json.loads(client("plan", *what, "--json", *at).stdout)["outlook"]["quote"]
    assert quote["cost_micros"] > 0
    small = (*TINY, "--image-size", "32", "--steps", "2")
    client("distill", *what, *small, "--budget", "500", "--out", "run", *at)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["teacher"]["fingerprint"].startswith(f"{at[1]}:")
    before = server.charged
    table = ("--methods", "vl2v-adip", "--seeds", "1", "--budget", "9", "--out", "table")
    client("compare", *what, *small, *table, *at)
    asked = ("--ask-vendor", at[3], "--teacher", at[1], "--api-key-file", "key", "--ask-share", "1")
    answered = client("predict", "run", "toy/light", "--json", "--yes", *asked)
    assert '"answered_by": "vendor"' in answered.stdout
    assert server.charged > before
    client("export", "run", "--out", "run/student.onnx")
    served = ("--cache", str(tmp_path / "cache.db"), *asked, "--ask-budget", "99")
    with StudentProcess(tmp_path / "run", tmp_path, *served) as student:
        image = (tmp_path / "toy" / "dark" / "circle" / "00.png").read_bytes()
        found = httpx.post(f"{student.url}/classify", files={"image": ("0.png", image)})
    assert found.json()["results"][0]["answered_by"] in ("vendor", "cache"), found.text
    assert student.log.read_text().count("counts as paid each time") == 1


def test_weights_here_are_a_teacher_without_a_vendor(
    vendor_process: VendorProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(tmp_path / "toy", images=4)
    folder = Path(str(vendor_service.models.icon_clip.__path__[0]))
    client = Command(tmp_path, vendor_process.url, vendor_process.create_key())
    client("embed", "--text", "a cat", "--images", "toy/red", "--out", "vendor.npy", "--cache", "other.db")
    here = ("--teacher", f"open_clip:{folder}")
    client("embed", "--text", "a cat", "--images", "toy/red", "--out", "here.npy", *here)
    assert np.allclose(np.load(tmp_path / "vendor.npy"), np.load(tmp_path / "here.npy"), atol=2e-3)
    sold = json.loads(client("cache", "stats", "--json", "--cache", "other.db").stdout)["holdings"]
    held = json.loads(client("cache", "stats", "--json").stdout)["holdings"]
    assert held[0]["fingerprint"] == sold[0]["fingerprint"]
    what = ["--data", "toy", "--target-domain", "red", *here, *TINY, "--image-size", "32", "--steps", "2"]
    client("distill", *what, "--budget", "500", "--out", "run")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["cost_micros"] == 0
    asked = ("--ask-vendor", f"open_clip:{folder}", "--ask-share", "1")
    assert '"answered_by": "cache"' in client("predict", "run", "toy/red", "--json", *asked).stdout
    assert vendor_process.charges(client.api_key).queries == 1 + 12
    both = client("embed", "--text", "a cat", "--text", "a dog", "--out", "both.npy")
    assert "the answers agree" in both.stderr
