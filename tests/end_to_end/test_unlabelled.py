"""Images without labels are bought after the labelled ones and learnt from; copies of tested ones are not."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from client.cache.cache import EmbeddingCache
from client.data import examples
from client.data.kept_images import KeptImages
from client.data.listing import list_folder
from client.learning import recipe
from client.learning.recipe import RECIPES, Recipe
from client.results.expectations import GAINED
from tests.client.toy import CLASSES, make_folder
from tests.end_to_end.command import TINY, Command
from tests.support.vendor_process import VendorProcess

_SMALL = ("--data", "toy", "--target-domain", "red", "--image-size", "32")
_POOL = 12


pytestmark = pytest.mark.usefixtures("trusted")


@pytest.fixture
def client(vendor_process: VendorProcess, tmp_path: Path) -> Command:
    toy = make_folder(tmp_path / "toy", images=5)
    pool = tmp_path / "pool"
    (pool / "deeper").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for n in range(_POOL):
        noise = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize((40, 40))
        noise.save(pool / "deeper" / f"{n}.png")
    (pool / "labelled.png").write_bytes((toy / "dark" / "circle" / "00.png").read_bytes())
    Image.open(toy / "red" / "circle" / "00.png").resize((80, 80)).save(pool / "target-by-another-name.png")
    (pool / "broken.png").write_bytes(b"no picture")
    return Command(tmp_path, vendor_process.url, vendor_process.create_key(quota=1000))


def _json(client: Command, name: str, run: str = "run") -> dict[str, Any]:
    value: dict[str, Any] = json.loads((client.folder / run / name).read_text())
    return value


def _distill(*more: str) -> tuple[str, ...]:
    return ("distill", *TINY, *_SMALL, "--steps", "4", "--out", "run", "--unlabelled", "pool", *more)


def test_a_pool_is_planned_bought_and_learnt_from(client: Command, vendor_process: VendorProcess) -> None:
    plan = json.loads(client("plan", *_SMALL, "--unlabelled", "pool", "--json").stdout)
    by_name = {tranche["name"]: tranche for tranche in plan["purchase"]["tranches"]}
    assert list(by_name) == ["texts", "labelled", "unlabelled"]
    assert by_name["unlabelled"]["to_buy"] == _POOL == plan["unlabelled_images"]
    assert plan["left_out"] == {
        "a copy of a labelled image": 1,
        "nearly a copy of an image of red, which is tested on": 1,
        "not a readable picture": 1,
    }
    assert sum(plan["images_by_domain"].values()) == plan["train_images"] + plan["holdout_images"]

    client(*_distill("--budget", "1000"))
    summary = _json(client, "summary.json")
    wanted = len(CLASSES) + summary["train_images"] + _POOL
    assert vendor_process.charges(client.api_key).queries == wanted == summary["queries_bought"]
    assert (summary["unlabelled_images"], summary["adapted"]) == (_POOL, False)
    assert (summary["skipped_images"], summary["left_out"]) == (0, plan["left_out"])
    report = " ".join((client.folder / "run" / "report.html").read_text().split())
    assert f"{_POOL} images without labels" in report
    assert "It never saw <b>red</b>" in report

    again = client(*_distill("--budget", "1000"))
    assert "The student is trained already" in again.stderr
    assert vendor_process.charges(client.api_key).queries == wanted


def test_labelled_images_come_first_and_a_budget_may_end_in_the_pool(client: Command) -> None:
    plan = json.loads(client("plan", *_SMALL, "--unlabelled", "pool", "--json").stdout)
    first = len(CLASSES) + plan["train_images"]
    shown = client(*_distill("--budget", str(first + 5)))
    assert f"{_POOL - 5} of {_POOL} unlabelled images were not bought (the budget ended)" in shown.stderr
    summary = _json(client, "summary.json")
    assert (summary["queries_bought"], summary["unlabelled_images"]) == (first + 5, 5)
    with EmbeddingCache(client.folder / "cache.db") as cache:
        assert len(cache.fingerprints()) == 1
    shown = client(*_distill("--budget", str(first + 8), "--replace"))
    assert _json(client, "summary.json")["unlabelled_images"] == 8


def test_the_plan_shows_each_kind_of_spending(client: Command) -> None:
    shown = client("plan", *_SMALL, "--unlabelled", "pool", "--budget", "30").stdout
    rows = [re.findall(r"[a-z][a-z ]+[a-z]|\+?[\d.]+", line) for line in shown.splitlines() if "│" in line]
    kinds = {row[0]: row[1:] for row in rows if len(row) > 5 and "images" in row[0]}
    assert set(kinds) == {"labelled images", "unlabelled images"}
    *counts, gained = kinds["unlabelled images"]
    assert gained == f"+{GAINED['unlabelled']}"
    needed, cached, to_buy, beyond, micros = map(int, counts)
    assert (needed, cached, to_buy + beyond, micros) == (_POOL, 0, _POOL, to_buy * 100)


def test_a_plan_is_without_what_is_known_not_to_be_bought(
    client: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.runs.teacher_check.LEARNT_FROM", 1.1)
    first = len(CLASSES) + 24
    planned = client("plan", *_SMALL, "--unlabelled", "pool", "--budget", "1000", "--probe", str(first))
    shown = client(*_distill("--budget", "1000", "--dry-run"))
    for each in (planned, shown):
        assert "buy no more of this teacher" in each.stdout
        assert "stay unspent" not in each.stdout
    purchase = json.loads(client(*_distill("--budget", "1000", "--dry-run", "--json")).stdout)["purchase"]
    assert (purchase["cached"], purchase["to_buy"], purchase["cost_micros"]) == (first, 0, 0)


def test_a_run_takes_as_many_steps_as_show_each_image_twice(
    client: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two domains, each gives a batch 16 images; here 4 without labels stand beside them."""
    monkeypatch.setitem(RECIPES, "default", Recipe(steps=1, align_steps=4))
    monkeypatch.setattr(Recipe, "unlabelled_in_batch", lambda *_: 4)
    plan = json.loads(client("plan", *_SMALL, "--unlabelled", "pool", "--json").stdout)
    assert (plan["steps"], plan["unseen_images"]) == (2 * _POOL // 4, 0)
    few = json.loads(client("plan", *_SMALL, "--unlabelled", "pool", "--budget", "30", "--json").stdout)
    assert few["steps"] == 2  # it would buy few of them, and these show the 24 labelled images twice

    run = ("distill", *TINY, *_SMALL, "--unlabelled", "pool", "--budget", "1000", "--out", "run")
    shown = client(*run).stderr
    assert "Training takes 6 steps and not 1, so that it sees 24 labelled and 12 other images" in shown
    summary, planned = _json(client, "summary.json"), _json(client, "plan.json")
    assert summary["steps"] == planned["steps"] == 6
    assert summary["unlabelled_images"] == _POOL
    assert "The student is trained already" in client(*run).stderr
    assert _json(client, "summary.json")["steps"] == 6


def test_a_method_that_trains_nothing_on_pixels_takes_no_more_steps_for_more_images(
    client: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "default", Recipe(steps=1, align_steps=4))
    shown = client("distill", *TINY, *_SMALL, "--method", "linear-probe", "--out", "run").stderr
    assert "Training takes" not in shown
    assert _json(client, "summary.json")["steps"] == 4


def test_what_so_few_steps_would_not_look_at_is_not_bought(
    client: Command, vendor_process: VendorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recipe, "unlabelled_in_batch", lambda *_: 2)
    monkeypatch.setattr(recipe, "unlabelled_aligned", lambda _: 0)
    few = ("--steps", "4", "--unlabelled", "pool")
    shown = client("plan", *_SMALL, *few, "--budget", "1000").stdout
    assert f"{_POOL - 8} of the images without labels are not bought: so few steps look at no more" in shown
    assert "would stay unspent: more --steps would use them" in shown
    told = client(*_distill("--budget", "1000")).stderr
    assert f"so few steps would not look at {_POOL - 8} of the images without labels" in told
    summary = _json(client, "summary.json")
    assert summary["unlabelled_images"] == 8
    bought = len(CLASSES) + summary["train_images"] + 8
    assert vendor_process.charges(client.api_key).queries == bought


@pytest.mark.parametrize("option", ["--adapt", "--unlabelled"])
def test_what_it_was_adapted_to_is_not_called_unseen(client: Command, option: str) -> None:
    """Images that were kept where a student works are images of that domain, whatever they are given as."""
    own = client.folder / "own"
    own.mkdir()
    for n, file in enumerate(sorted((client.folder / "toy" / "red" / "square").iterdir())[:3]):
        picture = Image.open(file).transpose(Image.Transpose.ROTATE_90).crop((2, 0, 38, 34))
        picture.save(own / f"{n}.png")
        if option == "--unlabelled":
            assert KeptImages(own, at_most=3).keep([(own / f"{n}.png").read_bytes()]) == ""
            (own / f"{n}.png").unlink()
    shown = client(
        "distill", *TINY, *_SMALL, "--steps", "4", "--out", "run", option, "own", "--budget", "1000"
    ).stdout
    assert "red (adapted to)" in shown
    assert "after adaptation" in shown
    assert "unseen" not in shown
    assert "out-of-domain" not in shown
    summary = _json(client, "summary.json")
    assert summary["adapted"] is True
    assert summary["unlabelled_images"] > 0
    pages = "".join((client.folder / "run" / name).read_text() for name in ("report.html", "README.md"))
    assert "<b>adapted</b> to red" in " ".join(pages.split())
    assert "never saw" not in pages
    assert "unseen (" not in pages
    assert "adapted to red</title>" in pages

    begun = ("--student", TINY[1], "--student-weights", "run/student.safetensors", "--method", "linear-probe")
    for out in ("next", "third") if option == "--adapt" else ():
        shown = client("distill", *begun, *_SMALL, "--steps", "1", "--out", out).stdout
        assert "red (adapted to)" in shown
        assert "unseen" not in shown
        assert _json(client, "summary.json", out)["adapted"] is True
        card = (client.folder / out / "README.md").read_text()
        assert "After adaptation" in card
        assert "never" not in card
        begun = (*begun[:3], f"{out}/student.safetensors", *begun[4:])


def test_students_that_leave_a_domain_out_are_not_adapted_to_it(
    client: Command, vendor_process: VendorProcess
) -> None:
    """The images of `--adapt`, and others that were kept where a student works, show the domain of its work,
    and none that it learnt from."""
    shutil.rmtree(client.folder / "toy" / "red")
    pictures = [file.read_bytes() for file in sorted((client.folder / "pool" / "deeper").iterdir())]
    assert KeptImages(client.folder / "kept", at_most=_POOL).keep(pictures) == ""
    shown = client(
        "distill", *TINY, "--data", "toy", "--image-size", "32", "--steps", "2", "--leave-one-out",
        "--unlabelled", "kept", "--budget", "1000", "--out", "run",
    )  # fmt: skip
    assert "counts as --adapt and not as" in shown.stderr
    whole = _json(client, "summary.json")
    assert whole["adapted"] is True
    assert vendor_process.charges(client.api_key).queries == whole["queries_bought"]
    for domain in ("dark", "light"):
        run = f"run/leave-one-out/{domain}"
        summary = _json(client, "summary.json", run)
        assert (summary["adapted"], summary["queries_bought"]) == (False, 0)
        assert summary["unlabelled_images"] == whole["unlabelled_images"] > 0
        page = " ".join((client.folder / run / "report.html").read_text().split())
        assert f"It never saw <b>{domain}</b>" in page


def test_a_variable_that_is_not_set_buys_nothing(client: Command) -> None:
    refused = client("plan", *_SMALL, "--unlabelled", "", "--budget", "1000", code=2).stderr
    assert "An empty name stands for no images" in refused


@pytest.mark.parametrize("method", ["erm", "text-only", "rise"])
def test_a_method_that_learns_from_labels_alone_refuses_a_pool(client: Command, method: str) -> None:
    refused = client(*_distill("--budget", "1000", "--method", method), code=2).stderr
    assert f"The method {method} learns from labelled images alone" in refused
    assert not (client.folder / "run").exists()


def test_a_second_plan_opens_no_file(client: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in client.folder.glob("**/*.png"):
        os.utime(file, (1, 1))
    plan = ("plan", *_SMALL, "--unlabelled", "pool", "--json")
    first = json.loads(client(*plan).stdout)

    def opened(path: Path) -> bytes:
        raise AssertionError(f"{path} was opened")

    monkeypatch.setattr(examples, "read_image", opened)
    assert json.loads(client(*plan).stdout)["purchase"] == first["purchase"]
    assert len(list_folder(client.folder / "toy").domains) == 3


def test_class_names_and_images_without_labels_make_a_student(
    client: Command, vendor_process: VendorProcess
) -> None:
    (client.folder / "names.txt").write_text("\n".join(CLASSES))
    run = ("--data", "names.txt", "--unlabelled", "toy/dark", "--unlabelled", "pool", "--image-size", "32")
    planned = client("plan", *run, "--json")
    shown = client("distill", *TINY, *run, "--steps", "4", "--out", "run", "--budget", "1000")
    assert "No image with a label was held out" in shown.stdout
    summary, plan = _json(client, "summary.json"), _json(client, "plan.json")
    assert "pool/broken.png" in {each["path"] for each in plan["skipped"]}  # names.txt lies beside the pool
    for said in (planned.stderr, shown.stderr):
        assert re.search(r"[^/]pool/broken\.png", said)
    assert (summary["train_images"], summary["holdout_images"], plan["source_domains"]) == (0, 0, [])
    assert summary["queries_bought"] == len(CLASSES) + summary["unlabelled_images"]
    assert summary["accuracy"] == {
        "in_domain": None,
        "out_of_domain": None,
        "by_domain": {},
        "images_by_domain": {},
        "worst_domain": None,
        "in_domain_interval": None,
        "out_of_domain_interval": None,
        "in_domain_over_classes": None,
        "out_of_domain_over_classes": None,
        "in_domain_cross_fitted": None,
        "in_domain_over_twins": None,
        "out_of_domain_over_twins": None,
        "twin_groups_by_domain": {},
        "intervals_by_domain": {},
    }
    assert summary["steps_kept"] == [4, 4]
    pages = "".join((client.folder / "run" / name).read_text() for name in ("report.html", "README.md"))
    assert "its accuracy could not be measured" in pages
    assert "None" not in pages
    picture = str(client.folder / "toy" / "red" / "circle" / "00.png")
    predicted = json.loads(client("predict", "run", picture, "--json").stdout)
    assert set(predicted[0]["classes"]) <= set(CLASSES)
    assert vendor_process.charges(client.api_key).queries == summary["queries_bought"]


def test_class_names_alone_are_refused_before_anything_is_asked(client: Command) -> None:
    (client.folder / "names.txt").write_text("\n".join(CLASSES))
    refused = client("distill", "--data", "names.txt", "--out", "run", "--budget", "1000", code=2).stderr
    assert "names classes and no image: give images without labels with --unlabelled" in refused


_COMPARE = (
    "compare", *TINY, *_SMALL, "--out", "table", "--seeds", "1", "--steps", "2", "--unlabelled", "pool",
)  # fmt: skip


def _quoted(client: Command, *more: str) -> tuple[int, int]:
    """How many queries a comparison would buy, and how many are in the cache."""
    quote = json.loads(client(*_COMPARE, *more, "--dry-run", "--json").stdout)
    return quote["to_buy"], quote["cached"]


def _used(client: Command) -> dict[str, tuple[int, int]]:
    """How many embeddings each run of a comparison used, and their price."""
    return {
        run["method"]: (run["queries"], run["cost_micros"])
        for run in _json(client, "table.json", "table")["runs"]
    }


def test_a_comparison_buys_no_pool_for_runs_that_learn_nothing_of_the_teacher(
    client: Command, vendor_process: VendorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.runs.teacher_check.LEARNT_FROM", 1.1)
    first = len(CLASSES) + 24
    price = 20 * len(CLASSES) + 100 * 24
    rows = ("--methods", "erm,vl2v-adip")
    assert _quoted(client, *rows) == (first + _POOL, 0)
    shown = client(*_COMPARE, *rows, "--max-spend", str(price))
    assert f"{_POOL} of {_POOL} unlabelled images were not bought (nothing is learnt" in shown.stderr
    assert vendor_process.charges(client.api_key).queries == first
    assert _used(client) == {"erm": (0, 0), "vl2v-adip": (first, price)}

    (client.folder / "table/runs/vl2v-adip-red-0/summary.json").unlink()
    assert _quoted(client, *rows) == (0, first)
    client(*_COMPARE, *rows)
    assert vendor_process.charges(client.api_key).queries == first

    both = ("--methods", "vl2v-adip,image-only,vl2v-adip+swad")  # image-only learns from any teacher
    client(*_COMPARE, *both, "--yes")
    assert vendor_process.charges(client.api_key).queries == first + _POOL
    assert {name: used[0] for name, used in _used(client).items()} == {
        "vl2v-adip": first, "image-only": first + _POOL, "vl2v-adip+swad": first,
    }  # fmt: skip


def test_a_comparison_that_was_killed_between_its_purchases_asks_nothing_twice(
    client: Command, vendor_process: VendorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it gives the pool to the methods that can learn from it."""

    def killed(*_: object, **__: object) -> bool:
        raise KeyboardInterrupt

    first, rows = len(CLASSES) + 24, ("--methods", "erm,vl2v-adip")
    with monkeypatch.context() as patched:
        patched.setattr("client.runs.comparison.worth_asking", killed)
        client(*_COMPARE, *rows, code=130)
    assert vendor_process.charges(client.api_key).queries == first
    assert _quoted(client, *rows) == (_POOL, first)
    shown = client(*_COMPARE, *rows)
    assert vendor_process.charges(client.api_key).queries == first + _POOL
    assert {name: queries for name, (queries, _) in _used(client).items()} == {
        "erm": 0,
        "vl2v-adip": first + _POOL,
    }
    told = {line.split()[0]: line.split() for line in shown.stdout.splitlines()[2:4]}
    assert int(told["vl2v-adip"][-3]) == first + _POOL
    pools = [_json(client, f"runs/{name}-red-0/summary.json", "table")["unlabelled_images"] for name in told]
    assert dict(zip(told, pools, strict=True)) == {"erm": 0, "vl2v-adip": _POOL}
    (client.folder / "pool" / "more.png").write_bytes((client.folder / "toy/red/circle/01.png").read_bytes())
    assert "have changed since" in client(*_COMPARE, "--methods", "vl2v-adip,image-only", code=2).stderr
