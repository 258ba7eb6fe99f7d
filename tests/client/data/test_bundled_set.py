"""The bundled icons: unpacked whole, into a new folder."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from zipfile import ZipFile

import pytest

import client
from client.cli.main import main
from client.data import bundled_set
from client.data.bundled_set import ICONS, UNLABELLED
from client.data.finder import search
from client.data.listing import list_folder
from client.data.splits import halves, split
from client.errors import ClientError, UsageError

# Of the names of the hold-outs without emoji, seed 0, as at the runs of benchmarks/runs.csv.
HELD_OUT = "5326a3e83651567166aa1f04bc94d4dcb1959aa4898ae5e5e457308b72355fbf"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The icons as they are unpacked, beside an image of each style of the pool."""
    root = tmp_path_factory.mktemp("unpacked")
    few = root / UNLABELLED.name
    with ZipFile(UNLABELLED) as pool, ZipFile(few, "w") as archive:
        of_style = {name.split("/")[1]: name for name in pool.namelist()}
        for name in of_style.values():
            archive.writestr(name, pool.read(name))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundled_set, "UNLABELLED", few)
        client.unpack_example(root / "new" / "icons")
    return root / "new"


def test_they_are_unpacked_as_a_labelled_set_and_what_they_are_is_said(
    tmp_path: Path, unpacked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = list_folder(unpacked / "icons")
    assert folder.domains == ("colour", "emoji", "line", "pixel", "solid")
    assert len(folder.classes) == 54
    assert sum(map(folder.count, folder.domains)) == len(folder.drawn) == 2289
    pool = search(unpacked / "icons-unlabelled")
    assert {path.parent.name for path in pool.images} == {"colour", "emoji", "illustration", "line", "solid"}
    assert sorted(path.name for path in unpacked.iterdir()) == ["icons", "icons-unlabelled"]
    _replace_archives(tmp_path, monkeypatch)
    with pytest.raises(SystemExit) as end:
        main(["data", "example", str(tmp_path / "new" / "icons")])
    assert not end.value.code
    said = " ".join(capsys.readouterr().out.split())
    assert "icons has labelled icons" in said
    assert "icons-unlabelled has images without labels" in said


def test_their_splits_are_those_of_the_runs_on_record(unpacked: Path) -> None:
    folder = list_folder(unpacked / "icons")
    assert not folder.ignored
    examples, skipped = folder.read(folder.source_domains("emoji"))
    assert not skipped
    train, holdout = split(examples, holdout=0.2, seed=0)
    assert (len(train), len(holdout)) == (1366, 341)
    names = [examples[position].path.relative_to(unpacked).as_posix() for position in holdout]
    assert hashlib.sha256(json.dumps(names).encode()).hexdigest() == HELD_OUT


def _replace_archives(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have an image alone in each archive."""
    for name in ("ICONS", "UNLABELLED"):
        with ZipFile(folder / f"{name}.zip", "w") as archive:
            archive.writestr(f"{name}/line/1.png", b"")
        monkeypatch.setattr(bundled_set, name, folder / f"{name}.zip")


def test_their_hold_outs_have_even_halves_which_no_drawing_is_parted_by(unpacked: Path) -> None:
    folder = list_folder(unpacked / "icons")
    examples, _ = folder.read(folder.source_domains("emoji"))
    held_out = [examples[position] for position in split(examples, holdout=0.2, seed=0)[1]]
    half_of = halves(held_out)
    sides: dict[str, set[int]] = {}
    sizes = Counter((each.domain, half) for each, half in zip(held_out, half_of, strict=True))
    for each, half in zip(held_out, half_of, strict=True):
        sides.setdefault(each.drawing, set()).add(half)
    assert all(len(found) == 1 for found in sides.values())
    assert len(sides) < len(held_out)
    for domain in folder.source_domains("emoji"):
        assert abs(sizes[domain, 0] - sizes[domain, 1]) <= 6
        assert min(sizes[domain, 0], sizes[domain, 1]) >= 10


def test_nothing_is_unpacked_among_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _replace_archives(tmp_path, monkeypatch)
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
