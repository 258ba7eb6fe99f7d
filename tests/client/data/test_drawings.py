"""Names group files where that was asked, or where the folder is the bundled icons; nowhere else."""

from pathlib import Path
from zipfile import ZipFile

import pytest

from client.data.bundled_set import ICONS
from client.data.listing import list_folder
from client.data.splits import split
from tests.client.toy import draw


@pytest.fixture
def icons(tmp_path: Path) -> Path:
    """A few classes of the bundled icons, with what else is in their archive."""
    with ZipFile(ICONS) as archive:
        names = [name for name in archive.namelist() if name.endswith(".txt") or "/bell/" in name]
        archive.extractall(tmp_path, names)
    return tmp_path / "icons"


def _drawings(root: Path, *, group_by_name: bool = False) -> dict[str, str]:
    folder = list_folder(root, group_by_name=group_by_name)
    examples, _ = folder.read(folder.domains)
    return {example.path.name: example.drawing for example in examples}


def test_photographs_with_two_underscores_are_photographs(tmp_path: Path) -> None:
    for domain in ("night", "day"):
        for n in range(12):
            file = tmp_path / domain / "fox" / f"NIGHTCAM1__2024-05-{n:02}-03.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            draw("circle", "white", "black", seed=100 * len(domain) + n).save(file)
    assert len(set(_drawings(tmp_path).values())) == 12
    folder = list_folder(tmp_path)
    examples, _ = folder.read(folder.domains)
    assert len(split(examples, holdout=0.2, seed=0)[0]) > 12  # "too few" by the rule for icons
    assert set(_drawings(tmp_path, group_by_name=True).values()) == {"NIGHTCAM1__2024"}


def test_the_bundled_icons_are_known_wherever_they_lie_and_nothing_else_among_them(icons: Path) -> None:
    (icons / "line" / "bell" / "MYCAM__2024-01.png").write_bytes(
        next((icons / "line" / "bell").glob("*.png")).read_bytes()
    )
    moved = icons.rename(icons.with_name("elsewhere"))
    drawings = _drawings(moved)
    photo = drawings.pop("MYCAM__2024-01.png")
    assert all("__" in drawing for drawing in drawings.values())
    assert len(photo) == 64
    (moved / "ATTRIBUTION.txt").write_text("by me\n  line/bell/x.png\n")
    assert not any("__" in drawing for drawing in _drawings(moved).values())
