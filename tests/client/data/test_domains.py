"""Folders to domains, classes and splits, and what is said of folders that cannot be used."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.data.drawings import drawing_of
from client.data.examples import Example
from client.data.listing import list_folder
from client.data.splits import split
from client.data.wording import class_prompts
from client.errors import DataError
from tests.client.toy import CLASSES, make_folder


def test_a_folder_is_listed_in_order(tmp_path: Path) -> None:
    folder = list_folder(make_folder(tmp_path / "toy", images=2))
    assert folder.domains == ("dark", "light", "red")
    assert folder.classes == CLASSES
    assert folder.count("red") == 6
    assert folder.source_domains("red") == ("dark", "light")


def test_the_target_domain_is_listed_but_not_read(tmp_path: Path) -> None:
    folder = list_folder(make_folder(tmp_path / "toy", images=2))
    shutil.rmtree(tmp_path / "toy" / "red")
    examples, skipped = folder.read(folder.source_domains("red"))
    assert {example.domain for example in examples} == {"dark", "light"}
    assert not skipped


@pytest.mark.parametrize("make", ["missing", "file", "empty", "all loose"])
def test_a_folder_that_is_no_data_set_is_refused(tmp_path: Path, make: str) -> None:
    root = tmp_path / "data"
    if make == "file":
        root.write_text("not a folder")
    elif make == "empty":
        root.mkdir()
    elif make == "all loose":
        root = make_folder(root, images=1) / "dark" / "circle"
    with pytest.raises(DataError, match=str(root)):
        list_folder(root)


def test_one_domain_is_too_few(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "toy", images=1)
    for name in ("dark", "light"):
        shutil.rmtree(root / name)
    with pytest.raises(DataError, match="one domain only"):
        list_folder(root).source_domains("red")


def test_an_unknown_target_names_the_domains_there_are(tmp_path: Path) -> None:
    folder = list_folder(make_folder(tmp_path / "toy", images=1))
    with pytest.raises(DataError, match=r"'blue'.*dark, light, red"):
        folder.source_domains("blue")


def test_a_missing_class_is_an_error_and_an_empty_folder_is_consent(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "toy", images=1)
    shutil.rmtree(root / "dark" / "circle")
    with pytest.raises(DataError, match="dark/circle"):
        list_folder(root).source_domains("red")
    (root / "dark" / "circle").mkdir()
    assert list_folder(root).source_domains("red") == ("dark", "light")


def test_bad_files_are_skipped_and_listed(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "toy", images=2)
    folder = root / "dark" / "circle"
    whole = (folder / "00.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("not an image")
    (folder / "notes.txt").write_text("notes")
    (folder / ".hidden.png").write_bytes(b"")
    listed = list_folder(root)
    examples, skipped = listed.read(["dark"])
    assert len(examples) == 6
    assert {file.path.name: file.reason for file in skipped} == {
        "cut.png": "not a readable picture",
        "empty.png": "empty file",
        "text.png": "not a readable picture",
    }
    assert {file.path.name: file.reason for file in listed.ignored} == {
        ".hidden.png": "hidden",
        "notes.txt": "not an image by name",
    }


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("fluent-emoji-flat__pouting-cat", "fluent-emoji__pouting-cat", True),
        ("pixel__bell", "pixel__bell-solid", True),
        ("dinkie-icons__apple-small-filled", "dinkie-icons__apple", True),
        ("pixel__bell-1", "pixel__bell-12", True),
        ("train__dog-0001", "train__dog-0002", False),
        ("pixel__bell", "pixelarticons__bell", False),
        ("pixel__bell", "pixel__bell-ring", False),
        ("pixel__solid", "pixel__filled", False),
    ],
)
def test_variants_of_one_drawing(one: str, other: str, same: bool) -> None:
    assert (drawing_of(one) == drawing_of(other)) is same


def test_other_names_are_no_drawings() -> None:
    assert drawing_of("pic_0001") is None


def _examples(draw: list[tuple[int, int, int]]) -> list[Example]:
    return [
        Example(f"{i}.png", f"d{d}", 0, digest=f"digest{digest}", drawing=f"drawing{drawing}", side=1)
        for i, (d, drawing, digest) in enumerate(draw)
    ]


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 60), st.integers(0, 200)), min_size=60, max_size=120
    ),
    st.integers(0, 5),
)
def test_a_split_is_a_partition_that_keeps_drawings_and_duplicates_together(
    draw: list[tuple[int, int, int]], seed: int
) -> None:
    examples = _examples(draw)
    try:
        train, holdout = split(examples, holdout=0.2, seed=seed)
    except DataError:
        return
    assert sorted(train + holdout) == list(range(len(examples)))
    for attribute in ("drawing", "digest"):
        sides = [{getattr(examples[i], attribute) for i in side} for side in (train, holdout)]
        assert not sides[0] & sides[1]
    assert (train, holdout) == split(examples, holdout=0.2, seed=seed)


def test_each_domain_holds_out_its_share() -> None:
    examples = _examples([(i % 2, i, i) for i in range(200)])
    _, holdout = split(examples, holdout=0.2, seed=0)
    assert Counter(examples[i].domain for i in holdout) == {"d0": 20, "d1": 20}
    assert split(examples, holdout=0.2, seed=1)[1] != holdout


def test_a_domain_is_split_alike_whatever_stands_beside_it() -> None:
    examples = _examples([(i % 3, i, i) for i in range(300)])
    fewer = [example for example in examples if example.domain != "d0"]
    held_of_all = {examples[i].path for i in split(examples, holdout=0.2, seed=0)[1]}
    held_of_fewer = {fewer[i].path for i in split(fewer, holdout=0.2, seed=0)[1]}
    assert held_of_fewer == {example.path for example in fewer} & held_of_all


def test_too_few_images_to_split_all_train() -> None:
    few = _examples([(0, 0, 0), (0, 0, 1), (1, 1, 2), (1, 2, 3)])
    assert split(few, holdout=0.2, seed=0) == ([0, 1, 2, 3], [])


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(0, 9))
def test_every_class_keeps_an_image_to_train_on(labels: list[int], seed: int) -> None:
    examples = [
        replace(e, label=c)
        for e, c in zip(_examples([(0, i, i) for i in range(len(labels))]), labels, strict=True)
    ]
    train, held = split(examples, holdout=0.5, seed=seed)
    assert sorted(train + held) == list(range(len(labels)))
    assert {labels[position] for position in train} == set(labels)


def test_class_prompts_are_the_papers() -> None:
    assert class_prompts(["ice_cream"]) == ["a photo of a ice cream"]
