"""`client predict`, `evaluate` and `serve`: what they take, what they leave out, and how they end."""

import json
import os
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from client.api import students
from client.api.options import AskOptions
from client.cli.main import main
from client.data.images import Pixels
from tools.site.commands import page


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


@pytest.mark.parametrize("command", [["predict", "run", "shots"], ["serve", "run"]], ids=["predict", "serve"])
def test_about_how_many_to_ask_the_file_says_where_somebody_is_asked_and_nothing_is_typed(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, ask: AskOptions | None = None, **__: object) -> None:
        pytest.fail(str(ask and (ask.share, ask.below, ask.accuracy, ask.budget)))

    monkeypatch.setattr(students.Student, "predict", fail)
    monkeypatch.setattr("client.api.serving.serve", lambda _, options, **__: fail(ask=options.ask))

    def asked(*typed: str) -> str:
        with pytest.raises(pytest.fail.Exception) as found:
            main([*command, *typed])
        return str(found.value)

    def refusal(*typed: str) -> str:
        with pytest.raises(SystemExit) as end:
            main([*command, *typed])
        assert end.value.code == 2
        return capsys.readouterr().err

    vendor = ("--ask-vendor", "http://127.0.0.1:9")
    assert asked(*vendor, "--ask-budget", "5") == "(0.2, None, None, 5)"
    documented = page()
    assert documented.count("Ask about this share of the images (default: 0.2).") == 2
    Path("tuition.toml").write_text("ask_share = 0.1\nask_budget = 1000\n")
    assert asked() == "None"
    assert asked(*vendor) == "(0.1, None, None, 1000)"
    assert asked(*vendor, "--ask-below", "0.5") == "(None, 0.5, None, 1000)"
    for typed in (("--ask-share", "0.1"), ("--ask-budget", "5")):
        assert "Name whom to ask: --ask-vendor URL." in refusal(*typed)
    both = refusal(*vendor, "--ask-below", "0.5", "--ask-accuracy", "0.9")
    assert "Give one of --ask-share, --ask-below and --ask-accuracy." in both


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
        ('web = "filed"\nout = "filed.onnx"', "", None),
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
    Path("tuition.toml").write_text(f"[export]\n{settings}\n")
    with pytest.raises((SystemExit, pytest.fail.Exception)) as end:
        main(["export", "run", *typed.split()])
    if written is None:
        assert isinstance(end.value, SystemExit)
        assert end.value.code == 2
        assert "Say either --out FILE" in capsys.readouterr().err
    else:
        assert str(end.value) == written
