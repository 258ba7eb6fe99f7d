"""A run, a comparison and a cache that an earlier version made (commit a096508) open, and are not paid twice.

`earlier/a096508.zip` holds the toy pictures, five of a class and domain; a tiny untrained backbone; a run of
four steps (red held out, 27 queries); a comparison of two rows; and the cache of 42 embeddings that they
bought from the bundled model.
"""

import json
from pathlib import Path
from zipfile import ZipFile

import pytest

from client import load_run, load_student
from tests.end_to_end.command import Command
from tests.support.vendor_process import VendorProcess

_ARCHIVE = Path(__file__).parent / "earlier" / "a096508.zip"
_TRAINING = ("--student", "test_efficientnet", "--student-weights", "backbone.safetensors")
_SMALL = ("--image-size", "32", "--steps", "4")
_RUN = ("distill", "--data", "toy", "--target-domain", "red", "--out", "run", *_TRAINING, *_SMALL)


@pytest.fixture
def client(vendor_process: VendorProcess, tmp_path: Path) -> Command:
    with ZipFile(_ARCHIVE) as archive:
        archive.extractall(tmp_path)
    for config in tmp_path.glob("**/config.json"):
        config.write_text(config.read_text().replace("/customer", str(tmp_path)))
    return Command(tmp_path, vendor_process.url, vendor_process.create_key(quota=1000))


def test_a_finished_run_opens_and_stands(client: Command, vendor_process: VendorProcess) -> None:
    folder = client.folder / "run"
    student, purchase = (folder / "student.safetensors").read_bytes(), (folder / "purchase.json").read_text()
    run = load_run(folder)
    assert (run.summary.queries_bought, run.plan.train_images, run.plan.target_domain) == (27, 24, "red")
    assert run.purchase is not None
    assert run.purchase.cost_micros == run.summary.cost_micros
    assert "Distilling" not in (again := client(*_RUN, "--budget", "100").stderr)
    assert "finished by an earlier version of Tuition. Its student stays as it is" in again
    assert (folder / "student.safetensors").read_bytes() == student
    assert (folder / "purchase.json").read_text() == purchase
    assert vendor_process.charges(client.api_key).queries == 0
    picture = next((client.folder / "toy" / "red").glob("*/*.png"))
    assert set(load_student(folder).predict([picture]).classes[str(picture)]) <= {
        "circle",
        "square",
        "tall_bar",
    }
    assert run.write_report().read_text().startswith("<!doctype html>")


def test_a_finished_run_of_other_images_is_not_taken_for_it(client: Command) -> None:
    next((client.folder / "toy" / "dark").glob("*/*.png")).unlink()
    refused = client(*_RUN, "--budget", "100", code=2).stderr
    assert "holds a finished student of other numbers of images" in refused


def test_its_purchase_serves_a_new_run(client: Command, vendor_process: VendorProcess) -> None:
    new = [word if word != "run" else "new" for word in _RUN]
    client(*new, "--budget", "0")
    assert vendor_process.charges(client.api_key).queries == 0
    assert json.loads((client.folder / "new" / "summary.json").read_text())["queries_cached"] == 27


def test_a_comparison_opens_and_no_run_of_today_is_put_beside_it(client: Command) -> None:
    compare = ("compare", "--data", "toy", "--target-domain", "red", "--out", "table", *_TRAINING, *_SMALL)
    shown = client(*compare, "--methods", "erm,zero-shot", "--seeds", "1")
    rows = {line.split()[0]: line.split()[1] for line in shown.stdout.splitlines()[2:4]}
    assert rows == {"erm": "33.3", "zero-shot": "73.3"}
    refused = client(*compare, "--methods", "erm,zero-shot,text-only", "--seeds", "1", code=2)
    assert "by the mean over all images that are held out" in refused.stderr
