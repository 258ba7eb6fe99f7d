"""What a finished student is tested on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from client.data.examples import Example
from client.data.file_memory import FileMemory
from client.data.listing import list_folder
from client.progress import Display
from client.runs.evaluation import read_for_evaluation, twins_among


def _photo(seed: int) -> Image.Image:
    colours = np.random.default_rng(seed).integers(0, 255, (5, 5, 3), np.uint8)
    return Image.fromarray(colours).resize((80, 80), Image.Resampling.BICUBIC)


def _examples(root: Path, memory: FileMemory) -> Sequence[Example]:
    return read_for_evaluation(list_folder(root), ["a", "b"], Display.of_nobody(), memory)[0]


def test_near_twins_of_a_domain_are_one_group_and_those_of_two_domains_are_not(tmp_path: Path) -> None:
    for domain in "ab":
        folder = tmp_path / "set" / domain / "thing"
        folder.mkdir(parents=True)
        for seed in range(4):
            _photo(seed).save(folder / f"{seed}.png")
    there = tmp_path / "set" / "b" / "thing"
    _photo(2).resize((61, 61)).save(there / "2-smaller.jpg", quality=80)
    _photo(2).crop((1, 1, 80, 80)).save(there / "2-cut.png")
    tested = _examples(tmp_path / "set", FileMemory(None))
    twins = twins_among(tested, FileMemory(tmp_path / "files.db"))
    assert twins is not None
    groups: dict[int, list[str]] = {}
    for example, group in zip(tested, twins, strict=True):
        groups.setdefault(group, []).append(f"{example.domain}/{example.path.stem}")
    largest = max(groups.values(), key=len)
    assert sorted(largest) == ["b/2", "b/2-cut", "b/2-smaller"]
    assert sorted(map(len, groups.values())) == [1] * 7 + [3]
    (there / "2.png").unlink()
    assert twins_among(tested, FileMemory(tmp_path / "files.db")) is None
