"""The frozen answers of the bundled teacher, with which the benchmark asks nobody."""

import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from safetensors.numpy import load_file

import client
from benchmarks import answers
from benchmarks.answers import ANSWERS
from benchmarks.records import ROOT
from client.cache.archive import import_embeddings
from client.cache.cache import EmbeddingCache
from client.data.bundled_set import ICONS, UNLABELLED
from client.options.training import CompareOptions
from client.vendors.in_process import InProcess
from tests.client.toy import tiny_student
from tests.support.quick import BRIEF

PAGE = (ROOT / "docs" / "benchmark.md").read_text()
CLASSES = ("bell", "key", "umbrella")
# All that ask the vendor, but for what an open_clip student alone can learn by.
ASKING = ("vl2v-adip", "no-align", "image-only", "text-only", "simkd", "rise", "kd", "zero-shot")


def test_the_file_is_the_one_whose_digest_stands_in_the_documents() -> None:
    (digest,) = re.findall(r"SHA-256 `([0-9a-f]{64})`", PAGE)
    assert hashlib.sha256(ANSWERS.read_bytes()).hexdigest() == digest
    assert ANSWERS.stat().st_size < 5_000_000


def test_it_answers_about_every_bundled_image_and_every_sentence_that_a_method_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ZipFile(ICONS) as archive:  # an image of each class and domain
        names = {name.rpartition("/")[0]: name for name in archive.namelist() if name.endswith(".png")}
        archive.extractall(tmp_path, names.values())
    monkeypatch.setattr(answers, "icons", lambda: tmp_path / "icons")
    held = load_file(ANSWERS)
    known: dict[int, set[bytes]] = {0: set(), 1: set()}
    for kind, row in zip(held["kinds"].tolist(), held["digests"], strict=True):
        known[kind].add(row.tobytes())
    assert known[0] == {hashlib.sha256(text.encode()).digest() for text in answers.texts_asked()}
    images = set()
    for file in (ICONS, UNLABELLED):
        with ZipFile(file) as archive:
            pictures = [name for name in archive.namelist() if not name.endswith((".txt", "/"))]
            images |= {hashlib.sha256(archive.read(name)).digest() for name in pictures}
    assert known[1] == images
    said = re.search(r"([\d,]+) answers", PAGE)
    assert said is not None
    assert int(said[1].replace(",", "")) == len(held["kinds"]) == len(known[0]) + len(known[1])


def _unpack(folder: Path) -> None:
    """Two images of some classes in each style, and a few of the pool."""
    taken: Counter[str] = Counter()
    for file, most, chosen in ((ICONS, 2, CLASSES), (UNLABELLED, 4, ())):
        with ZipFile(file) as archive:
            for name in archive.namelist():
                place = name.rpartition("/")[0]
                is_wanted = not name.endswith((".txt", "/")) and (
                    not chosen or place.rpartition("/")[2] in chosen
                )
                if is_wanted and taken[place] < most:
                    taken[place] += 1
                    archive.extract(name, folder)


def test_a_comparison_with_it_asks_the_vendor_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: object, **__: object) -> None:
        raise AssertionError("the teacher was asked")

    _unpack(tmp_path)
    options: dict[str, Any] = {
        "data": tmp_path / "icons", "unlabelled": (str(tmp_path / UNLABELLED.stem),), "seeds": 1,
        "teacher": "open_clip:icon-clip", "out": tmp_path / "table",
        **tiny_student(tmp_path), "image_size": 32, "steps": 2, "device": "cpu", "recipe": BRIEF,
    }  # fmt: skip
    planned = client.plan_comparison(CompareOptions(**options, methods=ASKING, cache=tmp_path / "empty.db"))
    options["cache"] = tmp_path / "cache.db"
    assert (planned.cached, planned.to_buy > 50) == (0, True)
    with EmbeddingCache(options["cache"], half=True) as cache:
        added, total = import_embeddings(cache, ANSWERS)
    assert added == total
    monkeypatch.setattr(InProcess, "embed", asked)
    assert client.plan_comparison(CompareOptions(**options, methods=ASKING)).to_buy == 0
    found = client.compare(
        CompareOptions(**options, methods=("vl2v-adip", "rise", "zero-shot"), target_domains=("emoji",))
    )
    used = {run.method: run.queries for run in found.table.runs}
    assert used["vl2v-adip"] > len(CLASSES)
    assert used["zero-shot"] > len(CLASSES)
