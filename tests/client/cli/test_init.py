"""`client init`: every option in a comment, with what really holds."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from client.cli.init import commented_settings, write_settings
from client.cli.main import main
from client.cli.settings import SETTINGS_FILE, commands_of, read_settings, settings_of
from client.errors import ClientError
from shared.typer_commands import parameter_of
from tests.client.cli.test_settings import program


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return int(end.value.code or 0)


def test_it_writes_a_file_that_sets_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("init") == 0
    assert SETTINGS_FILE.read_text() == commented_settings(program())
    assert not any(table for table in tomllib.loads(SETTINGS_FILE.read_text()).values())
    assert run("methods") == 0


def test_it_replaces_a_file_only_if_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    SETTINGS_FILE.write_text("no TOML")
    assert run("init") == 2
    assert "tuition.toml exists already. --force replaces it." in capsys.readouterr().err
    assert SETTINGS_FILE.read_text() == "no TOML"
    assert run("init", "--force") == 0
    assert run("methods") == 0


def test_where_the_disk_is_full_the_settings_stay_and_no_part_of_new_ones_does(small_disk: Path) -> None:
    file, text = small_disk / "tuition.toml", "# long " * 1_000_000
    with pytest.raises(ClientError, match=r"tuition\.toml cannot be written: the disk is full"):
        write_settings(file, text, replace=False)
    assert not list(small_disk.iterdir())
    write_settings(file, "budget = 1", replace=False)
    with pytest.raises(ClientError, match=r"tuition\.toml cannot be written: the disk is full"):
        write_settings(file, text, replace=True)
    assert file.read_text() == "budget = 1"


def test_its_comments_are_the_options_with_their_defaults(tmp_path: Path) -> None:
    """With the # away, every option is set to what holds without the file; one without a default is named."""
    text = commented_settings(program())
    assert all(len(line) <= 100 for line in text.splitlines())
    file = tmp_path / "tuition.toml"
    file.write_text(re.sub(r"^#(?=\w+ = )", "", text, flags=re.MULTILINE))
    settings = read_settings(program(), file)
    assert settings is not None
    defaults = settings.defaults
    for words, command in commands_of(program()):
        given: Any = defaults
        for word in words.split():
            given = given[word]
        options = settings_of(command)
        expected = {
            parameter_of(each): str(each.written_default) if each.kind is Path else each.written_default
            for each in options.values()
            if each.written_default is not None
        }
        assert given == expected, words
    flowing = text.replace("\n# ", " ")
    assert "Of distill, plan. Here, it counts for compare too: see [compare].\n#target_domain =" in flowing
    for each in (each for _, command in commands_of(program()) for each in settings_of(command).values()):
        assert re.search(rf"^#{each.key} =", text, re.MULTILINE), each.key
