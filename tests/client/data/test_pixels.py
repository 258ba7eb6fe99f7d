"""Decoded images on disk: shared, bounded, and never wrong."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.data.examples import Example
from client.data.manifests import MANIFESTS
from client.data.pixels import MAX_BYTES, PixelStore, _PixelFile, delete_pixels
from client.errors import DataError


def _examples(folder: Path, domains: dict[str, int], side: int = 10) -> list[Example]:
    """So many images of each domain; the red of each is its position."""
    examples: list[Example] = []
    for domain, count in domains.items():
        for _ in range(count):
            n = len(examples)
            path = folder / f"{n}.png"
            Image.new("RGB", (2 * side, side), (n, 0, 0)).save(path)
            examples.append(Example(str(path), domain, 0, f"{domain}{n}", str(n), side))
    return examples


def _reds(store: PixelStore, positions: list[int], side: int = 8) -> list[int]:
    pixels, aspects = store.load(positions, side)
    assert pixels.shape == (len(positions), side, side, 3)
    assert (aspects == 2).all()
    return [int(picture[0, 0, 0]) for picture in pixels]


def test_what_was_decoded_once_is_not_read_again(tmp_path: Path) -> None:
    examples = _examples(tmp_path, {"a": 3, "b": 2})
    kept = tmp_path / "kept"
    assert _reds(PixelStore(examples, kept), [4, 0, 2, 0]) == [4, 0, 2, 0]
    for example in examples:
        example.path.unlink()
    again = PixelStore(examples, kept)
    assert _reds(again, [0, 2, 4]) == [0, 2, 4]
    with pytest.raises(DataError, match=r"1\.png has changed .* No such file"):
        again.load([1], 8)
    with pytest.raises(DataError, match=r"0\.png has changed .* No such file"):
        again.load([0], 9)


def test_domains_are_shared_by_runs_that_leave_out_others(tmp_path: Path) -> None:
    examples = _examples(tmp_path, {"a": 2, "b": 2, "c": 2})
    kept = tmp_path / "kept"
    _reds(PixelStore(examples[:4], kept), [0, 1, 2, 3])
    for example in examples[2:4]:
        example.path.unlink()
    assert _reds(PixelStore(examples[2:], kept), [0, 1, 2, 3]) == [2, 3, 4, 5]


@pytest.mark.parametrize("damage", ["a byte", "the end", "all"])
def test_damage_is_found_and_mended(tmp_path: Path, damage: str) -> None:
    examples = _examples(tmp_path, {"a": 3})
    kept = tmp_path / "kept"
    _reds(PixelStore(examples, kept), [0, 1, 2])
    (file,) = kept.iterdir()
    content = bytearray(file.read_bytes())
    if damage == "a byte":
        content[30] ^= 255
    elif damage == "the end":
        content = content[: len(content) // 2]
    else:
        content = bytearray(len(content))
    file.write_bytes(content)
    for _ in range(2):
        assert _reds(PixelStore(examples, kept), [0, 1, 2]) == [0, 1, 2]


def test_another_picture_in_the_place_of_one_is_neither_taken_nor_kept(tmp_path: Path) -> None:
    path, kept = tmp_path / "0.png", tmp_path / "kept"
    Image.linear_gradient("L").save(path)
    whole = path.read_bytes()
    digest = hashlib.sha256(whole).hexdigest()
    example = Example(str(path), "a", 0, digest, digest, 256, file_digest=digest)
    expected, _ = example.square(8)
    Image.radial_gradient("L").save(path)
    with pytest.raises(DataError, match=r"0\.png has changed since it was read: its bytes are others"):
        PixelStore([example], kept).load([0], 8)
    path.write_bytes(whole)
    for _ in range(2):
        assert np.array_equal(PixelStore([example], kept).load([0], 8).pixels[0], expected)
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_the_same_pixels_come_back_whether_they_fit_or_not(tmp_path: Path, share: float) -> None:
    examples = _examples(tmp_path, {"a": 6, "b": 4})
    store = PixelStore(examples, tmp_path / "kept", max_bytes=int(share * 10 * (8 + 3 * 64)))
    for _ in range(2):
        assert _reds(store, [9, 0, 5, 3]) == [9, 0, 5, 3]


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    examples = _examples(tmp_path, {"a": 2})
    (tmp_path / "file").write_text("in the way")
    assert _reds(PixelStore(examples, tmp_path / "file"), [1, 0]) == [1, 0]
    assert _reds(PixelStore(examples, None), [1, 0]) == [1, 0]


def test_a_full_disk_stops_keeping_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = _examples(tmp_path, {"a": 3})
    store = PixelStore(examples, tmp_path / "kept")
    assert _reds(store, [0]) == [0]

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    assert _reds(store, [0, 1, 2]) == [0, 1, 2]
    assert _reds(store, [2, 1, 0]) == [2, 1, 0]


def test_what_was_not_used_for_longest_makes_room(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    one = 3 * (8 + 3 * 64)
    names: list[str] = []
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        examples = _examples(folder, {f"domain{number}": 3})
        _reds(PixelStore(examples, kept, max_bytes=max(2 * one, 2 * 4096)), [0, 1, 2])
        (name,) = {file.name for file in kept.iterdir()} - set(names)
        names.append(name)
    assert {file.name for file in kept.iterdir()} == set(names[1:])


def test_a_file_that_another_process_deletes_meanwhile_does_not_matter(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "gone.pixels").symlink_to("nothing")  # listed, and not there
    examples = _examples(tmp_path, {"a": 3})
    _reds(PixelStore(examples, kept), [0, 1, 2])
    for example in examples:
        example.path.unlink()
    assert _reds(PixelStore(examples, kept), [0, 1, 2]) == [0, 1, 2]


def test_a_run_goes_on_with_the_images_that_are_deleted_beneath_it(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    examples = _examples(tmp_path, {"a": 3})
    running = PixelStore(examples, kept)
    _reds(running, [0, 1])
    delete_pixels(kept)
    assert not list(kept.iterdir())
    for example in examples[:2]:
        example.path.unlink()
    assert _reds(running, [0, 1, 2]) == [0, 1, 2]
    assert not list(kept.iterdir())


def test_aspects_are_kept(tmp_path: Path) -> None:
    Image.new("RGB", (30, 10)).save(tmp_path / "wide.png")
    example = Example(str(tmp_path / "wide.png"), "a", 0, "d", "d", 10)
    for _ in range(2):
        assert np.allclose(PixelStore([example], tmp_path / "kept").load([0], 8).aspects, [3.0])


def test_domainnet_fits() -> None:
    images = MANIFESTS[4].images.values()
    assert sum(_PixelFile.size(count, 256) for count in images) < MAX_BYTES
