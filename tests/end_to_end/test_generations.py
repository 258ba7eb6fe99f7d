"""`client distill --from RUN`: the next student begins with the last one's weights; all else is as it was."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from client import next_options
from client.learning.student import load_tensors
from client.runs.folder import RunFolder
from tests.client.toy import make_folder
from tests.end_to_end.command import TINY, Command
from tests.support.vendor_process import VendorProcess


def _noise(folder: Path, count: int, seed: int) -> None:
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for n in range(count):
        noise = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize((40, 40))
        noise.save(folder / f"{n}.png")


@pytest.fixture(scope="module")
def client(vendor_process: VendorProcess, tmp_path_factory: pytest.TempPathFactory) -> Command:
    folder = tmp_path_factory.mktemp("generations")
    make_folder(folder / "toy", images=5)
    _noise(folder / "pool", 6, 0)
    _noise(folder / "kept", 4, 1)
    client = Command(folder, vendor_process.url, vendor_process.create_key(quota=1000))
    client(
        "distill", "--data", "toy", "--target-domain", "red", *TINY, "--image-size", "32", "--steps", "4",
        "--seed", "3", "--unlabelled", "pool", "--method", "vl2v-adip+swad", "--out", "first", "--budget",
        "1000",
    )  # fmt: skip
    return client


def _json(client: Command, file: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((client.folder / file).read_text())
    return value


@pytest.mark.usefixtures("trusted")
def test_the_next_generation_learns_from_what_was_kept_and_begins_where_the_last_one_ended(
    client: Command, vendor_process: VendorProcess
) -> None:
    spent = vendor_process.charges(client.api_key).queries
    client("distill", "--from", "first", "--unlabelled", "kept", "--budget", "1000")
    before, now = _json(client, "first/config.json"), _json(client, "first-2/config.json")
    changed = {name for name in now if now[name] != before[name]}
    assert changed == {"run_id", "student_weights", "unlabelled"}
    assert now["unlabelled"] == [str(client.folder / "pool"), str(client.folder / "kept")]
    assert vendor_process.charges(client.api_key).queries == spent + 4  # all else is in the cache
    first, second = (
        load_tensors(client.folder / run / "student.safetensors")[0] for run in ("first", "first-2")
    )
    frozen = "backbone.conv_stem.weight"
    assert torch.equal(first[frozen], second[frozen])
    moved = [key for key in first if key.startswith("backbone.") and not torch.equal(first[key], second[key])]
    assert moved

    client("distill", "--from", "first-2", "--budget", "1000", "--steps", "2", "--seed", "4")
    third = _json(client, "first-3/config.json")
    assert (third["seed"], third["recipe"]["steps"], third["unlabelled"]) == (4, 2, now["unlabelled"])
    assert third["student_weights"] == str(client.folder / "first-2" / "student.safetensors")


def test_options_of_the_next_generation_are_those_of_the_run_and_what_is_changed(client: Command) -> None:
    options = next_options(client.folder / "first", budget=7, image_size=48)
    assert (options.budget, options.image_size, options.seed, options.method) == (7, 48, 3, "vl2v-adip+swad")
    assert options.out == client.folder / "first-2"
    assert options.recipe == RunFolder(client.folder / "first").read_config().recipe


def test_what_is_no_finished_run_is_refused(client: Command) -> None:
    assert "is not a finished run" in client("distill", "--from", "nowhere", "--budget", "1", code=1).stderr
    (client.folder / "begun").mkdir()
    (client.folder / "begun" / "config.json").write_text(
        (client.folder / "first" / "config.json").read_text()
    )
    assert "does not exist" in client("distill", "--from", "begun", "--budget", "1", code=1).stderr
