"""The bundled icons: unpacked whole, into a new folder."""

from pathlib import Path
from zipfile import ZipFile

import pytest

import client
from client.cli.main import main
from client.data import bundled_set
from client.data.bundled_set import ICONS, UNLABELLED
from client.data.finder import search
from client.data.listing import list_folder
from client.errors import ClientError, UsageError


def test_they_are_unpacked_as_a_labelled_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["data", "example", str(tmp_path / "new" / "icons")])
    assert not end.value.code
    said = " ".join(capsys.readouterr().out.split())
    assert "icons has labelled icons" in said
    assert "icons-unlabelled has images without labels" in said
    folder = list_folder(tmp_path / "new" / "icons")
    assert folder.domains == ("colour", "emoji", "line", "pixel", "solid")
    assert len(folder.classes) == 54
    assert sum(map(folder.count, folder.domains)) == len(folder.drawn) == 2289
    pool = search(tmp_path / "new" / "icons-unlabelled")
    assert {path.parent.name for path in pool.images} == {"colour", "emoji", "illustration", "line", "solid"}
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["icons", "icons-unlabelled"]


def test_nothing_is_unpacked_among_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ICONS", "UNLABELLED"):
        with ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.writestr(f"{name}/line/1.png", b"")
        monkeypatch.setattr(bundled_set, name, tmp_path / f"{name}.zip")
    (tmp_path / "empty").mkdir()
    assert client.unpack_example(tmp_path / "empty") == tmp_path / "empty"
    with pytest.raises(UsageError, match="exists already"):
        client.unpack_example(tmp_path / "empty")
    (tmp_path / "file").touch()
    (tmp_path / "new-unlabelled").mkdir()
    (tmp_path / "new-unlabelled" / "mine.png").touch()
    for place in ("file", "file/below", "new"):
        with pytest.raises(ClientError):
            client.unpack_example(tmp_path / place)
    assert not (tmp_path / "new").exists()
    for place in (".", "..", "/"):
        with pytest.raises(UsageError, match="Name one, such as"):
            client.unpack_example(place)


def test_they_come_with_the_names_of_those_who_drew_them() -> None:
    for bundle in (ICONS, UNLABELLED):
        with ZipFile(bundle) as archive:
            files = [name.partition("/")[2] for name in archive.namelist()]
            told = archive.read(f"{bundle.stem}/ATTRIBUTION.txt").decode()
        listed = {line.strip().partition(" (")[0] for line in told.splitlines() if line.startswith("  ")}
        assert listed == set(files) - {"ATTRIBUTION.txt"}


def test_what_is_bundled_is_small() -> None:
    assert ICONS.stat().st_size + UNLABELLED.stat().st_size < 14_000_000
