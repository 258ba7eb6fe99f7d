"""The bundled icons: unpacked whole, into a new folder."""

from pathlib import Path
from zipfile import ZipFile

import pytest

import client
from client.cli.main import main
from client.data.domains import list_folder
from client.data.example import ICONS
from client.errors import ClientError, UsageError


def test_they_are_unpacked_as_a_labelled_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["data", "example", str(tmp_path / "new" / "icons")])
    assert not end.value.code
    assert "has the bundled icons" in " ".join(capsys.readouterr().out.split())
    folder = list_folder(tmp_path / "new" / "icons")
    assert folder.domains == ("colour", "emoji", "line", "pixel", "solid")
    assert len(folder.classes) == 54
    assert sum(map(folder.count, folder.domains)) == len(folder.drawn) == 2289
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_nothing_is_unpacked_among_other_files(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert client.unpack_example(tmp_path / "empty") == tmp_path / "empty"
    with pytest.raises(UsageError, match="exists already"):
        client.unpack_example(tmp_path / "empty")
    (tmp_path / "file").touch()
    for place in ("file", "file/below"):
        with pytest.raises(ClientError):
            client.unpack_example(tmp_path / place)


def test_they_come_with_the_names_of_those_who_drew_them() -> None:
    with ZipFile(ICONS) as archive:
        names = {name.removeprefix("icons/") for name in archive.namelist() if name.endswith(".png")}
        told = archive.read("icons/ATTRIBUTION.txt").decode()
    assert names <= {line.strip() for line in told.splitlines()}
