"""What is passed on of what somebody said, on the command line or in tuition.toml."""

from pathlib import Path
from typing import Any, NoReturn

import pytest
import typer.main
from typer.core import TyperGroup

from client.api import configs
from client.api.options import DistillOptions
from client.cli.main import app, main
from client.cli.options import PASSED_ON_AS
from client.cli.settings import commands_of, settings_of
from client.errors import ClientError


def test_every_option_of_a_run_is_known_by_its_name_on_the_command_line() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    known = {parameter.name for parameter in group.commands["distill"].params}
    assert {PASSED_ON_AS.get(name, name) for name in DistillOptions.model_fields} <= known


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the last `distill --from` passed on; the working directory is an empty one."""
    passed_on: dict[str, Any] = {}

    def noted(_: Path, **changes: Any) -> NoReturn:
        passed_on.clear()
        passed_on.update(changes)
        raise ClientError("noted")

    monkeypatch.setattr(configs, "next_options", noted)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUITION_DATA", raising=False)
    return passed_on


@pytest.mark.parametrize("settings", [None, "[distill]\nno_wait = true\n"], ids=["typed", "tuition.toml"])
def test_a_next_generation_is_not_waited_for_either(settings: str | None, said: dict[str, Any]) -> None:
    if settings is not None:
        Path("tuition.toml").write_text(settings)
    with pytest.raises(SystemExit):
        main(["distill", "--from", "run", "--batch", *([] if settings else ["--no-wait"])])
    assert said == {"batch": True, "wait": False}


def test_a_cap_of_the_file_does_not_agree_to_what_a_next_generation_buys(said: dict[str, Any]) -> None:
    Path("tuition.toml").write_text("max_spend = 7\n")
    for typed, micros in (([], 7), (["--max-spend", "5"], 5)):
        with pytest.raises(SystemExit):
            main(["distill", "--from", "run", *typed])
        assert said == {"max_spend_micros": micros, "max_spend_agrees": bool(typed)}


@pytest.mark.parametrize(
    ("typed", "data"),
    [([], None), (["--data", "typed"], "typed"), (["--classes", "typed.txt"], "typed.txt")],
    ids=["nothing", "data", "classes"],
)
def test_a_next_generation_learns_from_what_is_typed_alone(
    typed: list[str], data: str | None, said: dict[str, Any]
) -> None:
    Path("tuition.toml").write_text('[distill]\ndata = "filed"\nclasses = "filed.txt"\n')
    Path("typed.txt").touch()
    with pytest.raises(SystemExit):
        main(["distill", "--from", "run", *typed])
    assert said == ({} if data is None else {"data": Path(data)})


def _floats() -> list[tuple[str, str]]:
    """Every option that takes a float, as (words of the command, option)."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return [
        (words, setting.key)
        for words, command in commands_of(group)
        for setting in settings_of(command).values()
        if setting.kind is float
    ]


@pytest.mark.parametrize(("words", "key"), _floats())
def test_nan_is_no_number(words: str, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    option = f"--{key.replace('_', '-')}"
    arguments = ["run", "toy"] if words == "predict" else ["run"]
    with pytest.raises(SystemExit) as end:
        main([*words.split(), option, "nan", *arguments])
    assert end.value.code == 2
    assert f"Invalid value for '{option}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["predict", "run", "toy", "--ask-vendor", "http://x", "--ask-budget", f"{10**12 + 1}"],
            "--ask-budget",
        ),
        (["serve", "run", "--ask-vendor", "http://x", "--keep-at-most", f"{10**7 + 1}"], "--keep-at-most"),
        (["models"], "`protocol`: Input should be 'tuition', 'infinity' or 'jina', not 'telepathy'."),
    ],
    ids=lambda each: each[0] if isinstance(each, list) else "",
)
def test_a_value_that_no_option_takes_is_refused_and_no_traceback(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    if arguments == ["models"]:
        monkeypatch.setenv("TUITION_PROTOCOL", "telepathy")
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())
