"""Which folders are domains and classes: seen where it is clear, and asked for where it is not."""

from pathlib import Path

import pytest

from client.data.finder import counted
from client.data.listing import list_folder
from client.errors import ClientError, DataError, UsageError

_SHOES = [f"c{n}/{m}.png" for n in range(10) for m in range(6)]
_MESSY = [f"c{n}/{sub}/{m}.png" for n in range(4) for sub in ("old", "retouched") for m in range(3)]
_VIDEOS = [f"wrap/{domain}/{name}/{m}.png" for domain in "ab" for name in "xyz" for m in range(2)]


def _tree(root: Path, names: list[str]) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.parametrize(
    ("names", "readings"),
    [
        (
            _SHOES + _MESSY,
            "--layout class: 10 classes (c0, c1, c2, c3 and 6 more), 84 images. --layout domain/class: 4 "
            "domains, 2 classes (old, retouched), 24 images, and 60 left out.",
        ),
        (
            ["a/x.png", "b/old/x.png", "b/old/y.png", "b/new/z.png"],
            "--layout class: 2 classes (a, b), 4 images.",
        ),
        (
            [f"{c}/{m}.png" for c in "abc" for m in range(3)]
            + [f"{c}/{sub}/{m}.png" for c in "abc" for sub in ("old", "new") for m in range(3)],
            "--layout domain/class: 3 domains, 2 classes (new, old), 18 images, and 9 left out.",
        ),
        (
            _VIDEOS,
            "--layout domain/class: 1 domains, 2 classes (a, b), 12 images. --layout wrap/domain/class: 2 "
            "domains, 3 classes (x, y, z), 12 images.",
        ),
    ],
)
def test_a_folder_that_can_be_read_in_two_ways_is_refused_with_both(
    tmp_path: Path, names: list[str], readings: str
) -> None:
    root = _tree(tmp_path / "shoes", names)
    with pytest.raises(DataError) as refused:
        list_folder(root)
    assert "can be read in two ways" in str(refused.value)
    assert readings in str(refused.value)


def test_the_layout_that_is_said_holds(tmp_path: Path) -> None:
    root = _tree(tmp_path / "shoes", _SHOES + _MESSY)
    folder = list_folder(root, layout="class")
    assert (folder.domains, len(folder.classes), folder.count("shoes"), folder.deeper) == (
        ("shoes",),
        10,
        84,
        24,
    )
    folder = list_folder(root, layout="domain/class")
    assert (folder.domains, folder.classes) == (("c0", "c1", "c2", "c3"), ("old", "retouched"))
    assert counted(folder.ignored) == {"loose in a domain": 60}
    root = _tree(tmp_path / "videos", [*_VIDEOS, "wrap/a/loose.png", "else/a/x/1.png", "loose.png"])
    folder = list_folder(root, layout="wrap/domain/class")
    assert (folder.domains, folder.classes, folder.source_domains(None)) == (
        ("a", "b"),
        tuple("xyz"),
        ("a", "b"),
    )
    assert counted(folder.ignored) == {
        "not where the layout says": 1, "loose in a domain": 1, "loose in the root": 1,
    }  # fmt: skip
    assert {each.domain for each in folder.ignored} == {None, "a"}


@pytest.mark.parametrize(
    "layout", ["", "domain", "class/domain", "class/class", "domain/domain/class", "a//class"]
)
def test_what_is_no_layout_is_refused(tmp_path: Path, layout: str) -> None:
    with pytest.raises(UsageError, match=r"--layout .* is not a layout"):
        list_folder(_tree(tmp_path / "shoes", _SHOES), layout=layout)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            [f"kfold/{domain}/{name}/1.jpg" for domain in ("photo", "sketch") for name in ("dog", "horse")],
            r"is PACS as it is published.* --data \S*/set/kfold, or --layout kfold/domain/class\.$",
        ),
        (
            [
                f"{domain}/{part}/{n}/1.jpg"
                for domain in ("CALTECH", "SUN")
                for part in ("full", "test")
                for n in "01"
            ],
            r"is VLCS as it is published.* Say --layout domain/full/class\. .*0 bird, 1 car.*--names",
        ),
    ],
)
def test_a_known_set_as_it_is_published_is_refused_with_what_to_name(
    tmp_path: Path, names: list[str], said: str
) -> None:
    root = _tree(tmp_path / "set", names)
    with pytest.raises(ClientError, match=said):
        list_folder(root)
    if "CALTECH" in names[0]:
        folder = list_folder(root, layout="domain/full/class")
        assert (folder.domains, folder.classes) == (("CALTECH", "SUN"), ("0", "1"))
    else:
        assert list_folder(root / "kfold").domains == ("photo", "sketch")


def test_classes_that_look_like_domains_are_told_how_to_say_so(tmp_path: Path) -> None:
    root = _tree(
        tmp_path / "clips", [f"{name}/{name}{n}/1.png" for name in ("run", "walk") for n in range(3)]
    )
    with pytest.raises(DataError, match=r"If run, walk are classes and not domains, say --layout class"):
        list_folder(root).source_domains(None)


def test_a_layout_in_which_nothing_lies_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no images in ROOT/kfold/<domain>/<class>/ \("):
        list_folder(_tree(tmp_path / "shoes", _SHOES), layout="kfold/domain/class")


def test_a_table_takes_no_layout(tmp_path: Path) -> None:
    table = tmp_path / "images.csv"
    table.write_text("path,label\n")
    with pytest.raises(UsageError, match=r"images\.csv is a file: leave it out"):
        list_folder(table, layout="class")
