"""python -m benchmarks.weak_teachers: the images that its students learn from."""

from pathlib import Path

import pytest

from benchmarks import runs, weak_teachers
from client.data.listing import list_folder


def test_of_fewer_icons_it_is_known_which_are_variants_of_one_drawing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    icons = tmp_path / "icons-1" / "icons"
    files = [
        f"{style}/bell/set__{name}.png" for style in ("line", "solid") for name in ("bell-filled", "bell")
    ]
    for file in files:
        (icons / file).parent.mkdir(parents=True, exist_ok=True)
        (icons / file).write_text(file)
    (icons / "ATTRIBUTION.txt").write_text("\n  ".join(["Drawn from @iconify/json@2", *files]))
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    monkeypatch.setattr(weak_teachers, "icons", lambda: icons)
    few = weak_teachers._few(1, "solid")
    drawn = {path.relative_to(few).as_posix() for path in list_folder(few).drawn}
    assert drawn == {*files} - {"line/bell/set__bell.png"}
