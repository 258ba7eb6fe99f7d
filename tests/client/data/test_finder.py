"""Which files are found below a folder, the same for every command, and why others are left out."""

import errno
import glob
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from client.data import finder, images
from client.data.finder import FoundFiles, counted, find_images, search
from client.data.listing import list_folder
from client.errors import DataError, UsageError
from tests.client.toy import make_folder


def _draw(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "green").save(path, "PNG")
    return path


def _names(found: FoundFiles, root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in found.images]


def _reasons(found: FoundFiles, root: Path) -> dict[str, str]:
    return {file.path.relative_to(root).as_posix(): file.reason for file in found.left_out}


def test_pictures_are_in_the_order_of_their_paths_part_by_part(tmp_path: Path) -> None:
    for name in ("a/z.png", "a b/a.png", "a!/a.png", "a.png", "a/b/a.png", "a/b!.png"):
        _draw(tmp_path / name)
    found = search(tmp_path).images
    assert list(found) == sorted(found)
    assert _names(search(tmp_path), tmp_path)[:2] == ["a/b/a.png", "a/b!.png"]


def test_hidden_files_and_folders_are_left_out_and_counted(tmp_path: Path) -> None:
    for name in (
        "a.png", "b/c/d.JPG", "b/._a.jpg", ".cache/thumb.png", ".cache/deep/x.png", "@eaDir/a.png/y.jpg",
        "__MACOSX/b/z.png",
    ):  # fmt: skip
        _draw(tmp_path / name)
    (tmp_path / ".cache" / "notes.txt").write_text("")
    found = search(tmp_path)
    assert _names(found, tmp_path) == ["a.png", "b/c/d.JPG"]
    assert counted(found.left_out) == {"hidden": 5}
    assert not any(file.is_loss for file in found.left_out)


def test_links_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    _draw(root / "b" / "own.png")
    _draw(elsewhere / "far.png")
    (root / "a-link-to-it.png").symlink_to("b/own.png")  # what is there itself goes first
    (root / "b" / "loop").symlink_to("..")
    (root / "b" / "self").symlink_to("self")
    (root / "c").symlink_to(elsewhere)
    (root / "d").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(root)
    (root / "gone.png").symlink_to("nothing.png")
    found = search(root)
    assert _names(found, root) == ["b/own.png", "c/far.png", "gone.png"]
    linked = "a link to what is taken already"
    assert _reasons(found, root) == {
        "a-link-to-it.png": linked,
        "b/loop": linked,
        "b/self": "not an image by name",
        "c/back": linked,
        "d": linked,
    }


def test_what_is_named_as_a_picture_and_cannot_be_read_is_a_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.svg", "b.CR2", "c.txt", "d"):
        (tmp_path / name).write_text("")
    os.mkfifo(tmp_path / "pipe.png")  # which would never end
    found = search(tmp_path)
    assert not found.images
    assert {file.path.name: file.is_loss for file in found.left_out} == {
        "a.svg": True, "b.CR2": True, "c.txt": False, "d": False, "pipe.png": True,
    }  # fmt: skip
    assert counted(found.left_out)["unsupported format (.svg)"] == 1
    (tmp_path / "e.heic").write_text("")
    monkeypatch.setattr(finder, "suffixes", lambda: images.suffixes() - images.HEIC_SUFFIXES)
    (heic,) = (file for file in search(tmp_path).left_out if file.path.name == "e.heic")
    assert "pip install 'tuition[heic]'" in heic.reason
    assert heic.kind == "unsupported format (.heic)"


def test_patterns_find_what_folders_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("shots/a/1.png", "shots/b/2.png", "shots/3.png", "shots/.c/4.png", "shots/a/._5.png"):
        _draw(Path(name))
    Path("shots/notes.txt").write_text("")
    for n in range(2):  # which a pattern of Python's would follow forty deep, each into the other
        Path(f"shots/loop{n}").symlink_to(".")
    everything = ["3.png", "a/1.png", "b/2.png"]
    for word in ("shots", "shots/**", "shots/**/*", "shots/**/*.png"):
        assert _names(find_images(word), Path("shots")) == everything, word
    assert _names(find_images("shots/[ab]/*.png"), Path("shots")) == ["a/1.png", "b/2.png"]
    assert _names(find_images("**/a/*"), Path("shots")) == ["a/1.png"]
    found = find_images("shots/*")
    assert (_names(found, Path("shots")), counted(found.left_out)) == (["3.png"], {"not an image by name": 1})
    assert _names(find_images("shots/.c/4.png"), Path("shots")) == [".c/4.png"]  # named itself
    for word in ("missing", "shots/*.jpg", "missing/**/*"):
        with pytest.raises(UsageError, match="does not exist"):
            find_images(word)
    with pytest.raises(
        UsageError, match=r"shots/\[ab\] matches only folders, .*: shots/\[ab\]/\*\* for those"
    ):
        find_images("shots/[ab]")
    assert _names(find_images("shots/[ab]/**"), Path("shots")) == ["a/1.png", "b/2.png"]
    with pytest.raises(UsageError, match="An empty name stands for no images"):
        find_images("")


def test_an_escaped_name_of_a_folder_is_where_a_search_begins(tmp_path: Path) -> None:
    """It is named itself, so it may be hidden, as any folder before the wildcards."""
    folder = tmp_path / ".shots [2024] *?"
    _draw(folder / "s" / "1.png")
    _draw(folder / "s [1]" / "2.png")
    escaped = glob.escape(str(folder))
    for pattern in ("**/*.png", "**"):
        assert _names(find_images(f"{escaped}/{pattern}"), folder) == ["s/1.png", "s [1]/2.png"]
    assert _names(find_images(f"{escaped}/s[ ][[]1]/**/*"), folder) == ["s [1]/2.png"]
    assert _names(find_images(f"{escaped}/s [[]1]/**/*"), folder) == ["s [1]/2.png"]
    assert _names(find_images(f"{escaped}/s/*.png"), folder) == ["s/1.png"]


@pytest.fixture
def forbid(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Makes the system refuse to tell of files below a folder, as it does below another user's."""
    stat, lstat = os.stat, os.lstat

    def forbidden(folder: Path) -> None:
        def look(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
            real = Path(os.path.realpath(path) if follow_symlinks else path)
            if folder in real.parents:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return stat(path) if follow_symlinks else lstat(path)

        monkeypatch.setattr(os, "stat", look)
        monkeypatch.setattr(os, "lstat", partial(look, follow_symlinks=False))

    return forbidden


def test_a_link_to_a_file_that_may_not_be_read_is_left_out(
    tmp_path: Path, forbid: Callable[[Path], None]
) -> None:
    root, theirs = make_folder(tmp_path / "toy", images=1), tmp_path / "theirs"
    _draw(theirs / "x.png")
    link = root / "dark" / "circle" / "link.png"
    link.symlink_to(theirs / "x.png")
    forbid(theirs)
    examples, skipped = list_folder(root).read(["dark"])
    assert len(examples) == 3
    assert [(file.path, file.reason) for file in skipped] == [(link, "Permission denied")]
    assert link in find_images(str(root)).images
    assert find_images(str(root / "dark" / "circle" / "*k.png")).images == (link,)


def test_a_folder_that_may_not_be_read_is_refused_with_the_systems_reason(
    tmp_path: Path, forbid: Callable[[Path], None]
) -> None:
    root = make_folder(tmp_path / "theirs" / "toy", images=1)
    forbid(tmp_path / "theirs")
    with pytest.raises(DataError, match=r"toy cannot be read: Permission denied\. --data takes"):
        list_folder(root)
    for word in (root, root / "**" / "*.png", root / "dark" / "circle" / "0.png"):
        with pytest.raises(UsageError, match="cannot be read: Permission denied"):
            find_images(str(word))


def test_pictures_outside_classes_are_named_and_those_below_classes_count_for_them(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "toy", images=1)
    for name in (
        "dark/circle/more/deep/x.png",
        "dark/loose.png",
        "loose.png",
        ".t/h.png",
        "dark/circle/._y.png",
    ):
        _draw(root / name)
    (root / "README.txt").write_text("no picture, and in no class")
    folder = list_folder(root)
    assert folder.count("dark") == 4
    assert folder.deeper == 1
    assert counted(folder.ignored) == {"hidden": 2, "loose in a domain": 1, "loose in the root": 1}
    assert {file.path.name for file in folder.ignored_in(["dark"])} == {"loose.png", "._y.png"}
    assert len(folder.ignored_outside("dark")) == 2
    assert {file.domain for file in folder.ignored if file.path.parent == root} == {None}


def test_the_digest_of_a_folder_of_one_level_is_what_it_was(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for name in ("d/k/a.png", "d/k/b.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"12")
    known = "f187954e5796a48676fabd82983a3b629c6bca7704a18f98b46d2c5cb365aea6"
    assert list_folder(root).digest() == known
    (root / "d" / "k" / "below").mkdir()
    assert list_folder(root).digest() == known
    (root / "d" / "k" / "b.png").rename(root / "d" / "k" / "below" / "b.png")
    assert list_folder(root).digest() != known


def test_names_of_composed_and_decomposed_unicode_are_one(tmp_path: Path) -> None:
    for domain, name in (("one", "caf\u00e9"), ("two", "cafe\u0301"), ("two", "caf\u00e9")):
        _draw(tmp_path / domain / name / f"{len(name)}.png")
    folder = list_folder(tmp_path)
    assert folder.classes == ("caf\u00e9",)
    assert (folder.count("one"), folder.count("two")) == (1, 2)
    assert [path.name for path in folder.respelled] == ["cafe\u0301"]


def test_a_folder_without_an_image_in_a_class_says_what_it_has_instead(tmp_path: Path) -> None:
    _draw(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"Left out: 1 loose in the root\. .*one level too high or too low"):
        list_folder(tmp_path)
