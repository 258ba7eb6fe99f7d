"""`client compare` against the real vendor: each image paid for once, resumable, one table."""

import csv
import json
import shutil
import signal
import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch

from client.cache.cache import EmbeddingCache
from client.cache.notes import Payer, make_batch
from client.errors import UsageError
from client.learning.recipe import Recipe, Variant
from client.learning.tensor_file import load_tensors
from client.options.vendor import VendorOptions
from client.progress import Display
from client.runs.comparison import ComparisonConfig, ComparisonRunner
from client.runs.connection import Connection
from client.vendors.query import Query
from shared.embeddings import Prices
from tests.client.toy import CLASSES, DOMAINS, make_folder, run_config
from tests.end_to_end.command import TINY, Command
from tests.support.quick import BRIEF
from tests.support.vendor_process import VendorProcess
from tools.site.run_files import TABLE, faults

IMAGES = 5
EVERYTHING = IMAGES * len(CLASSES) * len(DOMAINS) + len(CLASSES)
_OF_LITE0 = ("--image-size", "32", "--steps", "2", "--data", "toy", "--out", "table")
SMALL = (*TINY, *_OF_LITE0)


@pytest.fixture
def client(vendor_process: VendorProcess, tmp_path: Path) -> Command:
    make_folder(tmp_path / "toy", images=IMAGES)
    return Command(tmp_path, vendor_process.url, vendor_process.create_key(quota=1000))


def _table(client: Command) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((client.folder / "table" / "table.json").read_text())
    return value


def test_a_comparison_from_quote_to_table(client: Command, vendor_process: VendorProcess) -> None:
    arguments = ("compare", *SMALL, "--seeds", "1", "--methods")
    quote = json.loads(client(*arguments, "linear-probe,text-only,zero-shot", "--dry-run", "--json").stdout)
    assert quote == {
        "runs": 9,
        "cached": 0,
        "to_buy": EVERYTHING,
        "cost_micros": 20 * 3 + 100 * (EVERYTHING - 3),
        "unaffordable": 0,
        "enough_micros": None,
    }
    assert not (client.folder / "table").exists()

    client(*arguments, "linear-probe,text-only")
    assert vendor_process.charges(client.api_key).queries == len(CLASSES)
    first = _table(client)
    probe = json.loads((client.folder / "table/runs/linear-probe-red-0/summary.json").read_text())
    assert probe["steps"] == 2
    shown = client(*arguments, "linear-probe,text-only,image-only,zero-shot", "--target-domain", "all")
    charges = vendor_process.charges(client.api_key)
    assert charges.queries == EVERYTHING

    students = [each for each in (client.folder / "table" / "runs").iterdir() if "zero" not in each.name]
    assert [fault for each in students for fault in faults(each)] == []
    assert TABLE.faults(client.folder / "table") == []
    table = _table(client)
    assert table["runs"][:6] == first["runs"]  # finished runs are not run again
    assert [row["method"] for row in table["rows"]] == [
        "linear-probe",
        "text-only",
        "image-only",
        "zero-shot",
    ]
    assert all(set(row["by_target"]) == set(DOMAINS) for row in table["rows"])
    assert all(run["over_twins"] is not None for run in table["runs"])  # the teacher's among them
    assert all(run["in_domain_cross_fitted"] is not None for run in table["runs"])
    used = {run["method"]: run["queries"] for run in table["runs"]}
    assert (used["linear-probe"], used["text-only"]) == (0, 3)
    assert {run["cost_micros"] for run in table["runs"] if run["method"] == "text-only"} == {60}
    assert "image-only" in shown.stdout
    assert "toy: 45 images (dark 15, light 15, red 15) of 3 classes." in " ".join(shown.stdout.split())
    assert first["setting"]["teacher"].startswith("icon-clip (fp_")
    rows = list(csv.DictReader(StringIO((client.folder / "table" / "table.csv").read_text())))
    assert [float(row["mean_mean"]) for row in rows] == [row["mean"]["mean"] for row in table["rows"]]
    page = (client.folder / "table" / "table.html").read_text()
    assert "Is one ahead beyond chance?" in page
    assert "What if they asked when they are unsure?" in page
    assert (client.folder / "table" / "table.tex").read_text().count(r"\\") == 5

    client.url = "http://127.0.0.1:9"  # everything is there, so no vendor is needed
    client(*arguments, "image-only,linear-probe")
    client(*arguments, "unlimited", "--target-domain", "red")
    (unlimited,) = _table(client)["runs"]
    # texts; views of 24 training images; 2 steps of both domains, which fill a batch of four
    assert unlimited["queries"] == 3 + BRIEF.align_views * 24 + 2 * BRIEF.images_per_domain * 4
    assert unlimited["cost_micros"] == 0
    assert vendor_process.charges(client.api_key) == charges


def test_files_that_the_teacher_is_not_asked_about_are_named_once(client: Command) -> None:
    (client.folder / "toy" / "red" / "circle" / "zero.png").write_bytes(b"")
    options = ("--seeds", "2", "--target-domain", "red", "--methods", "zero-shot")
    assert client("compare", *SMALL, *options).stderr.count("Skipped red/circle/zero.png: empty file") == 1


def test_the_teacher_and_its_students_are_tested_on_the_same_images(client: Command) -> None:
    """Copies of images of other domains are left out for all of them."""
    toy = client.folder / "toy"
    for number, file in enumerate(sorted((toy / "dark").glob("*/*.png"))):
        shutil.copy(file, toy / "red" / file.parent.name / f"copy{number}.png")
    options = ("--seeds", "1", "--target-domain", "red", "--methods", "erm,zero-shot", "--budget", "20")
    said = client("compare", *SMALL, *options).stderr
    assert said.count("Left out: 15 a copy of an image of another domain; `client data check --json`") == 1
    for row in ("erm", "zero-shot"):
        run = client.folder / "table" / "runs" / f"{row}-red-0"
        accuracy = json.loads((run / "summary.json").read_text())["accuracy"]
        assert accuracy["images_by_domain"]["red"] == IMAGES * len(CLASSES)
    assert json.loads((run / "plan.json").read_text())["purchase"]["images"] == 6 + IMAGES * len(CLASSES)


def test_no_run_uses_more_than_the_budget_whatever_others_bought(
    client: Command, vendor_process: VendorProcess
) -> None:
    budget = ("--budget", "13", "--seeds", "2", "--target-domain", "red")
    client("compare", *SMALL, *budget, "--methods", "image-only")
    assert {run["queries"] for run in _table(client)["runs"]} == {13}
    assert 13 < vendor_process.charges(client.api_key).queries <= 2 * 13
    too_low = client("compare", *SMALL, "--budget", "2", "--methods", "kd", code=2)
    assert "3 class prompts" in too_low.stderr


def test_no_run_is_started_on_a_part_of_what_the_runs_ask(
    client: Command, vendor_process: VendorProcess
) -> None:
    arguments = ("compare", *SMALL, "--seeds", "1", "--target-domain", "red", "--methods", "image-only")
    whole = json.loads(client(*arguments, "--dry-run", "--json").stdout)
    price = whole["cost_micros"]
    shown = client(*arguments, "--max-spend", "1000", "--dry-run").stdout
    reached = len(CLASSES) + (1000 - 20 * len(CLASSES)) // 100
    assert f"does not reach {whole['to_buy'] - reached} more, so no run would be started" in shown
    assert f"a --max-spend of at least {price}." in shown
    stopped = client(*arguments, "--max-spend", "1000", code=3)
    charges = vendor_process.charges(client.api_key)
    assert 0 < charges.cost_micros <= 1000
    assert (
        f"The {charges.queries} that were bought, for {charges.cost_micros} micros, are kept"
        in stopped.stderr
    )
    assert f"with a --max-spend of at least {price} continues" in stopped.stderr
    assert not list((client.folder / "table" / "runs").glob("*/summary.json"))

    for limit, left in ((1000, 0), (price, price - charges.cost_micros)):  # what was paid counts
        quote = json.loads(client(*arguments, "--max-spend", str(limit), "--dry-run", "--json").stdout)
        assert quote["cost_micros"] == left
        assert quote["enough_micros"] == (None if left else price)
        assert quote["unaffordable"] == (0 if left else whole["to_buy"] - charges.queries)
    run_id = json.loads((client.folder / "table" / "comparison.json").read_text())["run_id"]
    sent_elsewhere, owed = make_batch(run_id, "fp_1", (Query.text("asked of another vendor"),)), 700
    with EmbeddingCache(client.folder / "cache.db") as cache:
        cache.begin(
            sent_elsewhere,
            payer=Payer("http://other:80", "a"),
            prices=Prices(image_micros=0, text_micros=owed),
        )
    stopped = client(*arguments, "--max-spend", "1000", code=3)
    assert f"with a --max-spend of at least {price + owed} continues" in stopped.stderr
    client(*arguments, "--max-spend", str(price + owed))
    assert vendor_process.charges(client.api_key).cost_micros == price
    assert {run["cost_micros"] for run in _table(client)["runs"]} == {price}


def test_a_comparison_that_was_killed_goes_on(client: Command, vendor_process: VendorProcess) -> None:
    arguments = (
        "compare",
        *SMALL,
        "--seeds",
        "1",
        "--target-domain",
        "red, dark",
        "--methods",
        "lp-ft,vl2v-adip",
    )
    with client.start(*arguments) as process:
        finished = client.folder / "table" / "runs" / "lp-ft-red-0" / "summary.json"
        while not finished.exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGSTOP)
        assert "Another process is working on this run" in client(*arguments, code=1).stderr
        process.send_signal(signal.SIGKILL)
        process.communicate()
    written = finished.stat().st_mtime_ns
    charges = vendor_process.charges(client.api_key)

    client(*arguments)
    assert finished.stat().st_mtime_ns == written
    assert len(_table(client)["runs"]) == 4
    assert vendor_process.charges(client.api_key) == charges


@pytest.mark.slow
def test_shared_work_gives_the_students_that_separate_runs_give(client: Command) -> None:
    methods = ("vl2v-adip", "erm", "vl2v-adip+swad")
    client("compare", *SMALL, "--seeds", "1", "--target-domain", "red", "--methods", ",".join(methods))
    rows = {}
    for method in methods:
        run = ("--target-domain", "red", "--method", method, "--budget", "0", "--out", method)
        client("distill", *SMALL[:-2], *run)
        shared, alone = client.folder / "table" / "runs" / f"{method}-red-0", client.folder / method
        accuracies = [json.loads((path / "summary.json").read_text())["accuracy"] for path in (shared, alone)]
        assert accuracies[0] == accuracies[1]
        students = [load_tensors(path / "student.safetensors")[0] for path in (shared, alone)]
        assert all(torch.equal(tensor, students[1][name]) for name, tensor in students[0].items())
        metrics = map(json.loads, (shared / "metrics.jsonl").read_text().splitlines())
        rows[method] = [row for row in metrics if row["stage"] in ("align", "distill")]
    taught, fine_tuned, averaged = rows.values()
    assert taught == averaged  # to the millisecond: their steps of both stages were taken once
    assert taught != fine_tuned


def test_runs_over_images_that_have_changed_are_refused(client: Command) -> None:
    arguments = ("compare", *SMALL, "--seeds", "1", "--target-domain", "red", "--methods")
    client(*arguments, "linear-probe")
    identity = client.folder / "table" / "comparison.json"
    known = json.loads(identity.read_text())
    circle = client.folder / "toy" / "dark" / "circle"
    (circle / "00.png").rename(circle.parent / "square" / "99.png")
    for more in ("linear-probe", "linear-probe,lp-ft"):
        refused = client(*arguments, more, code=2).stderr
        assert "toy or their prompts have changed" in refused
        assert "another --out" in refused
    client(*arguments, "linear-probe", "--dry-run", code=2)

    identity.write_text(json.dumps({"run_id": known["run_id"]}))  # as it was before digests were kept
    client(*arguments, "linear-probe")
    taken_over = json.loads(identity.read_text())
    assert taken_over["run_id"] == known["run_id"]
    assert taken_over["images"] != known["images"]


def test_what_the_vendor_refused_is_not_said_to_be_beyond_the_budget(client: Command) -> None:
    large = client.folder / "toy" / "dark" / "circle" / "00.png"
    large.write_bytes(large.read_bytes() + bytes(20 * 2**20))  # the client takes more
    options = ("--seeds", "1", "--target-domain", "red", "--methods", "image-only", "--budget", "30")
    shown = client("compare", *SMALL, *options)
    assert "1 of 24 training images have no teacher embedding (the vendor refused them)" in shown.stderr
    purchase = json.loads((client.folder / "table/runs/image-only-red-0/purchase.json").read_text())
    ((name, reason),) = (each.values() for each in purchase["refused"])
    assert name.endswith("dark/circle/00.png")
    assert "larger than" in reason


def test_steps_are_taken_again_where_their_states_are_gone(client: Command) -> None:
    """A further selection in a later comparison, whose steps an earlier process took."""
    arguments = ("compare", *SMALL, "--seeds", "1", "--target-domain", "red", "--methods")
    client(*arguments, "erm")
    client(*arguments, "erm,erm+swad")
    averaged = client.folder / "table" / "runs" / "erm+swad-red-0"
    fitted = {run["method"]: run["in_domain_cross_fitted"] for run in _table(client)["runs"]}
    assert fitted["erm+swad"] is None
    assert 0 <= fitted["erm"] <= 1
    client("distill", *SMALL[:-2], "--target-domain", "red", "--method", "erm+swad", "--out", "alone")
    students = [load_tensors(path / "student.safetensors")[0] for path in (averaged, client.folder / "alone")]
    assert all(torch.equal(tensor, students[1][name]) for name, tensor in students[0].items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--methods", "magic"), "There is no method 'magic'"),
        (("--methods", "erm+magic"), "+swad"),
        (("--methods", "erm,erm"), "different names"),
        (("--methods", "erm", "--target-domain", "red, red"), "different names"),
        (("--methods", "erm", "--target-domain", " "), "different names"),
        (("--methods", "erm", "--target-domain", "blue"), "It has: dark, light, red"),
        (("--methods", "kd,vl2v-sd"), "--student open_clip:"),
        (("--methods", "kd,vl2v-sd-bought"), "have 1280 dimensions and the teacher's 256"),
        (("--methods", "kd", "--student", "resnt50"), "resnet50"),
        (("--methods", "kd", "--student-weights", "missing"), "missing is not a file"),
    ],
    ids=str,
)
def test_bad_comparisons_are_refused_and_nothing_is_charged(
    client: Command, vendor_process: VendorProcess, options: tuple[str, ...], message: str
) -> None:
    assert message in client("compare", *_OF_LITE0, *options, code=2).stderr
    assert vendor_process.charges(client.api_key).entries == 0


def test_a_run_is_named_once(tmp_path: Path) -> None:
    config = ComparisonConfig(
        run_config(make_folder(tmp_path / "toy", images=1), student="tf_efficientnet_lite0"),
        [Variant("erm", "erm", Recipe())],
        targets=["red"],
        seeds=[0, 1, 0],
    )
    with pytest.raises(UsageError, match="named twice"):
        ComparisonRunner(
            config, tmp_path / "table", Connection(VendorOptions(vendor=""), Display()), device="cpu"
        )


def test_a_folder_with_something_else_is_left_alone(client: Command) -> None:
    (client.folder / "table").mkdir()
    (client.folder / "table" / "thesis.tex").write_text("")
    assert "is no comparison" in client("compare", *SMALL, "--methods", "erm", code=2).stderr


def test_where_nothing_is_held_out_the_cell_is_empty(client: Command) -> None:
    images = sorted((client.folder / "toy").rglob("*.png"))
    rows = [f"{path.relative_to(client.folder / 'toy')},{path.parts[-2]},{path.parts[-3]}" for path in images]
    lines = ["path,label,domain,split", *(f"{row},train" for row in rows)]
    (client.folder / "toy" / "all.csv").write_text("\n".join(lines) + "\n")
    arguments = ("compare", *SMALL, "--data", "toy/all.csv", "--seeds", "1", "--target-domain", "red")
    shown = client(*arguments, "--methods", "linear-probe,zero-shot")
    table = _table(client)
    assert [run["in_domain"] for run in table["runs"]] == [None, None]
    assert [row["in_domain"] for row in table["rows"]] == [None, None]
    assert TABLE.faults(client.folder / "table") == []
    assert "nothing of the source domains is held out, so the last weights are kept" in " ".join(
        shown.stdout.split()
    )


def test_a_study_measures_labels_and_queries_and_a_run_finds_some_of_what_it_bought(
    client: Command, vendor_process: VendorProcess
) -> None:
    """Held out is red, so a class has 10 labels; texts are 3 queries, and 24 images train."""
    arguments = [each for each in SMALL if each not in ("--out", "table")]
    arguments += ["--target-domain", "red", "--budget", "20", "--max-spend", "1000000"]
    shown = client("plan", *arguments, "--study").stdout
    assert "Area below accuracy by log(1 + queries), as a mean in %: label-only with 1 a class" in " ".join(
        shown.split()
    )
    table = json.loads((client.folder / "runs" / "study-red" / "table.json").read_text())
    assert [(each["labels"], each["budget"]) for each in table["runs"]] == [
        *((labels, None) for labels in (1, 4, None)),
        *((labels, budget) for labels in (1, 4, None) for budget in (3, 8, 20)),
    ]
    assert all(each["queries"] <= each["budget"] for each in table["runs"] if each["budget"])
    assert [each["labels"] for each in table["curves"]] == 2 * [1, 4, None]
    again = json.loads(client("plan", *arguments, "--json").stdout)
    assert again["purchase"]["cached"] > 10  # what a run asks as well
