"""`client cache forget`: kept images are deleted after what else is theirs, and never without it.

And `client cache prune`: it deletes the embeddings of a model whose fingerprint is typed.
"""

import hashlib
import os
import sqlite3
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from client.cache.cache import EmbeddingCache
from client.cache.notes import Batch
from client.cli.main import main
from client.data import file_memory
from client.data.examples import UNLABELLED, Example, read_files
from client.data.file_memory import FileMemory
from client.data.kept_images import KeptFile, KeptImages, kept_in
from client.data.pixels import PixelStore
from client.vendors.query import Query
from shared.kinds import Usage
from tests.client.folders import write_trusted


@pytest.fixture
def kept(tmp_path: Path) -> list[KeptFile]:
    """Three images in the folder `kept`, and their embeddings in the cache `bought.db`."""
    contents = []
    for grey in range(3):
        file = BytesIO()
        Image.new("L", (4, 4), grey).save(file, "PNG")
        contents.append(file.getvalue())
    KeptImages(tmp_path / "kept", at_most=9).keep(contents)
    found = list(kept_in(tmp_path / "kept"))
    queries = tuple(Query("image", each.digest, "", bytes) for each in found)
    batch = Batch("key", "run", "fp_1", queries)
    vectors = {query: np.full(4, 0.5, np.float32) for query in queries}
    with EmbeddingCache(tmp_path / "bought.db") as cache:
        cache.commit(batch, vectors, Usage(images=3, texts=0, billed_queries=3, cost_micros=3), "req_1")
    return found


def test_images_stay_where_there_is_no_cache_to_forget_their_embeddings(
    kept: list[KeptFile], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["cache", "forget", str(tmp_path / "kept"), "--cache", str(tmp_path / "other.db")])
    assert end.value.code == 2
    assert "other.db: it does not exist" in "".join(capsys.readouterr().err.splitlines())
    assert not (tmp_path / "other.db").exists()
    assert all(each.path.exists() for each in kept)


def test_an_image_that_cannot_be_deleted_is_told_and_the_same_command_goes_on(
    kept: list[KeptFile],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    forget = ["cache", "forget", str(tmp_path / "kept"), "--cache", str(tmp_path / "bought.db")]
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path == kept[1].path:
            raise PermissionError(1, "Operation not permitted")
        unlink(path, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        with pytest.raises(SystemExit) as end:
            main(forget)
    assert end.value.code == 1
    assert f"{kept[1].path} cannot be deleted: Operation not permitted." in capsys.readouterr().err
    assert [each.path.exists() for each in kept] == [False, True, True]
    with EmbeddingCache(tmp_path / "bought.db") as cache:
        assert not cache.holdings()  # none is left whose digest nobody knows any more
    with pytest.raises(SystemExit) as end:
        main(forget)
    assert end.value.code == 0
    assert "Deleted 2 images and 0 embeddings." in capsys.readouterr().out
    assert not list((tmp_path / "kept").iterdir())


def test_files_that_are_only_named_like_kept_images_stay(
    kept: list[KeptFile], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = [tmp_path / "kept" / f"{'0' * 64}.{suffix}" for suffix in ("png", "jpg")]
    content = tmp_path / "kept" / f"{hashlib.sha256(b'mine').hexdigest()}.jpg"  # --keep writes .jpeg
    for path in (*own, content):
        path.write_bytes(b"mine")
    with pytest.raises(SystemExit) as end:
        main(["cache", "forget", str(tmp_path / "kept"), "--cache", str(tmp_path / "bought.db")])
    assert end.value.code == 0
    shown = capsys.readouterr()
    assert "Deleted 3 images and 3 embeddings." in shown.out
    assert "1 files are named like kept images and hold something else" in " ".join(shown.err.split())
    assert set((tmp_path / "kept").iterdir()) == {*own, content}


def test_images_stay_where_the_cache_cannot_be_changed(
    kept: list[KeptFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(EmbeddingCache, "forget", interrupt)
    with pytest.raises(SystemExit):
        main(["cache", "forget", str(tmp_path / "kept"), "--cache", str(tmp_path / "bought.db")])
    assert all(each.path.exists() for each in kept)


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("at_once", [1, 500])
def test_nothing_of_a_forgotten_picture_is_left_beside_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """Neither what is remembered of its file, in the bytes of SQLite's either, nor its pixels."""
    connect = sqlite3.connect

    def connected(path: str, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(path, **options)
        connection.execute("PRAGMA secure_delete = OFF")  # as some builds of SQLite begin
        return connection

    monkeypatch.setattr("sqlite3.connect", connected)
    monkeypatch.setattr(file_memory, "_AT_ONCE", at_once)
    own = tmp_path / "own.png"
    for size in (41, 42):
        Image.effect_noise((size, size), 90).convert("RGB").save(own)
        KeptImages(tmp_path / "kept", at_most=9).keep([own.read_bytes()])
    Image.effect_noise((43, 43), 90).convert("RGB").save(own)
    files = [own, *(each.path for each in kept_in(tmp_path / "kept"))]
    for file in files:
        os.utime(file, (1, 1))
    memory, pixels = tmp_path / "bought.db.files", tmp_path / "pixels"
    mine, *facts = read_files(files, FileMemory(memory))
    examples = [Example(str(file), "kept", UNLABELLED, "", "", 41) for file in files]
    PixelStore(examples, pixels).load(range(len(files)), 8)
    (pixels / "holiday.pixels").write_bytes(b"my own")
    thumbnails = [each.thumbnail for each in facts if len(set(each.thumbnail)) > 1]
    assert len(thumbnails) == 2
    assert all(thumbnail in memory.read_bytes() for thumbnail in thumbnails)

    with pytest.raises(SystemExit) as end:
        main(["cache", "forget", str(tmp_path / "kept"), "--cache", str(tmp_path / "bought.db")])
    assert end.value.code == 0
    left = memory.read_bytes()
    assert not any(thumbnail in left for thumbnail in thumbnails)
    assert not any(file.name.encode() in left for file in files[1:])
    assert FileMemory(memory).recall([own]) == [mine]
    assert [path.name for path in pixels.iterdir()] == ["holiday.pixels"]


@pytest.mark.usefixtures("kept")
def test_what_is_not_there_is_not_made_when_pictures_are_forgotten(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as end:
        main(["cache", "forget", str(tmp_path / "kept"), "--cache", str(tmp_path / "bought.db")])
    assert end.value.code == 0
    assert not (tmp_path / "pixels").exists()
    assert not (tmp_path / "bought.db.files").exists()


@pytest.mark.parametrize("left", ["pixels", "bought.db.files"])
def test_pictures_stay_where_something_of_them_cannot_be_deleted(
    kept: list[KeptFile],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    left: str,
) -> None:
    """The same command then goes on: their names say what else is theirs."""
    (tmp_path / "bought.db.files").touch()

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted", str(tmp_path / left))

    name = "delete_pixels" if left == "pixels" else "FileMemory._opened"
    where = "client.runs.storage" if left == "pixels" else "client.data.file_memory"
    monkeypatch.setattr(f"{where}.{name}", refuse)
    with pytest.raises(SystemExit) as end:
        main(["cache", "forget", str(tmp_path / "kept"), "--cache", str(tmp_path / "bought.db")])
    assert end.value.code == 1
    assert "Operation not permitted" in capsys.readouterr().err
    assert all(each.path.exists() for each in kept)


@pytest.mark.usefixtures("kept")
def test_a_model_is_pruned_only_where_its_fingerprint_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_trusted('model_fingerprint = "fp_1"\ncache = "bought.db"\n')

    def pruned(*typed: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            main(["cache", "prune", *typed])
        shown = capsys.readouterr()
        return int(end.value.code or 0), shown.out + shown.err

    code, said = pruned("--yes")
    assert code == 2
    assert "Say what to delete: --damaged, or a model with --model-fingerprint." in said
    assert pruned("--damaged") == (0, "0 embeddings deleted.\n")
    assert pruned("--model-fingerprint", "fp_1", "--yes") == (0, "3 embeddings deleted.\n")
