"""`client distill` against the real vendor: the run, its resumption, and what is said of bad input."""

import csv
import html
import json
import re
import shlex
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from client.learning.recipe import RECIPES
from client.learning.student_file import load_student
from tests.client.toy import CLASSES, make_folder
from tests.end_to_end.command import TINY, Command
from tests.support.quick import BRIEF
from tests.support.vendor_process import VendorProcess

SMALL = (*TINY, "--image-size", "32", "--steps", "2")


@pytest.fixture
def client(vendor_process: VendorProcess, tmp_path: Path) -> Command:
    make_folder(tmp_path / "toy", images=6)
    return Command(tmp_path, vendor_process.url, vendor_process.create_key(quota=1000))


def _distill(*more: str, budget: int = 500, target: str = "red") -> list[str]:
    return [
        "distill",
        "--data",
        "toy",
        "--target-domain",
        target,
        "--budget",
        str(budget),
        "--out",
        "run",
        *SMALL,
        *more,
    ]


def _summary(client: Command, run: str = "run") -> dict[str, Any]:
    value: dict[str, Any] = json.loads((client.folder / run / "summary.json").read_text())
    return value


def _require_true_price_of_the_target(client: Command) -> None:
    """Check that the command which the report names buys so many queries as it says."""
    page = html.unescape((client.folder / "run" / "report.html").read_text())
    found = re.search(r"at most (\d+) further queries \((\S+) units\).*?<code>client (.*?)</code>", page)
    assert found is not None
    *said, command = found.groups()
    would = json.loads(client(*shlex.split(command), "--dry-run", "--json").stdout)
    assert would["runs"] == 1
    assert said == [str(would["to_buy"]), f"{would['cost_micros'] / 1e6:.4f}"]


@pytest.mark.parametrize("out", [("--out", "run"), ()], ids=["named", "by default"])
def test_a_dry_run_shows_what_is_left_of_the_run_that_has_begun(
    client: Command, vendor_process: VendorProcess, out: tuple[str, ...]
) -> None:
    run = ("distill", "--data", "toy", "--target-domain", "red", *SMALL, *out)
    poor = Command(client.folder, client.url, vendor_process.create_key(quota=2))
    poor(*run, "--budget", "12", code=3)

    def planned(*options: str) -> dict[str, Any]:
        plan: dict[str, Any] = json.loads(client(*run, *options, "--dry-run", "--json").stdout)["purchase"]
        return plan

    left = planned("--budget", "12")
    assert (left["cached"], left["to_buy"], left["budget_left"]) == (2, 10, 0)
    money = planned("--budget", "500", "--max-spend", "260")  # 40 of it are spent, 20 buy the third text
    assert (money["to_buy"], money["cost_micros"]) == (3, 220)
    other = client(*run, "--seed", "1", "--budget", "12", "--dry-run", code=2 if out else 0)
    assert ("holds a run with other options" in other.stderr) == bool(out)
    plan = ("plan", "--data", "toy", "--target-domain", "red", "--budget", "12", *SMALL, "--json")
    assert json.loads(client(*plan).stdout)["purchase"]["to_buy"] == 12  # it is about a new run
    assert [vendor_process.charges(each.api_key).queries for each in (poor, client)] == [2, 0]


def test_what_only_shows_a_plan_writes_to_the_cache_and_beside_it_alone(client: Command) -> None:
    of_run = ("--data", "toy", "--target-domain", "red", *SMALL, "--select", "random", "--cache")
    before = set(client.folder.rglob("*"))
    client("plan", *of_run, "new/plan.db")
    client("distill", *of_run, "new/distill.db", "--budget", "12", "--dry-run")
    client("compare", *of_run, "new/compare.db", "--methods", "vl2v-adip", "--out", "table", "--dry-run")
    made = {file.relative_to(client.folder).parts[:2] for file in set(client.folder.rglob("*")) - before}
    caches = {("new", f"{name}.db{end}") for name in ("plan", "distill", "compare") for end in ("", ".files")}
    assert made == {("new",), *caches}


@pytest.mark.usefixtures("onnx")
def test_a_run_from_plan_to_prediction(client: Command, vendor_process: VendorProcess) -> None:
    plan = json.loads(client("plan", "--data", "toy", "--target-domain", "red", "--json").stdout)
    needed = plan["train_images"] + len(CLASSES)
    assert plan["purchase"]["to_buy"] == needed
    assert plan["purchase"]["cost_micros"] == 100 * plan["train_images"] + 20 * len(CLASSES)
    assert vendor_process.charges(client.api_key).entries == 0

    shown = client(*_distill())
    assert "red (unseen)" in shown.stdout
    assert f"Bought {needed} queries" in shown.stdout
    charges = vendor_process.charges(client.api_key)
    assert (charges.images, charges.texts) == (plan["train_images"], len(CLASSES))

    summary = _summary(client)
    assert summary["queries_bought"] == needed
    assert summary["cost_micros"] == charges.cost_micros == plan["purchase"]["cost_micros"]
    assert set(summary["accuracy"]["by_domain"]) == {"dark", "light", "red"}
    assert summary["accuracy"]["images_by_domain"]["red"] == 18
    assert set(summary["seconds"]) == {"buy", "align", "distill", "export", "evaluate"}
    names = {path.name for path in (client.folder / "run").iterdir()}
    assert names == {
        "config.json", "config.json.lock", "plan.json", "purchase.json", "metrics.jsonl", "summary.json",
        "aligned.safetensors", "student.safetensors", "seen.safetensors", "student.onnx", "answers.csv",
        "review.json", "report.html", "README.md", "tensorboard",
    }  # fmt: skip

    assert load_file(client.folder / "run" / "student.safetensors")["temperature"] != 1  # fitted to hold-outs

    review = json.loads((client.folder / "run" / "review.json").read_text())
    assert review["compared"] == plan["train_images"]
    right = sum(each["accuracy"] * each["images"] for each in summary["teacher_zero_shot"].values())
    assert review["disagree"] == pytest.approx(plan["train_images"] - right)
    leads = [each["lead"] for each in review["disagreements"]]
    assert leads == sorted(leads, reverse=True)
    with (client.folder / "run" / "answers.csv").open() as file:
        wrong = {row["image"] for row in csv.DictReader(file) if row["label"] != row["predicted"]}
    assert review["neighbours"].keys() <= wrong
    assert all(each["image"].startswith(("dark/", "light/")) for each in review["neighbours"].values())

    evaluated = json.loads(client("evaluate", "run", "--data", "toy", "--domain", "red", "--json").stdout)
    assert evaluated["red"]["accuracy"] == pytest.approx(summary["accuracy"]["out_of_domain"])
    image = "toy/red/circle/00.png"
    (predicted,) = json.loads(client("predict", "run", image, "--top", "2", "--json").stdout)
    assert predicted["image"] == image
    assert len(predicted["classes"]) == 2
    (by_onnx,) = json.loads(client("predict", "run/student.onnx", image, "--top", "2", "--json").stdout)
    assert by_onnx["classes"] == pytest.approx(predicted["classes"], abs=1e-4)
    assert "all of the same class" in shown.stderr
    measured = json.loads(client("evaluate", "run/student.onnx", "--data", "toy", "--json").stdout)
    assert measured["red"]["accuracy"] == pytest.approx(evaluated["red"]["accuracy"])
    assert "ONNX already" in client("export", "run/student.onnx", "--out", "x.safetensors", code=2).stderr
    refused = client("export", "run", "--out", "x.tflite", code=2)
    assert ".onnx or .safetensors" in refused.stderr
    assert not (client.folder / "x.tflite").exists()
    exported = json.loads(client("export", "run", "--out", "other.safetensors", "--json").stdout)
    (again,) = json.loads(client("predict", exported["out"], image, "--top", "2", "--json").stdout)
    assert again == predicted
    assert client("export", "run", "--out", "nowhere/s.onnx", code=2).stderr
    assert (client.folder / "run" / "report.html").read_text().count("red") > 1
    _require_true_price_of_the_target(client)
    assert vendor_process.charges(client.api_key) == charges


def test_an_interrupted_run_ends_in_the_same_student(client: Command, vendor_process: VendorProcess) -> None:
    longer = ("--steps", "60")
    client(*_distill(*longer))
    whole = load_file(client.folder / "run" / "student.safetensors")
    charges = vendor_process.charges(client.api_key)
    shutil.rmtree(client.folder / "run")

    with client.start(*_distill(*longer)) as process:
        while not (client.folder / "run" / "checkpoint.pt").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGSTOP)
        assert "Another process is working on this run" in client(*_distill(*longer), code=1).stderr
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        _, err = process.communicate()
    assert process.returncode == 130, err
    assert "continues from here" in err
    assert (client.folder / "run" / "checkpoint.pt").exists()

    assert "Going on after step" in client(*_distill(*longer)).stderr
    resumed = load_file(client.folder / "run" / "student.safetensors")
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())
    steps = [
        row["step"]
        for row in map(json.loads, (client.folder / "run" / "metrics.jsonl").read_text().splitlines())
        if row["stage"] == "distill" and "step" in row
    ]
    assert steps == sorted(set(steps))
    assert vendor_process.charges(client.api_key) == charges


def test_a_finished_run_is_neither_trained_nor_bought_again_and_keeps_its_options(
    client: Command, vendor_process: VendorProcess
) -> None:
    client(*_distill())
    first, charges = _summary(client), vendor_process.charges(client.api_key)
    trained = (client.folder / "run" / "student.safetensors").stat().st_mtime_ns
    vendor, nowhere = (client.url, client.api_key), "http://127.0.0.1:9"
    client.url = nowhere
    shown = client(*_distill())
    assert "trained already" in shown.stderr
    assert "Going on with what was bought" in shown.stderr
    client.url, client.api_key = vendor[0], "tk_0123456789abcdef_" + "0" * 48  # revoked meanwhile
    assert "Going on with what was bought" in client(*_distill()).stderr
    assert (client.folder / "run" / "student.safetensors").stat().st_mtime_ns == trained
    client.url, client.api_key = vendor
    assert "seed: 0 -> 1" in client(*_distill("--seed", "1"), code=2).stderr
    (client.folder / "other").mkdir()
    (client.folder / "other" / "thesis.tex").write_text("")
    assert "is not a run" in client(*_distill("--out", "other"), code=2).stderr

    shutil.rmtree(client.folder / "run")  # another one finds all in the cache, and needs no budget
    client(*_distill(budget=0))
    second = _summary(client)
    assert (second["queries_bought"], second["queries_cached"]) == (0, first["queries_bought"])
    assert second["accuracy"] == first["accuracy"]
    assert vendor_process.charges(client.api_key) == charges


def test_a_budget_below_the_images_teaches_what_it_can_and_can_be_raised(
    client: Command, vendor_process: VendorProcess
) -> None:
    shown = client(*_distill(budget=10))
    assert "no teacher embedding (the budget ended)" in shown.stderr
    assert vendor_process.charges(client.api_key).queries == 10
    refused = client(*_distill(budget=20), code=2)  # before anything is bought for it
    assert "holds a finished student of other answers to buy" in refused.stderr
    assert vendor_process.charges(client.api_key).queries == 10
    client(*_distill("--replace", budget=20))
    assert vendor_process.charges(client.api_key).queries == 20
    assert _summary(client)["queries_bought"] == 20
    rows = map(json.loads, (client.folder / "run" / "metrics.jsonl").read_text().splitlines())
    timed = [row["stage"] for row in rows if "seconds" in row]
    assert (timed.count("align"), timed.count("distill")) == (1, 1)  # of the student that there is


def test_a_budget_below_the_class_prompts_stops_and_says_what_it_takes(
    client: Command, vendor_process: VendorProcess
) -> None:
    stopped = client(*_distill(budget=2), code=3)
    assert "--budget of at least 3" in stopped.stderr
    shown = client(*_distill("--dry-run", budget=2), code=3)
    assert re.sub(r"\d\.\d s", "", stopped.stderr) == re.sub(r"\d\.\d s", "", shown.stderr)
    assert not (client.folder / "run" / "student.safetensors").exists()
    assert vendor_process.charges(client.api_key).queries == 0
    planned = " ".join(
        client("plan", "--data", "toy", "--target-domain", "red", "--budget", "2").stdout.split()
    )
    assert "a run with this budget cannot train" in planned
    client(*_distill())
    assert vendor_process.charges(client.api_key).texts == 3


def test_a_quota_that_ends_stops_the_run_and_what_was_bought_is_kept(
    client: Command, vendor_process: VendorProcess
) -> None:
    poor = Command(client.folder, client.url, vendor_process.create_key(quota=12))
    stopped = poor(*_distill(), code=3)
    assert "quota" in stopped.stderr
    assert "What was bought is kept" in stopped.stderr
    assert vendor_process.charges(poor.api_key).queries == 12
    client(*_distill())
    summary = _summary(client)
    assert vendor_process.charges(client.api_key).queries == summary["queries_bought"] - 12


def test_rise_pays_for_its_texts_and_its_student_is_read_back(
    client: Command, vendor_process: VendorProcess
) -> None:
    texts = len(CLASSES) * (7 + 2)
    rise = ("--method", "rise")
    said = client(*_distill(*rise, budget=texts - 1), code=3).stderr
    assert f"start again with a --budget of at least {texts}" in " ".join(said.split())
    client(*_distill(*rise, budget=texts + 10))
    charges = vendor_process.charges(client.api_key)
    assert (charges.images, charges.texts) == (10, texts)
    assert _summary(client)["cost_micros"] == charges.cost_micros == 20 * texts + 100 * 10
    _require_true_price_of_the_target(client)
    student, _ = load_student(client.folder / "run" / "student.safetensors")
    assert student.text_head is None
    assert student.get_submodule("projector.classifier").get_parameter("weight").shape[0] == len(CLASSES)
    shown = json.loads(client("evaluate", "run", "--data", "toy", "--domain", "red", "--json").stdout)
    assert shown["red"]["accuracy"] == pytest.approx(_summary(client)["accuracy"]["out_of_domain"])
    assert "trained already" in client(*_distill(*rise, budget=texts + 10)).stderr


@pytest.mark.usefixtures("onnx")
def test_erm_needs_no_vendor_and_a_student_that_cannot_be_exported_is_evaluated_all_the_same(
    client: Command, vendor_process: VendorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object, **__: object) -> None:
        raise RuntimeError("an operator that nobody knows")

    client.url = "http://127.0.0.1:9"
    erm = ("distill", "--data", "toy", "--target-domain", "red", "--method", "erm", "--out", "run", *SMALL)
    assert "Bought 0 queries" in client(*erm).stdout
    assert _summary(client)["teacher"] is None
    assert (client.folder / "run" / "student.onnx").exists()
    (client.folder / "toy" / "dark" / "circle" / "00.png").unlink()  # so that it is trained again
    monkeypatch.setattr(torch.onnx, "export", unsupported)
    assert "There will be no student.onnx" in client(*erm, "--replace").stderr
    assert not (client.folder / "run" / "student.onnx").exists()
    assert _summary(client)["accuracy"]["images_by_domain"]["red"] == 18
    assert vendor_process.charges(client.api_key).entries == 0


def test_steps_are_those_of_the_only_stage(client: Command) -> None:
    """Of two domains, each gives a batch twice as many images as of four; the stage is that of features."""
    client(*_distill("--method", "linear-probe"))
    summary = _summary(client)
    assert (summary["steps"], summary["images_per_domain"]) == (2, 2 * BRIEF.align_images_per_domain)
    assert "2 steps of 32 images a domain" in (client.folder / "run" / "report.html").read_text()


def test_a_run_that_diverges_says_so(client: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, "default", replace(BRIEF, learning_rate=1e30))
    assert "Training has diverged" in client(*_distill("--method", "erm"), code=1).stderr


def test_the_papers_recipe_averages_weights(client: Command) -> None:
    client(*_distill("--recipe", "paper"))
    config = json.loads((client.folder / "run" / "config.json").read_text())
    assert (config["recipe"]["learning_rate"], config["recipe"]["frozen"]) == (5e-5, 0.0)
    first, last = _summary(client)["steps_kept"]
    assert 1 <= first <= last <= 2


def test_bad_images_are_skipped_and_listed(client: Command) -> None:
    folder = client.folder / "toy" / "dark" / "circle"
    (folder / "zero.png").write_bytes(b"")
    (folder / "text.png").write_text("hello")
    (folder / "cut.png").write_bytes((folder / "00.png").read_bytes()[:60])
    (client.folder / "toy" / "red" / "circle" / "zero.png").write_bytes(b"")
    shown = client(*_distill())
    for name in ("zero.png: empty file", "text.png", "cut.png"):
        assert f"Skipped dark/circle/{name}" in shown.stderr
    assert "Skipped red/circle/zero.png: empty file" in shown.stderr
    evaluated = client("evaluate", "run", "--data", "toy", "--domain", "red")
    assert "Skipped red/circle/zero.png: empty file" in evaluated.stderr
    assert _summary(client)["skipped_images"] == 3
    assert _summary(client)["left_out"] == {"not a readable picture": 2, "empty file": 2}
    assert "Left out: 2 not a readable picture, 2 empty file" in shown.stdout
    assert _summary(client)["accuracy"]["images_by_domain"]["red"] == 18


@pytest.mark.parametrize(
    ("spoil", "options", "code", "message"),
    [
        ("", {"--data": "nowhere"}, 2, "nowhere does not exist"),
        ("", {"--target-domain": "blue"}, 2, "It has: dark, light, red"),
        ("one domain", {}, 2, "one domain only"),
        ("a class", {}, 2, "light/square"),
        ("", {"--student": "resnet5"}, 2, "resnet50"),
        ("wider student", {"--method": "vl2v-sd-bought"}, 2, "have 1280 dimensions and the teacher's 256"),
        ("", {"--vendor": "http://127.0.0.1:9"}, 1, "No vendor answers at http://127.0.0.1:9"),
        ("", {"--device": "quantum"}, 2, "quantum"),
        ("", {"--device": "cuda:99"}, 2, "cuda:99"),
        ("key", {}, 1, "TUITION_API_KEY"),
        ("no key", {}, 1, "TUITION_API_KEY"),
        ("", {"--budget": "-1"}, 2, "--budget"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else str(value),
)
def test_bad_input_is_named_and_nothing_is_charged(
    client: Command,
    vendor_process: VendorProcess,
    spoil: str,
    options: dict[str, str],
    code: int,
    message: str,
) -> None:
    good_key = client.api_key
    if spoil == "one domain":
        for name in ("dark", "light"):
            shutil.rmtree(client.folder / "toy" / name)
    elif spoil == "a class":
        shutil.rmtree(client.folder / "toy" / "light" / "square")
    elif spoil == "key":
        client.api_key = "tk_0123456789abcdef_" + "0" * 48
    elif spoil == "no key":
        client.api_key = ""
    arguments = _distill()
    if spoil == "wider student":
        arguments = [word for word in arguments if word not in TINY]
    for name, value in options.items():
        if name in arguments:
            arguments[arguments.index(name) + 1] = value
        else:
            arguments += [name, value]
    stopped = client(*arguments, code=code)
    assert message in stopped.stderr
    assert not stopped.stdout
    assert vendor_process.charges(good_key).entries == 0


def test_a_class_that_was_renamed_is_learnt_anew_and_has_its_new_name_in_summary_and_report(
    client: Command,
) -> None:
    client(*_distill())
    for folder in (client.folder / "toy").glob("*/tall_bar"):
        folder.rename(folder.with_name("bar"))
    assert "student of other classes" in client(*_distill(), code=2).stderr
    client(*_distill("--replace"))
    run = client.folder / "run"
    _, metadata = load_student(run / "student.safetensors")
    assert json.loads(metadata["classes"])[0] == "bar"
    answers = (run / "answers.csv").read_text()
    assert ",bar," in answers
    assert "tall_bar" not in answers
    assert json.loads((run / "plan.json").read_text())["classes"] == ["bar", "circle", "square"]
    assert "tall_bar" not in (run / "report.html").read_text()
    summary = _summary(client)
    assert summary["queries_bought"] == summary["train_images"] + len(CLASSES) + 1


def test_usage_says_what_the_vendor_says(client: Command, vendor_process: VendorProcess) -> None:
    client("embed", "--text", "one", "--text", "two", "--out", "out.npy")
    assert "998 of 1000 queries left" in client("usage").stdout
    usage = json.loads(client("usage", "--group-by", "kind", "--json").stdout)
    assert usage["usage"]["total"]["texts"] == 2
    assert usage["account"]["queries_used"] == 2
    assert client("models").stdout.count("icon-clip") == 1
