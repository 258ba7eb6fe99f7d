"""`client predict`, `evaluate` and `serve`: what they take, what they leave out, and how they end."""

import json
import os
import re
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from client.api import students
from client.cli.main import main
from client.data.images import Pixels
from tests.client.folders import write_trusted


class _Sure:
    """Names the first class of any picture."""

    classes = ("cat", "dog")
    side = 8

    def probabilities(self, pixels: Pixels) -> NDArray[np.float32]:
        return np.tile(np.array([0.75, 0.25], np.float32), (len(pixels), 1))


@pytest.fixture(autouse=True)
def sure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    student = students.Student(_Sure(), {})
    monkeypatch.setattr(students, "load_student", lambda *_, **__: student)
    monkeypatch.chdir(tmp_path)


def _predict(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(["predict", "run", *words])
    return int(end.value.code or 0)


def _draw(name: str, kind: str = "PNG") -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), "green").save(name, kind)


def _rows(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return {row["image"]: row.get("skipped") for row in json.loads(capsys.readouterr().out)}


def test_hidden_files_and_links_are_passed_over_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("shots/a.png", "shots/.cache/thumb.png", "shots/._b.jpg"):
        _draw(name)
    Path("shots/link.png").symlink_to("a.png")
    assert _predict("shots", "--json") == 0
    assert _rows(capsys) == {
        "shots/a.png": None,
        "shots/.cache/thumb.png": "hidden",
        "shots/._b.jpg": "hidden",
        "shots/link.png": "a link to what is taken already",
    }
    assert _predict("shots") == 0
    assert "Left out: 2 hidden, 1 a link to what is taken already." in capsys.readouterr().err


def test_every_format_is_named_or_read(capsys: pytest.CaptureFixture[str]) -> None:
    for kind, suffix in (
        ("TIFF", "tiff"),
        ("GIF", "gif"),
        ("BMP", "bmp"),
        ("AVIF", "avif"),
        ("HEIF", "heic"),
    ):
        _draw(f"shots/a.{suffix}", kind)
    assert _predict("shots", "--json") == 0
    assert set(_rows(capsys).values()) == {None}
    Path("shots/b.svg").write_text("<svg/>")
    assert _predict("shots", "--json") == 1
    assert _rows(capsys)["shots/b.svg"] == "unsupported format (.svg)"


def test_a_folder_without_a_picture_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    _draw("shots/.cache/thumb.png")
    assert _predict("shots") == 2
    assert "There is no picture in shots" in capsys.readouterr().err


def test_names_on_standard_input_are_taken_as_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [os.fsdecode(b"caf\xe9.png"), " a.png"]
    for name in names:
        _draw(name)
    typed = BytesIO(b"\n".join(map(os.fsencode, names)))
    monkeypatch.setattr("sys.stdin", TextIOWrapper(typed, encoding="utf-8", errors="strict"))
    assert _predict("-", "--json") == 0
    assert _rows(capsys) == dict.fromkeys(names)


@pytest.mark.parametrize("more", [(), ("--domain", "red")])
def test_class_names_alone_are_nothing_to_evaluate_on(
    capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    Path("names.txt").write_text("cat\ndog\n")
    with pytest.raises(SystemExit) as end:
        main(["evaluate", "run", "--data", "names.txt", *more])
    assert end.value.code == 2
    assert "names.txt names classes, and there is no labelled image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "typed", "written"),
    [
        ('format = "onnx"', "--web page", "page as web"),
        ('format = "onnx"', "--out student", "student as onnx"),
        ('out = "filed.onnx"', "--web page", "page as web"),
        ('out = "filed"', "--format onnx", "filed as onnx"),
        ('out = "filed.onnx"', "--out typed.onnx", "typed.onnx as None"),
        ('web = "filed"', "--out student.onnx", "student.onnx as None"),
        ('web = "filed"\nformat = "onnx"', "", "filed as web"),
        ('web = "filed"\nout = "filed.onnx"', "", "filed as web"),
        ('web = "filed"', "--format onnx", None),
        ('format = "onnx"', "", None),
        ('out = "filed"', "--web page --format onnx", None),
        ("", "--web page --out student.onnx", None),
    ],
)
def test_what_is_typed_says_whether_a_file_or_a_page_is_exported(
    settings: str,
    typed: str,
    written: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_: Path, out: Path, *, kind: str | None, **__: object) -> NoReturn:
        pytest.fail(f"{out} as {kind}")

    monkeypatch.setattr("client.api.exports.export", fail)
    write_trusted(f"[export]\n{settings}\n")
    with pytest.raises((SystemExit, pytest.fail.Exception)) as end:
        main(["export", "run", *typed.split()])
    if written is None:
        assert isinstance(end.value, SystemExit)
        assert end.value.code == 2
        assert re.search("Give either --out FILE|Give one of --out and --web", capsys.readouterr().err)
    else:
        assert str(end.value) == written


def test_answers_are_written_as_a_table_for_spreadsheets(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("shots/a.png", "shots/=b,c.png"):
        _draw(name)
    Path("shots/broken.png").write_text("none")
    assert _predict("shots", "--out", "answers.csv") == 1
    assert Path("answers.csv").read_text() == (
        "image,class,probability,class_2,probability_2,skipped\n"
        '"shots/=b,c.png",cat,0.75,dog,0.25,\n'
        "shots/a.png,cat,0.75,dog,0.25,\n"
        "shots/broken.png,,,,,not a readable picture\n"
    )
    assert capsys.readouterr().out == "answers.csv has the answers about 2 images.\n"
    for out, said in (("answers.txt", "ends in .csv"), ("none/answers.csv", "there is no folder none")):
        assert _predict("shots", "--out", out) == 2
        assert said in " ".join(capsys.readouterr().err.split())
