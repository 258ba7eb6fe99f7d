"""Buying from a real infinity-emb server, which `make test-infinity` installs apart from everything else."""

import json
import os
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.client.toy import draw, make_folder
from tests.end_to_end.command import Command
from tests.support.vendor_process import wait_until

pytestmark = pytest.mark.infinity
BIN = Path(os.environ.get("INFINITY_BIN", ".venv-infinity/bin"))
TEXT = "a photo of a cat"
CANARIES = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `cat.png`, the model, and what the model says of the image and of TEXT."""
    assert (BIN / "infinity_emb").exists(), f"{BIN} has no infinity-emb server: run `make test-infinity`"
    folder = tmp_path_factory.mktemp("infinity")
    draw("circle", "white", "red", seed=0).save(folder / "cat.png")
    script = Path(__file__).with_name("tiny_clip.py")
    arguments = [str(folder / "model"), str(folder / "cat.png"), TEXT]
    subprocess.run(
        [BIN / "python", script, *arguments], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    return folder


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """The server, selling the model as "tiny-clip"."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command: list[str | Path] = [
        *(BIN / "infinity_emb", "v2", "--model-id", folder / "model", "--served-model-name", "tiny-clip"),
        *("--engine", "torch", "--device", "cpu", "--dtype", "float32", "--no-bettertransformer"),
        *("--no-compile", "--no-model-warmup", "--host", "127.0.0.1", "--port", str(port)),
    ]
    quiet = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1"}
    log = folder / "server.log"
    with log.open("w") as file:
        server = subprocess.Popen(command, env=os.environ | quiet, stdout=file, stderr=file)

    def answers() -> bool:
        assert server.poll() is None, log.read_text()
        with suppress(OSError):
            return bool(urllib.request.urlopen(f"{url}/models").status == 200)
        return False

    try:
        wait_until(answers, seconds=120)
        yield url
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture
def client(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    client = Command(tmp_path, url, "")
    monkeypatch.setattr(Command, "environment", client.environment | {"TUITION_TEACHER": "openai"})
    return client


def test_what_is_bought_is_what_the_model_says(client: Command, folder: Path) -> None:
    (client.folder / "bad.png").write_text("no image")
    images = [str(folder / "cat.png"), "bad.png"]
    command = ["embed", "--images", images[0], "--images", images[1], "--text", TEXT, "--out", "out.npy"]
    command += ["--vendor", client.url]
    shown = client(*command, code=1)
    assert "Skipped bad.png" in shown.stderr
    text, image, bad = np.load(client.folder / "out.npy")
    expected = np.load(folder / "expected.npy")
    assert np.allclose([image, text], expected, atol=1e-5)
    assert np.isnan(bad).all()
    assert "0 bought" in client(*command, code=1).stderr
    paid = json.loads(client("cache", "stats", "--json").stdout)["paid"]
    assert paid["queries"] == 2 + 2 * CANARIES


def test_many_images_arrive_each_with_its_own_vector(client: Command) -> None:
    rng = np.random.default_rng(0)
    for number in range(150):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((48, 40)).save(client.folder / f"{number:03}.jpg")
    at = ("--vendor", client.url)
    client("embed", "--images", "*.jpg", "--out", "together.npy", *at)
    client("embed", "--images", "149.jpg", "--out", "alone.npy", "--cache", "other.db", *at)
    together, alone = np.load(client.folder / "together.npy"), np.load(client.folder / "alone.npy")
    assert np.allclose(together[149], alone[0], atol=1e-4)
    assert len(np.unique(together.round(4), axis=0)) == 150


def test_a_student_learns_from_it(client: Command) -> None:
    make_folder(client.folder / "toy", images=5)
    what = ["distill", "--data", "toy", "--target-domain", "red", "--budget", "500", "--out", "run"]
    client(*what, "--image-size", "32", "--steps", "4", "--vendor", client.url)
    summary = json.loads((client.folder / "run" / "summary.json").read_text())
    assert summary["queries_bought"] == summary["train_images"] + 3
    assert summary["teacher"]["fingerprint"].startswith("openai:tiny-clip:")
