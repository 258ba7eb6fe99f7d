"""`client cache forget`: kept images are deleted after their embeddings, and never without them.

And `client cache prune`: it deletes the embeddings of a model whose fingerprint is typed.
"""

import hashlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.buying.cache import EmbeddingCache
from client.buying.pending import RequestBatch
from client.buying.queries import Query
from client.cli.main import main
from client.deferral.keeping import KeptFile, KeptImages, kept_in
from shared.embeddings import Usage


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
    batch = RequestBatch("key", "run", "fp_1", queries)
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
def test_a_model_is_pruned_only_where_its_fingerprint_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tuition.toml").write_text('model_fingerprint = "fp_1"\ncache = "bought.db"\n')

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
