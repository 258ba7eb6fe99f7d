"""A file is read once; one that has changed is read again, and a damaged memory costs time alone."""

import errno
import hashlib
import os
import resource
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image, ImageFile, features

from client.data import examples, file_memory, images, sending
from client.data.examples import UNLABELLED, Example, read_files
from client.data.file_memory import FileMemory
from client.data.members import stamp_of


def _picture(path: Path, colour: str, age: float = 60) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 10), colour).save(path)
    then = time.time() - age
    os.utime(path, (then, then))
    return path


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were opened."""
    opened: list[Path] = []
    read_image = images.read_image

    def noted(path: Path) -> bytes:
        opened.append(path)
        return read_image(path)

    monkeypatch.setattr(examples, "read_image", noted)
    return opened


def test_a_file_is_read_once_and_again_when_it_has_changed(tmp_path: Path, read: list[Path]) -> None:
    files = [_picture(tmp_path / f"{colour}.png", colour) for colour in ("red", "blue")]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    os.utime(broken, (1, 1))
    first = list(read_files([*files, broken], FileMemory(tmp_path / "files.db")))
    assert [facts.side for facts in first] == [10, 10, 0]
    assert first[2].reason == "not a readable picture"
    read.clear()
    assert list(read_files([*files, broken], FileMemory(tmp_path / "files.db"))) == first
    assert read == []
    _picture(files[0], "green", age=50)
    again = list(read_files(files, FileMemory(tmp_path / "files.db")))
    assert read == [files[0]]
    assert again[0].digest != first[0].digest
    assert again[1] == first[1]


def test_files_that_swap_their_names_are_read_again(tmp_path: Path, read: list[Path]) -> None:
    """They are of one size and one time, as an archive unpacks them, and `mv` keeps both."""
    files = [tmp_path / f"{colour}.bmp" for colour in ("red", "blue")]
    for file in files:
        Image.new("RGB", (20, 10), file.stem).save(file)
        os.utime(file, (1, 1))
    red, blue = read_files(files, FileMemory(tmp_path / "files.db"))
    files[0].rename(tmp_path / "other.bmp")
    files[1].rename(files[0])
    (tmp_path / "other.bmp").rename(files[1])
    read.clear()
    assert list(read_files(files, FileMemory(tmp_path / "files.db"))) == [blue, red]
    assert read == files


@pytest.fixture
def another_pillow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Puts another version of Pillow here, which encodes the same pixels in other bytes."""
    version, encoded = features.version, sending.as_png

    def put() -> None:
        images.codecs.cache_clear()
        other = {"pil": "99.0"}
        monkeypatch.setattr(features, "version", lambda name: other.get(name) or version(name))
        for module in (sending, examples):
            monkeypatch.setattr(module, "as_png", lambda pixels: encoded(pixels) + b"99")

    yield put
    monkeypatch.undo()
    images.codecs.cache_clear()


def test_what_another_version_of_pillow_encoded_is_read_again(
    tmp_path: Path, read: list[Path], another_pillow: Callable[[], None]
) -> None:
    """It would be sent in other bytes than were planned. A file that is sent as it is stays known.

    What one version cannot read another may.
    """
    plain = _picture(tmp_path / "red.png", "red")
    encoded = _picture(tmp_path / "red.gif", "red")
    unreadable = _picture(tmp_path / "none.png", "red")
    unreadable.write_bytes(b"no picture")
    os.utime(unreadable, (1, 1))
    files, memory = [plain, encoded, unreadable], FileMemory(tmp_path / "files.db")
    first = list(read_files(files, memory))
    another_pillow()
    read.clear()
    again = list(read_files(files, memory))
    assert read == [encoded, unreadable]
    assert (again[0], again[2]) == (first[0], first[2])
    assert again[1].file_digest == first[1].file_digest
    example = Example(str(encoded), "photo", UNLABELLED, again[1].digest, again[1].file_digest, 10)
    assert hashlib.sha256(example.content()).hexdigest() == again[1].digest != first[1].digest
    assert list(read_files(files, memory)) == again
    assert read == [encoded, unreadable, encoded]  # once more for its content, not for what is known of it


def test_a_memory_of_another_version_is_made_anew(tmp_path: Path, read: list[Path]) -> None:
    file, memory = _picture(tmp_path / "red.png", "red"), tmp_path / "files.db"
    facts = list(read_files([file], FileMemory(memory)))
    with closing(sqlite3.connect(memory)) as connection:
        connection.execute("ALTER TABLE files DROP COLUMN encoder")
        connection.execute("PRAGMA user_version = 2")
    for _ in range(2):
        assert list(read_files([file], FileMemory(memory))) == facts
    assert read == [file, file]


def test_a_memory_that_cannot_be_opened_knows_nothing(tmp_path: Path, read: list[Path]) -> None:
    file, taken = _picture(tmp_path / "red.png", "red"), tmp_path / "files.db"
    taken.mkdir()
    assert [facts.side for facts in read_files([file], FileMemory(taken))] == [10]
    assert read == [file]


def test_a_file_that_was_just_written_is_not_trusted(tmp_path: Path, read: list[Path]) -> None:
    file = _picture(tmp_path / "new.png", "red", age=0)
    for _ in range(2):
        list(read_files([file], FileMemory(tmp_path / "files.db")))
    assert read == [file, file]


@pytest.mark.parametrize("before", [b"half of a pic", None], ids=["half", "other"])
def test_a_file_that_changes_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bytes | None
) -> None:
    """As one does that `tar x` or `cp -p` writes: it has an old time at once, and that stays."""
    file, memory = tmp_path / "red.png", tmp_path / "files.db"
    _picture(file, "red")
    if before is not None:
        file.write_bytes(before)
    read_image = images.read_image

    def read_and_changed(path: Path) -> bytes:
        content = read_image(path)
        _picture(path, "green", age=3600)
        return content

    monkeypatch.setattr(examples, "read_image", read_and_changed)
    first = list(read_files([file], FileMemory(memory)))
    monkeypatch.setattr(examples, "read_image", read_image)
    again = list(read_files([file], FileMemory(memory)))
    assert again == list(read_files([file], FileMemory(None))) != first
    assert again[0].digest == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_file_that_was_just_written_may_be_read_slowly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been written again within the tick in which it was read."""
    file, now = _picture(tmp_path / "new.png", "red", age=0), time.time_ns()
    read: list[Path] = []
    read_image = images.read_image

    def read_slowly(path: Path) -> bytes:
        read.append(path)
        content = read_image(path)
        monkeypatch.setattr(time, "time_ns", lambda: now + 60 * 10**9)
        return content

    monkeypatch.setattr(time, "time_ns", lambda: now)
    monkeypatch.setattr(examples, "read_image", read_slowly)
    list(read_files([file], FileMemory(tmp_path / "files.db")))
    list(read_files([file], FileMemory(tmp_path / "files.db")))
    assert read == [file, file]


@pytest.mark.parametrize("kept", [100, 0], ids=["header", "nothing"])
def test_a_damaged_memory_is_made_anew(tmp_path: Path, read: list[Path], kept: int) -> None:
    file = _picture(tmp_path / "red.png", "red")
    memory = tmp_path / "files.db"
    facts = list(read_files([file], FileMemory(memory)))
    rest = b"no database at all, and longer than a page header" * 9 if kept else b""
    memory.write_bytes(memory.read_bytes()[:kept] + rest)
    for _ in range(2):
        assert list(read_files([file], FileMemory(memory))) == facts
    assert read == [file, file]


def _strangers_file(path: Path, kind: str) -> None:
    """A file that is no database, or one of another program, the last of which ended in the middle."""
    if kind == "text":
        path.write_text("precious\n" * 50)
        return
    other = path.with_name("other.db")
    with closing(sqlite3.connect(other)) as connection:
        if kind == "killed":
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE files (path TEXT)")
        connection.execute("PRAGMA user_version = 3")
        if kind == "marked":
            connection.execute("PRAGMA application_id = 42")
        connection.execute("INSERT INTO files VALUES ('precious')")
        connection.commit()
        for ending in ("", "-wal"):
            if (left := other.with_name(f"other.db{ending}")).exists():
                shutil.copy(left, f"{path}{ending}")
    other.unlink()


def _require_untouched(folder: Path, kind: str) -> None:
    """A file of another program, read beside a picture, is what it was, and so is what lies beside it."""
    picture, cache = _picture(folder / "red.png", "red"), folder / "cache"
    cache.mkdir()
    _strangers_file(cache / "files.db", kind)
    before = {path.name: path.read_bytes() for path in cache.iterdir()}
    said: list[str] = []
    for _ in range(2):
        (facts,) = read_files([picture], FileMemory(cache / "files.db", said.append))
        assert facts.side == 10
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == before
    assert "files.db was not made by Tuition. It stays as it is" in said[0]


@pytest.mark.parametrize("kind", ["text", "unmarked", "marked", "killed"])
def test_a_file_of_another_program_stays_as_it_is(tmp_path: Path, read: list[Path], kind: str) -> None:
    _require_untouched(tmp_path, kind)
    assert len(read) == 2


@pytest.mark.parametrize("kind", ["unmarked", "marked"])
def test_a_file_that_another_program_makes_a_moment_before_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(file_memory, "_require_ours", lambda _: None)  # it was not there yet
    _require_untouched(tmp_path, kind)


def test_a_memory_that_is_damaged_farther_on_is_made_anew(tmp_path: Path, read: list[Path]) -> None:
    files = [_picture(tmp_path / f"{number}.png", "red") for number in range(100)]
    memory = tmp_path / "files.db"
    facts = list(read_files(files, FileMemory(memory)))
    sound = memory.read_bytes()[:8192]
    memory.write_bytes(sound + b"\xff" * (memory.stat().st_size - len(sound)))
    for _ in range(2):
        assert list(read_files(files, FileMemory(memory))) == facts
    assert len(read) == 2 * len(files)


def test_a_memory_that_turns_out_damaged_as_it_is_written_is_made_anew(tmp_path: Path) -> None:
    files = [_picture(tmp_path / f"{number}.png", "red") for number in range(100)]
    memory = FileMemory(tmp_path / "files.db")
    facts = list(read_files(files, memory))
    for path in files:
        os.utime(path, (1, 1))
    rows = {path: (each, stamp_of(path)) for path, each in zip(files, facts, strict=True)}
    content = (tmp_path / "files.db").read_bytes()
    (tmp_path / "files.db").write_bytes(content[:8192] + b"\xff" * (len(content) - 8192))
    memory.remember(rows)
    memory.remember(rows)
    assert memory.recall(files) == facts


def test_a_memory_stays_where_the_disk_is_full(tmp_path: Path, read: list[Path]) -> None:
    files = [_picture(tmp_path / f"{number}.png", "red") for number in range(50)]
    memory = FileMemory(tmp_path / "files.db")
    facts = list(read_files(files, memory))
    another = _picture(tmp_path / "another.png", "blue")
    read.clear()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        again = list(read_files([*files, another], memory))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert again[:-1] == facts
    assert memory.recall(files) == facts
    assert read == [another]


def test_what_the_system_refuses_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, memory = _picture(tmp_path / "red.png", "red"), FileMemory(tmp_path / "files.db")

    def refused(path: Path, _: str) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", refused)
        assert [each.reason for each in read_files([file], memory)] == ["Permission denied"]
    assert [each.side for each in read_files([file], memory)] == [10]


@pytest.mark.parametrize(
    ("place", "name", "error"),
    [
        (ImageFile.ImageFile, "load", MemoryError()),
        (ImageFile.ImageFile, "load", OSError("out of memory error when reading image file")),
        (examples, "as_png", MemoryError()),
    ],
    ids=["pixels", "decoder", "encoding"],
)
def test_what_there_was_no_memory_for_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: object, name: str, error: Exception
) -> None:
    file, memory = _picture(tmp_path / "red.gif", "red"), FileMemory(tmp_path / "files.db")

    def short(*_: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(place, name, short)
        assert [each.reason for each in read_files([file], memory)] == ["too little memory to read it"]
    assert [each.side for each in read_files([file], memory)] == [10]


@pytest.mark.skipif(not features.check("avif"), reason="Pillow was built without AVIF")
def test_what_was_refused_without_its_decoder_is_read_once_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the file is called."""
    file, memory = tmp_path / "web.jpg", FileMemory(tmp_path / "files.db")
    Image.new("RGB", (20, 10), "red").save(file, "AVIF")
    os.utime(file, (1, 1))
    now, known = images.codecs(), images.formats()
    with monkeypatch.context() as patched:
        patched.setattr(images, "formats", lambda: [name for name in known if name != "AVIF"])
        patched.setattr(file_memory, "codecs", lambda: now.replace("avif", "no avif"))
        for _ in range(2):
            assert [each.reason for each in read_files([file], memory)] == ["not a readable picture"]
    assert [each.side for each in read_files([file], memory)] == [10]


def test_a_memory_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    (tmp_path / "no_folder").write_text("a file")
    file = _picture(tmp_path / "red.png", "red")
    (facts,) = read_files([file], FileMemory(tmp_path / "no_folder" / "files.db"))
    assert facts.side == 10


def test_nobody_else_may_read_the_names(tmp_path: Path) -> None:
    list(read_files([_picture(tmp_path / "red.png", "red")], FileMemory(tmp_path / "files.db")))
    assert (tmp_path / "files.db").stat().st_mode & 0o077 == 0
