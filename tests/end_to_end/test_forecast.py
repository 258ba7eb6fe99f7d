"""What a teacher is worth, told by labels: by a probe before a run, and by a run with what it has bought."""

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from client.learning.tensor_file import load_tensors, save_tensors
from client.purchase.buyer import Buyer
from tests.client.folders import write_trusted
from tests.client.toy import CLASSES, make_folder
from tests.end_to_end.command import TINY, Command
from tests.support.vendor_process import VendorProcess

_SMALL = ("--data", "toy", "--image-size", "32")


@pytest.fixture
def client(vendor_process: VendorProcess, tmp_path: Path) -> Command:
    make_folder(tmp_path / "toy", images=6)
    return Command(tmp_path, vendor_process.url, vendor_process.create_key(quota=1000))


def _plan(client: Command, *more: str) -> Any:
    return json.loads(client("plan", *_SMALL, "--json", *more).stdout)


def test_a_probe_buys_what_the_run_would_begin_with(client: Command, vendor_process: VendorProcess) -> None:
    assert "teacher_check" not in _plan(client)
    assert vendor_process.charges(client.api_key).queries == 0
    probe = len(CLASSES) + 24
    planned = _plan(client, "--probe", str(probe))
    assert vendor_process.charges(client.api_key).queries == probe
    check = planned["teacher_check"]
    assert set(check["by_domain"]) == {"dark", "light", "red"}
    assert sum(each["images"] for each in check["by_domain"].values()) == 24
    assert check["trusted"] == (check["accuracy"] >= 0.8)
    assert planned["purchase"]["cached"] == probe

    assert _plan(client, "--probe", str(probe))["teacher_check"] == check
    assert vendor_process.charges(client.api_key).queries == probe
    client("distill", *TINY, *_SMALL, "--steps", "2", "--out", "run", "--budget", "1000")
    wanted = len(CLASSES) + planned["train_images"]
    assert vendor_process.charges(client.api_key).queries == wanted
    shown = client("plan", *_SMALL, "--probe", str(probe)).stdout
    assert "the teacher, by your labels" in shown
    assert f"{100 * check['accuracy']:.0f}% of your labelled images right" in shown


def test_a_probe_under_other_class_names_or_by_another_method_is_another_one(
    client: Command, vendor_process: VendorProcess
) -> None:
    probe = str(len(CLASSES) + 24)
    first = _plan(client, "--probe", probe)["teacher_check"]
    for folder in (client.folder / "toy").glob("*/circle"):
        folder.rename(folder.with_name("round_thing"))
    paid = vendor_process.charges(client.api_key).queries
    check = _plan(client, "--probe", probe)["teacher_check"]
    assert check["by_domain"].keys() == first["by_domain"].keys()
    assert vendor_process.charges(client.api_key).queries > paid
    by_rise = len(CLASSES) * 30 + 20
    assert _plan(client, "--probe", str(by_rise), "--method", "rise")["teacher_check"] is not None


def test_a_probe_that_was_paid_and_is_no_longer_in_the_cache_is_a_matter_of_its_budget(
    client: Command, vendor_process: VendorProcess
) -> None:
    probe = str(len(CLASSES) + 24)
    fingerprint = _plan(client, "--probe", probe)["model"]["fingerprint"]
    client("cache", "prune", "--model-fingerprint", fingerprint, "--yes")
    stopped = client("plan", *_SMALL, "--probe", probe, code=3).stderr
    assert "27 queries were paid for this probe already" in stopped
    assert "with a --probe of at least 30 continues" in stopped
    assert vendor_process.charges(client.api_key).queries == 27


@pytest.mark.parametrize("probe", [2, 10])
def test_a_probe_of_too_few_is_refused_before_anything_is_bought(
    client: Command, vendor_process: VendorProcess, probe: int
) -> None:
    refused = client("plan", *_SMALL, "--probe", str(probe), code=2).stderr
    assert f"{probe} queries do not reach 20 images beyond the 3 class texts" in refused
    assert "probe with 103, for example" in refused
    assert vendor_process.charges(client.api_key).queries == 0


@pytest.mark.parametrize("typed", [True, False])
def test_a_probe_beyond_the_budget_is_refused_before_anything_is_bought(
    client: Command, vendor_process: VendorProcess, typed: bool
) -> None:
    if not typed:
        write_trusted("budget = 26\n", client.folder)
    budget = ("--budget", "26") if typed else ()
    refused = client("plan", *_SMALL, "--probe", "27", *budget, code=2).stderr
    assert "--probe 27 is more than --budget 26" in refused
    assert vendor_process.charges(client.api_key).queries == 0
    client("plan", *_SMALL, "--probe", "26", *budget)
    assert vendor_process.charges(client.api_key).queries == 26


@pytest.mark.parametrize(
    ("confused_kind", "method", "judged", "words"),
    [
        ("text", "vl2v-adip", "named_by_images", ["which is little.", "named by the mean of these"]),
        (
            "image",
            "image-only",
            "doubtful",
            ["which is little.", "only those of its answers are learnt from"],
        ),
        ("image", "vl2v-adip", "doubtful", ["too little.", "learns from your labels alone"]),
    ],
)
def test_of_a_weak_teacher_only_what_the_labels_bear_out_is_learnt(
    client: Command,
    monkeypatch: pytest.MonkeyPatch,
    confused_kind: str,
    method: str,
    judged: str,
    words: list[str],
) -> None:
    """The texts of two classes are exchanged, or each image has the answer to another."""
    lookup = Buyer.lookup

    def confused(teacher: Buyer, queries: Any) -> Any:
        if len(queries) > 1 and {query.kind for query in queries} == {confused_kind}:
            half = len(queries) // 2
            swapped = [queries[1], queries[0], *queries[2:]]
            queries = swapped if confused_kind == "text" else [*queries[half:], *queries[:half]]
        return lookup(teacher, queries)

    monkeypatch.setattr(Buyer, "lookup", confused)
    run = ("distill", *TINY, *_SMALL, "--steps", "2", "--budget", "1000", "--method", method)
    shown = client(*run, "--out", "run")
    summary = json.loads((client.folder / "run" / "summary.json").read_text())
    assert not summary["teacher_check"]["trusted"]
    assert {*sorted(CLASSES)[:2]} <= {*summary["teacher_check"][judged]}
    told = " ".join(shown.stderr.split())
    assert all(each in told for each in words)
    if confused_kind == "text":
        _check_asking(client)
        review = json.loads((client.folder / "run" / "review.json").read_text())
        assert review["disagree"] < review["compared"] / 2  # by the names that it learnt by
    if method == "vl2v-adip":
        paper = client(*run, "--out", "paper", "--recipe", "paper").stderr
        assert "which is little" not in paper
        assert "labels alone" not in paper


def _check_asking(client: Command) -> None:
    """Where the student asks the same teacher again, it is answered by these names and not by the texts."""
    tensors, metadata = load_tensors(client.folder / "run" / "student.safetensors")
    without = client.folder / "without.safetensors"
    save_tensors(tensors, without, {key: each for key, each in metadata.items() if key != "teacher_names"})
    right = {}
    for file in ("run/student.safetensors", without.name):
        shown = client("predict", file, "toy", "--json", "--ask-vendor", client.url, "--ask-share", "1")
        answers = [
            (Path(row["image"]).parent.name, max(row["classes"], key=row["classes"].get))
            for row in json.loads(shown.stdout)
        ]
        right[file] = fmean(answer == label for label, answer in answers if label in CLASSES[:2])
    assert right["run/student.safetensors"] > 0.6 > right[without.name], right
