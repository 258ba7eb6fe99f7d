"""`client distill --from RUN`: the next student begins with the last one's weights; all else is as it was."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from client import next_options
from client.learning.tensor_file import load_tensors
from client.runs.folder import RunFolder
from tests.client.toy import CLASSES, DOMAINS, draw, make_folder
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
        "distill", "--data", "toy", "--target-domain", "red", *TINY, "--image-size", "32", "--steps", "2",
        "--seed", "3", "--unlabelled", "pool", "--method", "vl2v-adip+swad", "--out", "first", "--budget",
        "1000",
    )  # fmt: skip
    return client


def _json(client: Command, file: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((client.folder / file).read_text())
    return value


def _measured(client: Command, run: str) -> set[str]:
    """The hold-outs that a run was measured on."""
    domains = _json(client, f"{run}/plan.json")["source_domains"]
    with (client.folder / run / "answers.csv").open() as file:
        found = {row["image"] for row in csv.DictReader(file) if row["domain"] in domains}
    assert found
    return found


def _trained(client: Command, run: str, data: str = "toy") -> set[str]:
    """The labelled images that it was trained on."""
    domains = _json(client, f"{run}/plan.json")["source_domains"]
    root = client.folder / data
    images = {str(path.relative_to(root)) for domain in domains for path in root.glob(f"{domain}/*/*.png")}
    return images - _measured(client, run)


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

    client("distill", "--from", "first-2", "--budget", "1000", "--steps", "1", "--seed", "3")
    third = _json(client, "first-3/config.json")
    assert (third["seed"], third["recipe"]["steps"], third["unlabelled"]) == (3, 1, now["unlabelled"])
    assert third["student_weights"] == str(client.folder / "first-2" / "student.safetensors")


def test_options_of_the_next_generation_are_those_of_the_run_and_what_is_changed(client: Command) -> None:
    options = next_options(client.folder / "first", budget=7, image_size=48)
    assert (options.budget, options.image_size, options.seed, options.method) == (7, 48, 3, "vl2v-adip+swad")
    assert options.out == client.folder / "first-2"
    assert options.recipe == RunFolder(client.folder / "first").read_config().recipe


def test_what_the_last_student_was_trained_on_does_not_measure_the_next(
    client: Command, vendor_process: VendorProcess
) -> None:
    spent = vendor_process.charges(client.api_key).queries
    run = ("distill", "--from", "first", "--budget", "1000", "--out", "other", "--target-domain", "dark")
    for command in (run, (*run, "--dry-run")):
        refused = client(*command, code=2)
        assert "were trained on 12 of the 15 images of dark, so" in refused.stderr
        assert "leave out --from" in refused.stderr
    assert vendor_process.charges(client.api_key).queries == spent
    assert not (client.folder / "other" / "plan.json").exists()


@pytest.mark.usefixtures("trusted")
def test_another_split_holds_out_what_the_last_one_held_out(client: Command) -> None:
    changes = ("--seed", "4", "--group-by-name", "--out", "drawn", "--steps", "2")
    client("distill", "--from", "first", "--budget", "1000", *changes)
    assert _json(client, "drawn/config.json")["seed"] == 4
    assert _measured(client, "drawn") == _measured(client, "first")


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


@pytest.mark.usefixtures("trusted")
def test_students_that_leave_a_domain_out_learn_from_what_the_next_generation_buys(client: Command) -> None:
    shutil.copytree(client.folder / "toy", client.folder / "two")
    shutil.rmtree(client.folder / "two" / "red")
    small = ("--image-size", "32", "--steps", "1", "--method", "vl2v-adip")
    client("distill", "--data", "two", *TINY, *small, "--out", "asked", "--budget", "1000")
    next_one = client("distill", "--from", "asked", "--leave-one-out", "--seed", "4", "--budget", "1000")
    assert "taught without" not in next_one.stderr
    trained = _trained(client, "asked-2", "two")
    assert trained == _trained(client, "asked", "two")
    for domain in ("dark", "light"):
        of_others = {name for name in trained if not name.startswith(domain)}
        assert _trained(client, f"asked-2/leave-one-out/{domain}", "two") == of_others


@pytest.fixture(scope="module")
def every(client: Command) -> Command:
    """A folder with a run, `learnt`, that has learnt from all domains of `toys`, and asked nobody."""
    shutil.copytree(client.folder / "toy", client.folder / "toys")
    client("distill", "--data", "toys", *TINY, *_ASKS_NOBODY, "--out", "learnt")
    return client


_ASKS_NOBODY = ("--image-size", "32", "--steps", "1", "--method", "erm")


def test_images_that_are_added_put_none_among_the_hold_outs_that_was_trained_on(every: Command) -> None:
    trained = _trained(every, "learnt", "toys")
    more = every.folder / "more"
    shutil.copytree(every.folder / "toys", more)
    for number in range(30):
        name = CLASSES[number % len(CLASSES)]
        draw(name, "black", "white", seed=7000 + number).save(more / "dark" / name / f"new{number}.png")
    every("distill", "--data", "more", *TINY, *_ASKS_NOBODY, "--out", "anew")
    assert _measured(every, "anew") & trained
    next_one = ("distill", "--from", "learnt", "--data", "more", "--out", "added")
    every(*next_one)
    measured = _measured(every, "added")
    assert not measured & trained
    assert len(measured) == 9 + 6

    record = every.folder / "learnt" / "seen.safetensors"
    record.rename(record.with_suffix(".away"))
    assert "The student is trained already" in every(*next_one).stderr  # its own copy tells
    planned = json.loads(every(*next_one, "--dry-run", "--json").stdout)
    assert planned["train_images"] == _json(every, "added/plan.json")["train_images"]
    for shown in ((), ("--dry-run",)):
        refused = every(*next_one[:-1], "others", *shown, code=2)
        assert "seen.safetensors is missing" in refused.stderr
    (more / "dark" / "circle" / "new0.png").unlink()
    assert "holds a finished student of other numbers" in every(*next_one, code=2).stderr
    every(*next_one, "--replace")  # without the record still
    assert not _measured(every, "added") & trained
    assert "cannot be told" not in every("distill", "--from", "added", "--dry-run").stderr
    record.with_suffix(".away").rename(record)


@pytest.mark.usefixtures("trusted")
def test_images_that_were_learnt_from_without_labels_are_not_held_out_once_they_have_some(
    client: Command,
) -> None:
    labelled = client.folder / "labelled"
    shutil.copytree(client.folder / "toy", labelled)
    for file in (client.folder / "pool").iterdir():
        shutil.copy(file, labelled / "dark" / "circle" / f"pool{file.name}")
    again = ("distill", "--from", "first", "--data", "labelled", "--unlabelled", "kept", "--steps", "2")
    client(*again, "--budget", "1000", "--out", "named")
    assert _json(client, "named/plan.json")["images_by_domain"]["dark"] == 21
    assert not {name for name in _measured(client, "named") if "pool" in name}


@pytest.mark.usefixtures("trusted")
def test_a_domain_of_images_that_were_learnt_from_without_labels_is_no_target(client: Command) -> None:
    shutil.copytree(client.folder / "toy", client.folder / "wider")
    for name, numbers in zip(CLASSES, ((0, 1), (2, 3), (4, 5)), strict=True):
        folder = client.folder / "wider" / "noisy" / name
        folder.mkdir(parents=True)
        for number in numbers:
            shutil.copy(client.folder / "pool" / f"{number}.png", folder)
    run = ("distill", "--from", "first", "--data", "wider", "--target-domain", "noisy", "--out", "noisy")
    refused = client(*run, "--budget", "1000", code=2)
    assert "were trained on 6 of the 6 images of noisy, so" in refused.stderr


def test_a_domain_that_an_earlier_generation_was_trained_on_is_no_target(every: Command) -> None:
    shutil.copytree(every.folder / "toys", every.folder / "fewer")
    shutil.rmtree(every.folder / "fewer" / "red")
    every("distill", "--from", "learnt", "--data", "fewer", "--out", "without")
    run = ("distill", "--from", "without", "--data", "toys", "--target-domain", "red", "--out", "third")
    assert "were trained on 12 of the 15 images of red, so" in every(*run, code=2).stderr


def test_a_domain_that_chose_the_weights_of_an_earlier_generation_is_no_target(every: Command) -> None:
    files = [path.relative_to(every.folder) for path in sorted(every.folder.glob("toys/*/*/*.png"))]
    rows = [f"{file},{file.parts[2]},{file.parts[1]},{'holdout' * ('red' in file.parts)}" for file in files]
    (every.folder / "red-held.csv").write_text("\n".join(["path,label,domain,split", *rows]))
    every("distill", "--data", "red-held.csv", *TINY, *_ASKS_NOBODY, "--out", "chosen")
    run = ("distill", "--from", "chosen", "--target-domain", "red", "--out", "not-new")
    assert "were chosen by their answers about 15 of the 15 images of red, so" in every(*run, code=2).stderr


@pytest.mark.parametrize(
    "command",
    [
        ("distill", "--out", "unasked"),
        ("plan",),
        ("compare", "--methods", "erm", "--seeds", "1", "--out", "table"),
    ],
    ids=lambda command: command[0],
)
def test_a_students_file_is_no_way_round(every: Command, command: tuple[str, ...]) -> None:
    data = ("--data", "toys", "--target-domain", "red", "--image-size", "32", "--steps", "2")
    student = ("--student", "test_efficientnet", "--student-weights", "learnt/student.safetensors")
    method = () if command[0] == "compare" else ("--method", "erm")
    refused = every(*command, *data, *student, *method, code=2)
    assert "were trained on 12 of the 15 images of red, so" in refused.stderr


def test_a_student_from_a_copied_file_is_not_said_to_have_never_seen_what_it_is_tested_on(
    every: Command,
) -> None:
    shutil.copy(every.folder / "learnt" / "student.safetensors", every.folder / "alone.safetensors")
    weights = ("--student", TINY[1], "--student-weights", "alone.safetensors")
    run = ("distill", "--data", "toys", "--target-domain", "red", *weights, *_ASKS_NOBODY, "--out", "copied")
    shown = every(*run)
    assert "It cannot be told which images the weights of" in shown.stderr
    assert "red (held out)" in shown.stdout
    assert _json(every, "copied/summary.json")["weights_known"] is False
    assert _json(every, "learnt/summary.json")["weights_known"] is True
    for page in ("report.html", "README.md"):
        told = (every.folder / "copied" / page).read_text()
        assert "It cannot be told which images" in told
        assert "never" not in told


def test_what_is_no_finished_run_is_refused(client: Command) -> None:
    assert "is not a finished run" in client("distill", "--from", "nowhere", "--budget", "1", code=1).stderr
    (client.folder / "begun").mkdir()
    (client.folder / "begun" / "config.json").write_text(
        (client.folder / "first" / "config.json").read_text()
    )
    assert "does not exist" in client("distill", "--from", "begun", "--budget", "1", code=1).stderr
