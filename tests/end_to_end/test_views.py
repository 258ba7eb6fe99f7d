"""Further views, and images chosen by coverage, bought from the real vendor and learnt from."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.cache.cache import EmbeddingCache
from client.data.views import View
from client.learning import trust
from client.learning.recipe import Recipe
from client.progress import Display
from client.runs.dataset import read_dataset
from client.runs.folder import RunConfig
from client.runs.teacher_queries import teacher_queries
from tests.client.toy import make_folder
from tests.end_to_end.command import TINY, Command
from tests.support.vendor_process import VendorProcess
from tools.site.run_files import faults

pytestmark = pytest.mark.usefixtures("trusted", "without_onnx")


@pytest.fixture
def client(vendor_process: VendorProcess, tmp_path: Path) -> Command:
    make_folder(tmp_path / "toy", images=5)
    return Command(tmp_path, vendor_process.url, vendor_process.create_key(quota=1000))


def _command(*more: str) -> list[str]:
    small = ("--image-size", "32", "--steps", "4")
    return ["distill", "--data", "toy", "--target-domain", "red", "--out", "run", *small, *more]


def _json(client: Command, name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((client.folder / "run" / name).read_text())
    return value


def _config(client: Command, **options: Any) -> RunConfig:
    data = str(client.folder / "toy")
    of_run = {"student": "tf_efficientnet_lite0", "image_size": 32, "seed": 0, "recipe": Recipe()}
    return RunConfig(data, "red", "vl2v-adip", **{**of_run, "select": "stratified", **options})


def test_views_are_bought_once_every_image_is_and_learnt_from_as_they_were_sent(
    client: Command, vendor_process: VendorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    for share in ("_RECOGNISED", "_BY_TRUSTED"):  # icon-clip knows few of the toy's shapes
        monkeypatch.setattr(trust, share, 0.0)
    dataset = read_dataset(_config(client, recipe=Recipe(views=2)), Display())
    images = len(dataset.train)
    asked = teacher_queries(_config(client, recipe=Recipe(views=2)), dataset)
    wanted, further = len(set(asked.all)), len(set(asked.of("views").queries))
    plan = json.loads(
        client("plan", "--data", "toy", "--target-domain", "red", "--views", "2", "--json").stdout
    )
    assert (plan["purchase"]["views"], plan["purchase"]["to_buy"]) == (2 * images, wanted)
    assert sum(plan["images_by_domain"].values()) == len(dataset.train) + len(dataset.holdout)

    few = wanted - further + 5
    shown = client(*_command(*TINY, "--views", "2", "--budget", str(few)))
    assert f"of {2 * images} further views were not bought (the budget ended)" in shown.stderr
    assert vendor_process.charges(client.api_key).queries == few
    assert 5 <= _json(client, "summary.json")["further_views"] < images

    client(*_command(*TINY, "--views", "2", "--budget", str(10 * wanted), "--replace"))
    assert vendor_process.charges(client.api_key).queries == wanted
    summary = _json(client, "summary.json")
    assert (summary["further_views"], summary["train_images"]) == (2 * images, images)
    assert faults(client.folder / "run") == []
    noted = [json.loads(line) for line in (client.folder / "run" / "views.jsonl").read_text().splitlines()]
    assert [each["digest"] for each in noted] == [e.digest for e in dataset.examples if e.view.index]
    image = (client.folder / "toy" / noted[0].pop("image")).read_bytes()
    digest = noted[0].pop("digest")
    assert hashlib.sha256(View(**noted[0]).encode(image)).hexdigest() == digest
    with EmbeddingCache(client.folder / "cache.db") as cache:
        assert cache.known(summary["teacher"]["fingerprint"], asked.all) == set(asked.all)
        rows, _ = cache.rows(summary["teacher"]["fingerprint"], asked.of("views").queries, 256)
    assert len(np.unique(rows.round(5), axis=0)) > images  # views of an image are not taken for one another
