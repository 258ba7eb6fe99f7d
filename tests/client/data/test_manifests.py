"""The known data sets: recognised by their names or domains, and compared with what they should hold."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from client.data.domains import ImageFolder
from client.data.listing import list_folder
from client.data.manifests import MANIFESTS, Manifest, recognise, styles_of
from client.errors import DataError
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


def _laid(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def _published(
    *domains: str, within: str = "", classes: Sequence[str], name: str = "pic_001.jpg"
) -> list[str]:
    return [f"{domain}/{within}{label}/{name}" for domain in domains for label in classes]


_OFFICE = MANIFESTS[2].class_names[:3]
_NET = ("aircraft_carrier", "The_Eiffel_Tower", "zigzag")
_VLCS_PARTS = [
    file
    for part in ("crossval", "full", "test", "train")
    for file in _published("CALTECH", "LABELME", "PASCAL", "SUN", within=f"{part}/", classes=list("01234"))
]
# Each data set as it is distributed, a picture a class and domain, with the files that come beside them; and
# how it is read: the name of the data set with how many domains and classes, or the refusal.
DISTRIBUTED: dict[str, tuple[str, list[str], str | tuple[str, int, int]]] = {
    "PACS of DomainBed": (
        "PACS", _published(*PACS.images, classes=PACS.class_names), ("PACS", 4, 7),
    ),
    "PACS, unpacked": (
        "PACS",
        [f"kfold/{each}" for each in _published(*PACS.images, classes=PACS.class_names)],
        r"is PACS as it is published.* --data \S*/PACS/kfold, or --layout kfold/domain/class\.$",
    ),
    "PACS, its folder": (
        "kfold", _published(*PACS.images, classes=PACS.class_names), ("PACS", 4, 7),
    ),
    "VLCS of DomainBed": (
        "VLCS", _published(*MANIFESTS[1].images, classes=MANIFESTS[1].class_names), ("VLCS", 4, 5),
    ),
    "VLCS as released": (
        "VLCS", _VLCS_PARTS, r"is VLCS as it is published.* Say --layout domain/full/class\. .*0 bird, 1 car",
    ),
    "VLCS as released, a domain": (
        "CALTECH",
        [each.removeprefix("CALTECH/") for each in _VLCS_PARTS if each.startswith("CALTECH")],
        r"is a domain of VLCS as it is published.* Say --data \S*/CALTECH/full\. .*0 bird, 1 car",
    ),
    "Office-Home as released": (
        "OfficeHomeDataset_10072016",
        [*_published(*MANIFESTS[2].images, classes=_OFFICE), "ImageInfo.csv", "imagelist.txt"],
        ("Office-Home", 4, 3),
    ),
    "Office-Home, a folder too high": (
        "datasets",
        [
            *_published(
                *(f"OfficeHomeDataset_10072016/{each}" for each in MANIFESTS[2].images), classes=_OFFICE
            ),
            "PACS/photo/dog/1.jpg",
        ],
        r"has Office-Home further down.* Say --data \S*/datasets/OfficeHomeDataset_10072016\.$",
    ),
    "TerraIncognita of DomainBed": (
        "terra_incognita",
        _published(*MANIFESTS[3].images, classes=MANIFESTS[3].class_names), ("TerraIncognita", 4, 10),
    ),
    "TerraIncognita as released": (
        "terra_incognita",
        ["eccv_18_all_images_sm/58c0.jpg", "eccv_18_all_images_sm/58c1.jpg", "caltech_images_20210113.json"],
        r"pictures of TerraIncognita as they are published.* DomainBed's download script sorts them",
    ),
    "DomainNet, cleaned": (
        "domain_net",
        [*_published(*MANIFESTS[4].images, classes=_NET), "clipart_train.txt", "clipart_test.txt"],
        ("DomainNet", 6, 3),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("root", "files", "expected"), DISTRIBUTED.values(), ids=DISTRIBUTED)
def test_each_set_as_it_is_distributed_is_read_or_refused_in_words(
    tmp_path: Path, root: str, files: list[str], expected: str | tuple[str, int, int]
) -> None:
    folder = _laid(tmp_path / root, *files)
    if isinstance(expected, str):
        with pytest.raises(DataError, match=expected):
            list_folder(folder)
        return
    listed = list_folder(folder)
    known = recognise(listed)
    assert known is not None
    assert (known.name, len(listed.domains), len(listed.classes)) == expected
    assert listed.source_domains(listed.domains[0]) == listed.domains[1:]
    assert not listed.ignored


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
        "The folder toons is not one of its domains.",
        "dragon is not one of its classes.",
    ]


def test_vlcs_as_released_is_compared_by_its_own_names(tmp_path: Path) -> None:
    folder = list_folder(_laid(tmp_path / "any", *_VLCS_PARTS), layout="domain/full/class")
    known = recognise(folder)
    assert known is MANIFESTS[1]
    assert known.differences(folder) == [
        f"The domain {name} has 5 images instead of {count}."
        for name, count in (("CALTECH", "1,415"), ("LABELME", "2,656"), ("PASCAL", "3,376"), ("SUN", "3,282"))
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
