"""What is at a path: no name and no link ends in a traceback, and the system's reason is told."""

import os
from pathlib import Path

import pytest

from client.paths import (
    absence,
    discard,
    is_file,
    is_folder,
    is_there,
    replace_text,
    resolved,
    rooted,
    whole_file,
)


def test_what_is_there_is_known_by_its_kind(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("")
    link.symlink_to(tmp_path)
    assert (is_file(file), is_folder(file), is_there(file)) == (True, False, True)
    assert (is_file(link), is_folder(link), is_there(link)) == (False, True, True)
    assert resolved(link / "file") == file.resolve()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x" * 300, "cannot be read: File name too long"),
        ("loop", "cannot be read: Too many levels of symbolic links"),
        ("missing", "does not exist"),
        ("file/below", "does not exist"),
        ("null\0", "does not exist"),
    ],
    ids=["long", "loop", "missing", "below a file", "null"],
)
def test_what_cannot_be_looked_at_is_not_there_for_a_reason(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    path = tmp_path / name
    assert (is_file(path), is_folder(path), is_there(path)) == (False, False, False)
    assert absence(path) == reason


def test_a_link_to_itself_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert resolved(tmp_path / "loop") == tmp_path.resolve() / "loop"


def test_a_link_to_a_file_keeps_its_name_and_one_to_a_folder_does_not(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "ab12").write_text("")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "labels.csv").symlink_to("../store/ab12")
    (tmp_path / "link").symlink_to("data")
    (tmp_path / "loop").symlink_to("loop")
    root = tmp_path.resolve()
    assert rooted(tmp_path / "link" / "labels.csv") == root / "data" / "labels.csv"
    assert rooted(tmp_path / "link") == root / "data"
    assert rooted(tmp_path / "loop") == root / "loop"


def test_a_file_is_replaced_whole_and_a_link_to_it_stays(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("old")
    link.symlink_to("file")
    replace_text(link, "caf\u00e9 \udce9")
    assert (link.is_symlink(), file.read_text("utf-8")) == (True, "caf\u00e9 \\udce9")
    (tmp_path / "file.part").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_text(file, "new")
    assert file.read_text("utf-8") == "caf\u00e9 \\udce9"


def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        replace_text(pipe, "new")
        assert os.read(reader, 9) == b"new"
    finally:
        os.close(reader)
    assert [each.name for each in tmp_path.iterdir()] == ["pipe"]


def test_where_a_disk_is_full_what_was_there_stays(small_disk: Path) -> None:
    file = small_disk / "file"
    replace_text(file, "old")
    with pytest.raises(OSError, match="No space left on device"):
        replace_text(file, "new " * 1_000_000)
    assert [(each.name, each.read_text()) for each in small_disk.iterdir()] == [("file", "old")]


def test_what_is_left_of_a_file_is_discarded_if_the_system_allows_it(tmp_path: Path) -> None:
    part = tmp_path / "file.part"
    part.write_text("half")
    discard(part / "below")
    discard(part)
    discard(part)
    assert not part.exists()


def test_a_file_is_not_written_through_a_link_that_has_the_name_of_its_part(tmp_path: Path) -> None:
    (tmp_path / "profile").write_text("mine")
    (tmp_path / "file.part").symlink_to("profile")
    with whole_file(tmp_path / "file") as part:
        part.write_text("new")
    assert [(tmp_path / name).read_text() for name in ("profile", "file")] == ["mine", "new"]
