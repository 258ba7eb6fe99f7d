"""python -m benchmarks.generations: the images that students meet, and those that they are tested on."""

from pathlib import Path

import pytest
from PIL import Image

from benchmarks import generations
from client.data.splits import never_parted


def test_no_student_meets_a_drawing_that_it_is_tested_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundled icons have several files of many drawings, and a list of themselves."""
    for domain in ("emoji", "line"):
        folder = tmp_path / domain / "square"
        folder.mkdir(parents=True)
        for number in range(100):
            name = f"set__{domain}-{number // 3:04}-{number % 3}"
            Image.effect_noise((40, 40), 50).save(folder / f"{name}.png")
    files = [f"  {file.relative_to(tmp_path)}" for file in tmp_path.glob("*/*/*.png")]
    (tmp_path / "ATTRIBUTION.txt").write_text("\n".join(["Drawn from @iconify/json@1", *files]))
    monkeypatch.setattr(generations, "icons", lambda: tmp_path)
    parts, rest = generations._parts("emoji")
    drawings = [set(never_parted(part)) for part in parts]
    assert sum(map(len, drawings)) == 34
    assert len(set.union(*drawings)) == 34
    assert all(abs(len(part) - share) < 3 for part, share in zip(parts, (30, 30, 40), strict=True))
    assert {each.file for each in rest if each.domain == "emoji"} == {each.file for each in parts[-1]}
