"""A pool has no copy of an image that is learnt or tested on: exact, encoded otherwise, smaller or paler."""

from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from client.data import near_copies
from client.data import pool as pools
from client.data.examples import read_files
from client.data.file_memory import FileMemory
from client.data.pool import REPEATED, Pool, read_pool
from client.errors import DataError, UsageError
from client.progress import Display

NOTHING = FileMemory(None)


def _photo(seed: int, side: int = 96) -> Image.Image:
    """A picture with large and small shapes."""
    rng = np.random.default_rng(seed)
    noise = [rng.integers(0, 256, (n, n), dtype=np.uint8) for n in (4, 7, 25)]
    layers = [Image.fromarray(each).resize((side, side), Image.Resampling.BICUBIC) for each in noise]
    return Image.merge("RGB", layers)


def _variants(picture: Image.Image) -> dict[str, Image.Image]:
    low = BytesIO()
    picture.save(low, "JPEG", quality=30)
    return {
        "jpeg": Image.open(low),
        "half": picture.resize((48, 48)),
        "double": picture.resize((192, 192)),
        "pale": ImageEnhance.Brightness(picture).enhance(0.8),
    }


def _read(words: list[str], known: dict[str, list[Path]]) -> Pool:
    facts = {what: read_files(paths, NOTHING) for what, paths in known.items()}
    return read_pool(words, facts, NOTHING, Display.of_nobody(), given="--adapt pool")


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    folder = tmp_path / "pool"
    folder.mkdir()
    for seed in range(10):
        _photo(seed).save(folder / f"{seed}.png")
    return folder


@pytest.mark.parametrize("at_once", [4096, 4, 1])
def test_copies_are_left_out_and_counted_by_what_they_copy(
    pool: Path, tmp_path: Path, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "_ROWS_AT_ONCE", at_once)
    for limit in ("_PAIRS_AT_ONCE", "_WHOLE_AT_ONCE"):
        monkeypatch.setattr(near_copies, limit, at_once)
    known = {}
    for what, seed in (("a labelled image", 100), ("an image of red, which is tested on", 200)):
        known[what] = [tmp_path / f"{seed}.png"]
        _photo(seed).save(known[what][0])
        for name, variant in _variants(_photo(seed)).items():
            variant.save(pool / f"{seed}-{name}.png")
        (pool / f"{seed}-same.png").write_bytes(known[what][0].read_bytes())
    (pool / "again.png").write_bytes((pool / "0.png").read_bytes())
    found = _read([str(pool)], known)
    assert sorted(example.path.name for example in found.examples) == [f"{seed}.png" for seed in range(10)]
    assert Counter(file.reason for file in found.left_out) == {
        "a copy of a labelled image": 1,
        "nearly a copy of a labelled image": 4,
        "a copy of an image of red, which is tested on": 1,
        "nearly a copy of an image of red, which is tested on": 4,
        REPEATED: 1,
    }
    assert not any(file.is_loss for file in found.left_out)


def _drawn(kind: str) -> Image.Image:
    """A picture that is plain in the mean of its colours, and perhaps at a third of its thumbnail's size."""
    y, x = np.indices((96, 96))
    if kind == "disc":
        inside = (x - 48) ** 2 + (y - 48) ** 2 < 30**2
    else:
        shape, cells = kind.split()
        along, across = x * int(cells) // 96, y * int(cells) // 96
        inside = (along + (across if shape == "grid" else 0)) % 2 == 1
    return Image.fromarray(np.array([(0, 0, 200), (200, 0, 0)], np.uint8)[inside.astype(int)])


@pytest.mark.parametrize(
    "kind", ["disc", "grid 4", "grid 8", "grid 12", "stripes 4", "stripes 8", "stripes 12"]
)
def test_a_copy_is_told_however_little_the_rough_comparison_sees(
    pool: Path, tmp_path: Path, kind: str
) -> None:
    known = tmp_path / "known.png"
    _drawn(kind).save(known)
    _drawn(kind).save(pool / "copy.jpg", quality=90)
    found = _read([str(pool)], {"a labelled image": [known]})
    assert [(file.path.name, file.reason) for file in found.left_out] == [
        ("copy.jpg", "nearly a copy of a labelled image")
    ]


def test_near_copies_are_those_that_the_rule_tells_and_few_are_compared_in_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    smooth = np.stack([np.asarray(_photo(seed).resize((12, 12))) for seed in range(60)])
    noise = rng.integers(0, 256, smooth.shape, dtype=np.uint8)
    first = np.concatenate([smooth, noise, smooth // 2 + noise // 2]).astype(np.float64)
    second = first + rng.normal(0, 1, first.shape) * rng.uniform(0, 30, (len(first), 1, 1, 1))
    mine, theirs = (each.clip(0, 255).astype(np.uint8) for each in (first, second))
    in_full: list[int] = []
    centred = near_copies._centred

    def noted(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        in_full.append(len(pictures))
        return centred(pictures)

    pictures, others = near_copies.Pictures.of(mine), near_copies.Pictures.of(theirs)
    monkeypatch.setattr(near_copies, "_centred", noted)
    near = pictures.near_copies_of(others)
    likeness = np.corrcoef(mine.reshape(len(mine), -1), theirs.reshape(len(theirs), -1))
    by_the_rule = (likeness[: len(mine), len(mine) :] > near_copies.NEAR).any(axis=1)
    assert 40 < by_the_rule.sum() < 140
    assert (near == by_the_rule).all()
    assert sum(in_full) < 2 * 1.5 * len(mine)


@pytest.mark.parametrize("at_once", [2**24, 50])
def test_near_copies_and_theirs_in_turn_are_one_group(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_copies, "_PAIRS_AT_ONCE", at_once)
    monkeypatch.setattr(near_copies, "_WHOLE_AT_ONCE", at_once)
    rng = np.random.default_rng(0)
    first = np.stack([np.asarray(_photo(seed).resize((12, 12))) for seed in range(25)]).astype(np.float64)
    noisy = [first + rng.normal(0, noise, first.shape) for noise in (3, 5, 7, 9)]
    plain = np.full((2, 12, 12, 3), 9.0)
    pictures = np.concatenate([*noisy, first, first, plain]).clip(0, 255).astype(np.uint8)
    rng.shuffle(pictures)
    groups = near_copies.Pictures.of(pictures).groups()

    rows = pictures.reshape(len(pictures), -1).astype(np.float64)
    rows -= rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1)
    linked = rows @ rows.T > near_copies.NEAR * np.outer(lengths, lengths)
    linked |= (pictures[:, None] == pictures[None]).all(axis=(2, 3, 4))
    for _ in range(8):  # paths of up to 256 links
        linked = (linked.astype(np.int64) @ linked.astype(np.int64)) > 0
    assert ((groups[:, None] == groups[None]) == linked).all()
    assert 10 < len(set(groups.tolist())) < len(pictures) - 50


def test_one_plain_colour_is_like_no_other(pool: Path, tmp_path: Path) -> None:
    Image.new("RGB", (50, 50), "red").save(tmp_path / "red.png")
    Image.new("RGB", (50, 50), "blue").save(pool / "blue.png")
    found = _read([str(pool)], {"a labelled image": [tmp_path / "red.png"]})
    assert len(found.examples) == 11


def test_a_pool_may_have_several_parts_and_takes_a_file_once(pool: Path) -> None:
    found = _read([str(pool), str(pool / "[0-4].png")], {})
    assert len(found.examples) == 10
    assert {example.domain for example in found.examples} == {str(pool)}


def test_a_table_names_the_images_of_a_pool_and_those_that_are_gone_are_counted(pool: Path) -> None:
    table = pool.parent / "shots.csv"
    table.write_text("Path,taken\npool/1.png,may\npool/7.png,june\npool/gone.png,june\npool/notes.txt,\n")
    (pool / "notes.txt").write_text("not a picture")
    found = _read([str(table)], {})
    assert [example.path.name for example in found.examples] == ["1.png", "7.png"]
    assert [(file.path.name, file.reason) for file in found.left_out] == [
        ("gone.png", "not a file"),
        ("notes.txt", "not an image by name"),
    ]
    table.write_text("path\npool/gone.png\n")
    with pytest.raises(DataError, match="none of its files is an image"):
        _read([str(table)], {})
    table.write_text("file\npool/1.png\n")
    with pytest.raises(DataError, match="there is no `path`"):
        _read([str(table)], {})


@pytest.mark.parametrize("case", ["empty", "copies", "unreadable"])
def test_a_pool_of_which_nothing_is_left_is_refused_with_the_reasons(tmp_path: Path, case: str) -> None:
    folder = tmp_path / "pool"
    folder.mkdir()
    labelled = tmp_path / "labelled.png"
    _photo(0).save(labelled)
    if case == "copies":
        (folder / "copy.png").write_bytes(labelled.read_bytes())
    if case == "unreadable":
        (folder / "broken.png").write_bytes(b"no picture")
    reasons = {
        "empty": r"^--adapt pool: there is no image left to learn from\.$",
        "copies": "Left out: 1 a copy of a labelled image",
        "unreadable": "Left out: 1 not a readable picture",
    }
    with pytest.raises(DataError, match=reasons[case]):
        _read([str(folder)], {"a labelled image": [labelled]})


def test_a_pool_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        _read([str(tmp_path / "nowhere")], {})
