"""The known data sets: recognised by their names or domains, and compared with what they should hold."""

from dataclasses import replace
from pathlib import Path

import pytest

from client.data.domains import ImageFolder
from client.data.listing import list_folder
from client.data.manifests import MANIFESTS, Manifest, recognise, styles_of
from tests.client.toy import make_folder

PACS = MANIFESTS[0]


def _classes(manifest: Manifest) -> tuple[str, ...]:
    return manifest.class_names or tuple(f"class_{n:03}" for n in range(manifest.classes))


def _whole(manifest: Manifest) -> ImageFolder:
    """As many images as a whole copy has, of one name, and all of a domain in its first class."""
    classes = _classes(manifest)
    files: dict[tuple[str, str], tuple[Path, ...]] = {}
    files |= {(domain, name): () for domain in manifest.images for name in classes}
    files |= {
        (domain, classes[0]): (Path("1.jpg"),) * count  # half a million names would take seconds
        for domain, count in manifest.images.items()
    }
    root = Path("data") / manifest.folder
    return ImageFolder(root, tuple(sorted(manifest.images)), tuple(sorted(classes)), files, ())


def _small_tree(root: Path, manifest: Manifest) -> Path:
    """A tree in the data set's layout, with one image a class and domain (of the first five classes)."""
    for domain in manifest.images:
        for name in _classes(manifest)[:5]:
            folder = root / domain / name
            folder.mkdir(parents=True)
            (folder / "pic_001.jpg").touch()
    return root


@pytest.mark.parametrize(
    "manifest",
    [pytest.param(each, marks=pytest.mark.slow) if each.name == "DomainNet" else each for each in MANIFESTS],
    ids=lambda manifest: manifest.name,
)
def test_a_whole_copy_differs_in_nothing(manifest: Manifest) -> None:
    assert recognise(_whole(manifest)) is manifest
    assert manifest.differences(_whole(manifest)) == []


@pytest.mark.parametrize(
    ("number", "images", "classes"), [(0, 9991, 7), (1, 10_729, 5), (2, 15_588, 65), (3, 24_330, 10)]
)
def test_the_counts_are_the_published_ones(number: int, images: int, classes: int) -> None:
    manifest = MANIFESTS[number]
    assert sum(manifest.images.values()) == images
    assert manifest.classes == len(set(manifest.class_names)) == classes


def test_domainnet_is_the_cleaned_one() -> None:
    assert sum(MANIFESTS[4].images.values()) == 586_575


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest.name)
def test_a_small_tree_is_recognised_by_either_name_and_differs(tmp_path: Path, manifest: Manifest) -> None:
    by_folder = list_folder(_small_tree(tmp_path / manifest.folder.upper(), manifest))
    by_domains = list_folder(_small_tree(tmp_path / "photos", manifest))
    for folder in (by_folder, by_domains):
        assert recognise(folder) is manifest
        differences = manifest.differences(folder)
        for domain, count in manifest.images.items():
            assert f"The domain {domain} has 5 images instead of {count:,}." in differences
        if not manifest.class_names:
            assert "There are 5 classes instead of 345." in differences
        else:
            missing = [f"The class {name} is missing." for name in manifest.class_names[5:]]
            assert [d for d in differences if "class" in d] == missing


def test_what_is_missing_and_what_does_not_belong_is_named() -> None:
    whole = _whole(PACS)
    folder = replace(
        whole,
        domains=("Art-Painting", "cartoon", "photo", "toons"),
        classes=("Dog", "dragon", *(name for name in whole.classes if name != "dog")),
        files={
            ("Art-Painting", "Dog"): whole.files["art_painting", "dog"],
            ("photo", "Dog"): (Path("1.jpg"),),
        },
    )
    assert PACS.differences(folder) == [
        "The domain sketch is missing.",
        "The domain cartoon has 0 images instead of 2,344.",
        "The domain photo has 1 images instead of 1,670.",
        "The folder toons is no domain of it.",
        "dragon is no class of it.",
    ]


def test_another_folder_is_no_known_data_set(tmp_path: Path) -> None:
    assert recognise(list_folder(make_folder(tmp_path / "toy", images=1))) is None


def test_styles_are_the_domains_unless_their_names_say_nothing_of_a_picture(tmp_path: Path) -> None:
    four = ("bright photo", "corrupted photo", "dark photo", "good photo")
    for manifest in MANIFESTS:
        domains = tuple(manifest.images)[1:]
        expected = four if manifest.name in ("VLCS", "TerraIncognita") else domains
        assert styles_of(_whole(manifest), domains) == expected
    toy = list_folder(make_folder(tmp_path / "toy", images=1))
    assert styles_of(toy, ("dark", "light")) == ("dark", "light")
    assert styles_of(toy, ("dark",)) == four
