"""The frame of the command line: what it imports, what it says of itself, and how it ends."""

import ast
import inspect
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.core import TyperGroup

from client.__main__ import main as program
from client.cli.main import app, main
from tests.client.toy import make_folder
from tests.support.forking import ForkedOn


def _commands() -> Mapping[str, Any]:
    """Every command by its words, those of groups included."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    commands: dict[str, Any] = {}
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            commands |= {f"{name} {word}": each for word, each in command.commands.items()}
        else:
            commands[name] = command
    return commands


@pytest.mark.parametrize("name", sorted(_commands()))
def test_every_command_has_help_with_an_example_of_itself(name: str) -> None:
    command = _commands()[name]
    assert f"Example: client {name}" in (command.help or "")
    for parameter in command.params:
        assert getattr(parameter, "help", None) or parameter.name in ("out", "file"), (
            f"{name} {parameter.name} is not explained"
        )


@pytest.mark.parametrize("name", sorted(_commands()))
def test_a_command_parses_makes_a_call_and_prints(name: str) -> None:
    source = textwrap.dedent(inspect.getsource(_commands()[name].callback.function))
    (function,) = ast.parse(source).body
    statements = [each for each in ast.walk(function) if isinstance(each, ast.stmt)]
    assert len(statements) - 2 <= 15, "what a command does belongs into client/api"  # def and docstring aside


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["models", "--vendor", "nowhere"], 2, "no address of a vendor"),
        (["models", "--vendor", "http://localhost/\udcff"], 2, "no address of a vendor"),
        (["models", "--vendor", "http://a..b:1"], 2, "no address of a vendor"),
        (["models", "--vendor", f"http://{'a' * 64}.com:1"], 2, "no address of a vendor"),
        (["models", "--vendor", "http://xn--a:1"], 2, "no address of a vendor"),
        (["models", "--vendor", "http://vend\u043er.example"], 2, "write it in ASCII"),
        (["usage", "--group-by", "moon"], 2, "group-by"),
        (["usage", "--api-key-file", "missing"], 2, "missing"),
        (["embed", "--out", "x.csv", "--text", "a"], 2, ".jsonl"),
        (["embed", "--out", "missing/x.npy", "--text", "a"], 2, "no folder missing"),
        (["embed", "--out", "x.npy", "--images", "missing"], 2, "missing does not exist"),
        (["embed", "--out", "x.npy", "--text", "\udcff"], 2, "not valid Unicode"),
        (["embed", "--out", "x.npy", "--text", "a", "--budget", "-1"], 2, "--budget"),
        (["export", "run", "--out", ".", "--format", "onnx"], 2, "--out . is a folder"),
        (["export", "run", "--out", "/", "--format", "safetensors"], 2, "--out / is a folder"),
        (["nonsense"], 2, "nonsense"),
    ],
    ids=str,
)
def test_bad_usage_is_named_on_standard_error(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    shown = capsys.readouterr()
    assert end.value.code == code
    assert message in " ".join(shown.err.split())
    assert not shown.out


def test_embeddings_are_not_bought_for_a_file_that_is_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.npy").mkdir()
    with pytest.raises(SystemExit) as end:
        main(["embed", "--out", str(tmp_path / "x.npy"), "--text", "a"])
    assert end.value.code == 2
    assert "x.npy is a folder" in " ".join(capsys.readouterr().err.split())


def test_embeddings_are_not_bought_for_a_folder_that_takes_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # what a read-only mount says, to root as well
    with pytest.raises(SystemExit) as end:
        main(["embed", "--out", str(tmp_path / "x.npy"), "--text", "a"])
    assert end.value.code == 2
    assert "no file can be made in the folder" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("data check {}", "cannot be read: {} --data takes"),
        ("plan --data {}", "cannot be read: {} --data takes"),
        ("distill --data {} --out run --method erm", "cannot be read: {} --data takes"),
        ("distill --data toy --out {} --method erm", "cannot be written"),
        ("compare --data {} --methods erm --out table", "cannot be read: {} --data takes"),
        ("compare --data toy --methods erm --out {}", "cannot be written"),
        ("embed --images {}/below --out x.npy", "cannot be read: {}"),
        ("embed --text a --out {}/x.npy", "there is no folder"),
        ("predict {}/s.onnx toy", "cannot be read: {}"),
        ("predict {} toy", "does not exist"),
        ("export {} --out x.onnx", "does not exist"),
        ("export {}/s.onnx --web web", "cannot be read: {}"),
        ("export {} --out {}/x.onnx", "there is no folder"),
        ("serve {}", "cannot be read: {}"),
        ("cache stats --cache {}", "cannot be read: {}"),
        ("distill --data toy --method erm --student-weights {}", "is not a file"),
        ("distill --data toy --method erm --student open_clip:{}", "There is no open_clip model"),
    ],
)
@pytest.mark.parametrize(
    ("name", "reason"),
    [("x" * 300, "File name too long."), ("loop", "Too many levels of symbolic links.")],
    ids=["long", "loop"],
)
def test_a_path_that_the_system_refuses_to_look_at_is_an_error_like_others(
    command: str,
    said: str,
    name: str,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_folder(tmp_path / "toy", images=1)
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(command.replace("{}", name).split())
    assert end.value.code in (1, 2)
    assert said.replace("{}", reason) in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "command",
    [
        "distill --data . --target-domain red --method erm",
        "distill --data . --target-domain red --method erm --out .",
        "distill --data ../toy --target-domain red --method erm --out dark/run",
        "compare --data . --methods erm --out table",
    ],
)
def test_nothing_is_written_among_the_images(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_folder(tmp_path / "toy", images=1)
    before = sorted(root.rglob("*"))
    monkeypatch.chdir(root)
    with pytest.raises(SystemExit) as end:
        main(command.split())
    assert end.value.code == 2
    assert "Choose an --out elsewhere" in " ".join(capsys.readouterr().err.split())
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize(("command", "missing"), [("methods", "torch"), ("models", "platformdirs")])
def test_an_installation_that_only_serves_says_what_training_takes(command: str, missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from client.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code, command], capture_output=True, text=True)
    assert done.returncode == 2
    said = " ".join(done.stderr.split())
    assert said == f"Error: {missing} is missing, which this command needs: pip install tuition"


def test_what_standard_output_cannot_encode_is_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder(tmp_path / "toy", images=1)
    (root / "dark" / "circle" / "кот.png").write_text("no image")
    shown = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(shown, "latin-1"))
    monkeypatch.setattr(sys, "argv", ["client", "data", "check", str(root)])
    with pytest.raises(SystemExit) as end:
        program()
    assert end.value.code == 1
    assert b"dark/circle/\\u043a\\u043e\\u0442.png" in shown.getvalue()


_FULL = "Error: cannot write to standard output: No space left on device.\n"


@pytest.mark.parametrize("command", ["methods", "methods --json"])
def test_a_full_disk_behind_standard_output_is_said(command: str, tmp_path: Path) -> None:
    said, full = os.open(tmp_path / "said", os.O_WRONLY | os.O_CREAT), os.open("/dev/full", os.O_WRONLY)
    process = ForkedOn("client.__main__", command.split(), tmp_path, os.environ, said, full)
    assert process.wait() == 1
    assert (tmp_path / "said").read_text() == _FULL


def test_a_full_disk_is_said_once_also_as_python_ends() -> None:
    with Path("/dev/full").open("w") as full:
        program = [sys.executable, "-m", "client", "--version"]
        process = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (process.returncode, process.stderr) == (1, _FULL)
