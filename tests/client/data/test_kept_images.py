"""Kept images: each once, at most so many, taken by a pool; only what was kept is ever deleted."""

import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.data.file_memory import FileMemory
from client.data.kept_images import KeptImages, delete, kept_before, kept_in
from client.data.pool import read_pool
from client.progress import Display


def _image(seed: int, kind: str = "PNG") -> bytes:
    file = BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, kind)
    return file.getvalue()


def test_what_is_kept_is_a_pool_with_the_digests_that_were_asked_about(tmp_path: Path) -> None:
    contents = [_image(0), _image(1, "JPEG"), _image(2, "WEBP"), _image(3, "GIF")]
    assert KeptImages(tmp_path / "kept", at_most=10).keep([*contents, contents[0]]) == ""
    assert (tmp_path / "kept").stat().st_mode & 0o007 == 0
    names = sorted(path.suffix for path in (tmp_path / "kept").iterdir())
    assert names == [".gif", ".jpeg", ".png", ".webp"]
    pool = read_pool(
        [str(tmp_path / "kept")], {}, FileMemory(None), Display.of_nobody(), given="--adapt kept"
    )
    assert {each.content() for each in pool.examples} >= set(contents[:3])
    assert {each.digest for each in pool.examples} >= {
        each.digest for each in kept_in(tmp_path / "kept") if each.path.suffix != ".gif"
    }


def test_the_oldest_give_way_and_other_files_never_do(tmp_path: Path) -> None:
    (tmp_path / "mine.png").write_bytes(_image(99))
    named = tmp_path / f"{'0' * 64}.png"
    named.write_bytes(b"mine too")
    os.utime(named, (0, 0))
    kept = KeptImages(tmp_path, at_most=3)
    for seed in range(5):
        kept.keep([_image(seed)])
        for number, each in enumerate(each for each in kept_in(tmp_path) if each.path != named):
            os.utime(each.path, (1000 - number, 1000 - number))
    left = {each.path.read_bytes() for each in kept_in(tmp_path) if each.path != named}
    assert left == {_image(seed) for seed in (2, 3, 4)}
    assert (tmp_path / "mine.png").exists()
    assert named.read_bytes() == b"mine too"
    assert not list(tmp_path.glob("*.part"))


def test_forgetting_deletes_what_is_old_enough_and_nothing_else(tmp_path: Path) -> None:
    KeptImages(tmp_path, at_most=9).keep([_image(0), _image(1)])
    (tmp_path / "mine.png").write_bytes(_image(0))
    old, new = kept_in(tmp_path)
    os.utime(old.path, (0, 0))
    assert [each.path for each in kept_before(tmp_path, days=30)] == [old.path]
    delete([old])
    assert kept_before(tmp_path) == [new]
    delete([old, new])  # the first is gone already
    assert [path.name for path in tmp_path.iterdir()] == ["mine.png"]
    with pytest.raises(OSError, match="No such file"):
        kept_before(tmp_path / "nowhere")


def test_a_folder_that_cannot_be_written_is_told_and_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert "Not a directory" in KeptImages(tmp_path / "file" / "kept", at_most=3).keep([_image(0)])


def test_a_file_that_has_changed_is_told_of_and_those_before_it_are_kept(tmp_path: Path) -> None:
    def contents() -> Iterator[bytes]:
        yield _image(0)
        raise ValueError("the file has changed since it was planned")

    assert "has changed" in KeptImages(tmp_path, at_most=3).keep(contents())
    assert len(list(kept_in(tmp_path))) == 1
