"""`client distill --from RUN`: the next student begins with the last one's weights; all else is as it was."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from client import next_options
from client.errors import UsageError
from client.learning.student import load_tensors
from client.runs.folder import RunFolder
from tests.client.toy import DOMAINS, make_folder
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

    client("distill", "--from", "first-2", "--budget", "1000", "--steps", "2", "--seed", "3")
    third = _json(client, "first-3/config.json")
    assert (third["seed"], third["recipe"]["steps"], third["unlabelled"]) == (3, 2, now["unlabelled"])
    assert third["student_weights"] == str(client.folder / "first-2" / "student.safetensors")


def test_options_of_the_next_generation_are_those_of_the_run_and_what_is_changed(client: Command) -> None:
    options = next_options(client.folder / "first", budget=7, image_size=48)
    assert (options.budget, options.image_size, options.seed, options.method) == (7, 48, 3, "vl2v-adip+swad")
    assert options.out == client.folder / "first-2"
    assert options.recipe == RunFolder(client.folder / "first").read_config().recipe


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("--target-domain", "dark"), "was trained on dark, so one that begins"),
        (("--seed", "4"), "first was split with --seed 3. By another split"),
        (("--group-by-name",), "first was split with no --group-by-name. By another split"),
    ],
    ids=str,
)
def test_what_the_last_student_was_trained_on_does_not_measure_the_next(
    client: Command, changes: tuple[str, ...], said: str
) -> None:
    refused = client("distill", "--from", "first", "--budget", "1000", "--out", "other", *changes, code=2)
    assert said in refused.stderr
    assert "leave out --from" in refused.stderr
    assert not (client.folder / "other").exists()


def test_a_generation_that_is_measured_on_what_none_was_trained_on_is_made(client: Command) -> None:
    run, elsewhere = client.folder / "first", client.folder / "backbone.safetensors"
    recipe = RunFolder(run).read_config().recipe
    assert next_options(run, target_domain="red", seed=3, recipe=replace(recipe, holdout=0.1)).seed == 3
    with pytest.raises(UsageError, match=r"a share of 0\.2 held out"):
        next_options(run, recipe=replace(recipe, holdout=0.3))
    assert next_options(run, target_domain=None).target_domain is None
    assert next_options(run, target_domain="dark", seed=4, student_weights=elsewhere).seed == 4


@pytest.mark.usefixtures("without_onnx")
def test_students_that_leave_a_domain_out_do_not_begin_with_weights_that_have_seen_it(
    client: Command,
) -> None:
    client(
        "distill", "--data", "toy", *TINY, "--image-size", "32", "--steps", "2", "--method", "linear-probe",
        "--out", "every",
    )  # fmt: skip
    client("distill", "--from", "every", "--leave-one-out")
    student = str(client.folder / "every" / "student.safetensors")
    assert _json(client, "every-2/config.json")["student_weights"] == student
    for domain in DOMAINS:
        measuring = _json(client, f"every-2/leave-one-out/{domain}/config.json")
        assert measuring["student_weights"] == str(client.folder / "backbone.safetensors")
    assert set(_json(client, "every-2/summary.json")["leave_one_out"]) == set(DOMAINS)


def test_what_is_no_finished_run_is_refused(client: Command) -> None:
    assert "is not a finished run" in client("distill", "--from", "nowhere", "--budget", "1", code=1).stderr
    (client.folder / "begun").mkdir()
    (client.folder / "begun" / "config.json").write_text(
        (client.folder / "first" / "config.json").read_text()
    )
    assert "does not exist" in client("distill", "--from", "begun", "--budget", "1", code=1).stderr
