"""Labelled images from where people keep them, in files that the libraries themselves have written."""

import gzip
import io
import json
import os
import pickle
import tarfile
from collections import Counter
from collections.abc import Callable
from hashlib import md5
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import webdataset
from datasets.table import embed_table_storage
from torchvision.datasets import CIFAR10

from client.data import file_memory, rows_file
from client.data.domains import ImageFolder
from client.data.examples import read_files
from client.data.file_memory import FileMemory
from client.data.finder import NO_FILE, OF_TEST, counted
from client.data.images import decode, read_image
from client.data.inspection import inspect
from client.data.listing import list_folder
from client.data.pool import find_pool
from client.data.sources.source import NO_LABEL
from client.data.tar_file import OUTSIDE, TWICE
from client.errors import DataError, UsageError
from tests.client.toy import CLASSES, DOMAINS, draw, make_folder

Facts = Counter[tuple[str, str, str]]

datasets.disable_progress_bars()


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "toy", images=2)


def _facts(folder: ImageFolder) -> Facts:
    """Domain, class and content of each image."""
    examples, skipped = folder.read(folder.domains)
    assert not skipped
    return Counter((each.domain, folder.classes[each.label], each.file_digest) for each in examples)


def _table(toy: Path, *domains: str) -> datasets.Dataset:
    """The pictures of some domains, as `datasets` holds them: their labels are numbers that have names."""
    files = [file for domain in domains for file in sorted(toy.glob(f"{domain}/*/*.png"))]
    return datasets.Dataset.from_dict(
        {
            "picture": list(map(str, files)),
            "label": [CLASSES.index(file.parts[-2]) for file in files],
            "place": [file.parts[-3] for file in files],
        },
        features=datasets.Features(
            picture=datasets.Image(),
            label=datasets.ClassLabel(names=list(CLASSES)),
            place=datasets.Value("string"),
        ),
    )


def _saved(toy: Path, out: Path) -> str:
    datasets.DatasetDict({domain: _table(toy, domain) for domain in DOMAINS}).save_to_disk(out)
    return f"hf:{out}"


def _cached(toy: Path, out: Path) -> str:
    """What `load_dataset` keeps of files that somebody gave it."""
    files = {domain: str(out / f"{domain}.parquet") for domain in DOMAINS}
    out.mkdir()
    for domain, file in files.items():
        _table(toy, domain).to_parquet(file)
    datasets.load_dataset("parquet", data_files=files, cache_dir=str(out / "cache"))
    return f"hf:{next(out.glob('cache/parquet/*/*/*/dataset_info.json')).parent}"


def _parquet(toy: Path, out: Path) -> str:
    """As `push_to_hub` writes it, the images in the file, a few rows a group."""
    (out / "data").mkdir(parents=True)
    for domain in DOMAINS:
        table = embed_table_storage(_table(toy, domain).data.table)
        file = out / "data" / f"{domain}-00000-of-00001.parquet"
        pyarrow.parquet.write_table(table, file, row_group_size=4)
    return f"hf:{out}"


def _tars(toy: Path, out: Path, pattern: str, told: Callable[[Path], dict[str, Any]]) -> str:
    for domain in DOMAINS:
        shard = out / pattern.format(domain)
        shard.parent.mkdir(parents=True, exist_ok=True)
        with webdataset.ShardWriter(f"{shard}-%03d.tar", maxcount=4, verbose=0) as shards:
            for number, file in enumerate(sorted(toy.glob(f"{domain}/*/*.png"))):
                shards.write({"__key__": f"{number:04}", "png": file.read_bytes(), **told(file)})
    return f"webdataset:{out}/{pattern.format('{dark,light,red}')}-{{000..001}}.tar"


def _tars_of_texts(toy: Path, out: Path) -> str:
    return _tars(toy, out, "{}/shard", lambda file: {"txt": file.parts[-2]})


def _tars_of_objects(toy: Path, out: Path) -> str:
    """Their `.cls` is a number, of which the object says the word."""

    def told(file: Path) -> dict[str, Any]:
        label = file.parts[-2]
        return {"cls": CLASSES.index(label), "json": {"label": label, "domain": file.parts[-3]}}

    _tars(toy, out, "{}", told)
    return f"webdataset:{out}"


def _samples(toy: Path, out: Path) -> str:
    """As fiftyone 1.22.1 wrote samples.json (2026-12-02), with the fields of its own that it has there."""
    out.mkdir()
    (out / "data").symlink_to(toy)
    samples = [
        {
            "_id": {"$oid": f"{number:024}"},
            "filepath": f"data/{file.relative_to(toy)}",
            "tags": ["train"],
            "metadata": None,
            "_media_type": "image",
            "ground_truth": {
                "_cls": "Classification",
                "tags": [],
                "label": file.parts[-2],
                "confidence": 0.5,
            },
            "domain": file.parts[-3],
        }
        for number, file in enumerate(sorted(toy.glob("*/*/*.png")))
    ]
    (out / "samples.json").write_text(json.dumps({"samples": samples}))
    return f"fiftyone:{out}"


@pytest.mark.parametrize(
    "write",
    [_saved, _cached, _parquet, _tars_of_texts, _tars_of_objects, _samples],
    ids=lambda each: each.__name__,
)
def test_a_source_has_the_images_labels_and_domains_of_the_folder(
    toy: Path, tmp_path: Path, write: Callable[[Path, Path], str]
) -> None:
    spec = write(toy, tmp_path / "kept")
    found, folder = list_folder(Path(spec)), list_folder(toy)
    assert (found.domains, found.classes) == (folder.domains, folder.classes)
    facts = _facts(folder)
    assert _facts(found) == facts
    assert inspect(found).is_sound
    without_labels = read_files(find_pool(spec).images, FileMemory(None))
    assert Counter(each.file_digest for each in without_labels) == Counter(
        digest for _, _, digest in facts.elements()
    )


def test_the_memory_knows_images_in_a_file_until_the_file_changes(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_memory, "_SETTLED_AFTER_NS", 0)
    spec = _tars_of_texts(toy, tmp_path / "kept")
    images, memory = find_pool(spec).images, FileMemory(tmp_path / "memory")
    facts = list(read_files(images, memory))
    assert memory.recall(images) == facts
    changed = images[0].parent
    os.utime(changed, (1, 1))
    assert [each is None for each in memory.recall(images)] == [each.parent == changed for each in images]


def test_a_test_split_is_left_out_and_validation_is_held_out(toy: Path, tmp_path: Path) -> None:
    """As a person means who names a data set with its usual parts; each can be named alone."""
    parts = {"train": "dark", "validation": "light", "test": "red"}
    whole = datasets.DatasetDict({part: _table(toy, domain) for part, domain in parts.items()})
    whole.save_to_disk(tmp_path / "kept")
    found = list_folder(Path(f"hf:{tmp_path}/kept"))
    assert found.domains == ("kept",)
    assert Counter(found.splits.values()) == {"train": 6, "holdout": 6}
    assert counted(found.ignored) == {OF_TEST: 6}
    assert inspect(found).is_sound  # nobody misses them
    assert list_folder(Path(f"hf:{tmp_path}/kept/test")).count("test") == 6
    by_part = list_folder(Path(f"hf:{tmp_path}/kept"), columns=["domain=split"])
    assert (by_part.domains, dict(by_part.splits)) == (("test", "train", "validation"), {})
    by_column = list_folder(Path(f"hf:{tmp_path}/kept"), columns=["domain=place"])
    assert by_column.domains == ("dark", "light")


@pytest.mark.parametrize("named", ["whole", "from here"])
def test_an_image_may_be_a_path(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    """So `to_parquet` writes those that `datasets` was given as files."""
    (tmp_path / "kept").mkdir()
    monkeypatch.chdir(tmp_path)
    given = toy if named == "whole" else toy.relative_to(tmp_path)
    _table(given, "dark").to_parquet(tmp_path / "kept" / "rows.parquet")
    found = list_folder(Path(f"hf:{tmp_path}/kept"), columns=["domain=place"])
    assert sorted(found.paths_in(["dark"])) == sorted(toy.glob("dark/*/*.png"))


def _cifar(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray[Any, Any]]:
    """Files as those of CIFAR-10 are, of which torchvision checks the checksums; returns the pictures."""
    folder, pixels = root / CIFAR10.base_folder, {}
    folder.mkdir(parents=True)

    def write(name: str, content: dict[str, Any]) -> list[str]:
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, md5((folder / name).read_bytes(), usedforsecurity=False).hexdigest()]

    for seed, part in enumerate(("train", "test")):
        pixels[part] = np.random.default_rng(seed).integers(256, size=(3, 32, 32, 3), dtype=np.uint8)
        data = pixels[part].transpose(0, 3, 1, 2).reshape(3, -1)
        listed = [write(f"{part}_batch", {"data": data, "labels": [2, 0, 1]})]
        monkeypatch.setattr(CIFAR10, f"{part}_list", listed)
    meta = write("batches.meta", {"label_names": list(CLASSES)})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]})
    return pixels


def test_what_torchvision_holds_in_memory_is_seen_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = _cifar(tmp_path / "downloads", monkeypatch)
    found = list_folder(Path(f"torchvision:CIFAR10:{tmp_path}/downloads"))
    assert (found.domains, found.classes) == (("CIFAR10",), CLASSES)
    assert counted(found.ignored) == {OF_TEST: 3}
    assert np.array_equal(decode(read_image(found.files["CIFAR10", "circle"][0])), pixels["train"][1])
    test = list_folder(Path(f"torchvision:CIFAR10/test:{tmp_path}/downloads"))
    assert np.array_equal(decode(read_image(test.files["CIFAR10-test", "tall_bar"][0])), pixels["test"][0])
    assert test.digest() != found.digest()
    with pytest.raises(DataError, match=r"finds no STL10 in .* \(Dataset not found or corrupted\)"):
        list_folder(Path(f"torchvision:STL10:{tmp_path}/downloads"))
    with pytest.raises(DataError, match="torchvision has no data set 'CIFAR11'"):
        list_folder(Path(f"torchvision:CIFAR11:{tmp_path}/downloads"))


def test_the_files_that_torchvision_reads_are_taken(toy: Path) -> None:
    found = list_folder(Path(f"torchvision:ImageFolder:{toy}/dark"))
    assert found.classes == CLASSES
    assert sorted(found.paths_in(found.domains)) == sorted(toy.glob("dark/*/*.png"))


# As fiftyone 1.22.1 wrote labels.json (2026-12-02): with classes, and with confidences.
@pytest.mark.parametrize(
    "labels",
    [
        '{"classes": ["circle","square"],"labels": {"square-0": 1,"circle-2": 0}}',
        '{"classes": null,"labels": {"square-0": {"label": "square","confidence": 0.5,"attributes": {}},'
        '"circle-2": {"label": "circle","confidence": 0.5,"attributes": {}}}}',
    ],
)
def test_a_classification_of_fiftyone_names_files_without_their_endings(tmp_path: Path, labels: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "labels.json").write_text(labels)
    for name in ("square-0", "circle-2", "unlabelled-1"):
        draw(name.partition("-")[0], "white", "black", 0).save(tmp_path / "data" / f"{name}.png")
    found = list_folder(Path(f"fiftyone:{tmp_path}"))
    domain = tmp_path.name
    assert found.files == {
        (domain, name): (tmp_path / "data" / f"{name}-{number}.png",)
        for name, number in (("circle", 2), ("square", 0))
    }
    assert counted(found.ignored) == {NO_LABEL: 1}


def _tar(file: Path, *members: tuple[str, bytes | None]) -> Path:
    """A tar file of files and, where there is no content, of links."""
    with tarfile.open(file, "w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content or b"")
            if content is None:
                header.type, header.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(header, io.BytesIO(content or b""))
    return file


def test_a_hostile_tar_file_leads_nowhere(toy: Path, tmp_path: Path) -> None:
    content = next(toy.glob("*/*/*.png")).read_bytes()
    file = _tar(
        tmp_path / "shard.tar",
        ("a.png", content), ("a.cls", b"0"), ("a.png", content), ("../b.png", content), ("/c.png", content),
        ("d.png", None), ("x/../../e.png", content), ("f.png", b"no picture"), ("f.cls", b"1"),
        ("g.png", content),
    )  # fmt: skip
    found = list_folder(Path(f"webdataset:{file}"))
    assert found.paths_in(found.domains) == [file / "a.png", file / "f.png"]
    assert counted(found.ignored) == {OUTSIDE: 3, TWICE: 1, NO_FILE: 1, NO_LABEL: 1}
    examples, skipped = found.read(found.domains)
    assert ([each.path for each in examples], [each.path for each in skipped]) == (
        [file / "a.png"],
        [file / "f.png"],
    )
    assert find_pool(f"webdataset:{file}").images == (file / "a.png", file / "f.png", file / "g.png")


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (("a.json", b'{"label": "\\ud800"}'), r"shard.tar/a.png: .* is not UTF-8"),
        (("a.json", b'["cat"]'), r"shard.tar/a.json is not a JSON object"),
        (("a.json", b"{"), r"shard.tar/a.json cannot be read"),
        (("a.cls", b"0" * 2**17), r"shard.tar/a.cls cannot be read: larger than 65536 bytes"),
        (("a.jpg", b""), r"the sample a has several images. Say which with --columns path=png"),
        (("b.cls", b"0"), r"holds no labelled image. Left out: 1 without a label"),
    ],
)
def test_a_sample_that_cannot_be_meant_is_refused(tmp_path: Path, told: tuple[str, bytes], said: str) -> None:
    file = _tar(tmp_path / "shard.tar", ("a.png", b"."), told)
    with pytest.raises(DataError, match=said):
        list_folder(Path(f"webdataset:{file}"))


def _headed(kind: bytes, size: int, sound: bytes, content: bytes = b"") -> bytes:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = kind, size
    return header.tobuf(tarfile.GNU_FORMAT) + content + sound


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (gzip.compress, "header"),
        (lambda sound: sound[:700], "unexpected end of data"),
        (lambda sound: sound[:1536] + b"?" * 100 + sound[1636:], "one of its headers is damaged"),
        (lambda sound: _headed(tarfile.GNUTYPE_LONGNAME, 2**30, sound), "a header has 1073741824 bytes"),
        (lambda sound: _headed(tarfile.XHDTYPE, 512, sound, b"16 size=-1000000\n".ljust(512, b"\0")), ""),
    ],
    ids=["packed", "cut off", "damaged", "a name of a gigabyte", "a size below zero"],
)
def test_a_damaged_tar_file_is_refused_whole(
    tmp_path: Path, damage: Callable[[bytes], bytes], said: str
) -> None:
    file = _tar(tmp_path / "shard.tar", ("a.png", b"." * 600), ("a.cls", b"0"))
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=rf"shard.tar cannot be read as a tar file: .*{said}.*gunzip"):
        list_folder(Path(f"webdataset:{file}"))


def _of_rows(file: Path, options: pyarrow.ipc.IpcWriteOptions | None = None, **columns: Any) -> Path:
    table = pyarrow.table(columns)
    with pyarrow.ipc.new_stream(str(file), table.schema, options=options) as stream:
        stream.write_table(table)
    return file


def test_rows_that_cannot_be_meant_are_refused_with_what_to_do(toy: Path, tmp_path: Path) -> None:
    image = [{"bytes": file.read_bytes(), "path": None} for file in sorted(toy.glob("dark/*/*.png"))]
    kinds = ["a", "b"] * 3

    def said(file: Path, *columns: str) -> str:
        with pytest.raises(DataError) as refused:
            list_folder(Path(f"hf:{file}"), columns=columns)
        return str(refused.value)

    rows = _of_rows(tmp_path / "rows.arrow", image=image, kind=kinds)
    assert "no column for it. The columns are: image, kind. Say which with --columns label=NAME" in said(rows)
    assert "no column for it" in said(rows, "label=kinds")
    assert list_folder(Path(f"hf:{rows}"), columns=["label=kind"]).classes == ("a", "b")
    two = _of_rows(tmp_path / "two.arrow", image=image, other=image, label=kinds)
    assert "columns image, other might be it" in said(two)
    assert list_folder(Path(f"hf:{two}"), columns=["path=other"]).count("two") == 6
    lists = _of_rows(tmp_path / "lists.arrow", image=image, label=[[each] for each in kinds])
    assert "row 0: `label` is ['a']. It takes text or a number" in said(lists)
    offsets, content = pyarrow.py_buffer(np.array([0, 9**9, 1], np.int32)), pyarrow.py_buffer(b"0")
    beyond = pyarrow.Array.from_buffers(pyarrow.string(), 2, [None, offsets, content])
    assert "cannot be read: " in said(_of_rows(tmp_path / "beyond.arrow", image=image[:2], label=beyond))
    options = pyarrow.ipc.IpcWriteOptions(compression="zstd")
    assert "packed" in said(_of_rows(tmp_path / "packed.arrow", options, image=image, label=kinds))
    (tmp_path / "cut.arrow").write_bytes(rows.read_bytes()[:-200])
    assert "cannot be read" in said(tmp_path / "cut.arrow", "label=kind")
    wrong = _table(toy, "dark").cast_column("label", datasets.Value("int64"))
    wrong = wrong.map(lambda _: {"label": 7}).data.table.replace_schema_metadata(
        _table(toy, "dark").data.table.schema.metadata
    )
    pyarrow.parquet.write_table(wrong, tmp_path / "wrong.parquet")
    assert "row 0: `label` is 7, and the classes are 0 to 2" in said(tmp_path / "wrong.parquet")


def test_a_group_of_rows_that_is_too_large_is_refused_before_it_is_read(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = _parquet(toy, tmp_path / "kept")
    with pytest.raises(UsageError, match="says it itself: leave it out"):
        list_folder(Path(spec), layout="class")
    monkeypatch.setattr(rows_file, "_GROUP_BYTES", 100)
    with pytest.raises(DataError, match=r"Write it with fewer rows per group, or with save_to_disk"):
        list_folder(Path(spec))
