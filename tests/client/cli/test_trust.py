"""A folder's tuition.toml spends and sends nothing before `client trust`, whichever option it sets."""

import json
import os
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import typer.main
from typer.core import TyperGroup

from client.cli.main import app, main
from client.cli.settings import SETTINGS_FILE, commands_of, settings_of
from client.errors import UsageError
from shared import typer_commands
from shared.declared import Declared
from shared.typer_commands import options_of
from tests.client.folders import write_trusted

# How a result is printed, and how a student computes that is at hand: all that needs no trust.
_SAFE = {
    "json", "device", "reject", "top", "steps", "image_size", "threads", "log_format", "domain", "int8",
    "allow_loss", "format", "half", "group_by",
}  # fmt: skip


@pytest.fixture(autouse=True)
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration folder that is empty, beside the working directory."""
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path / "folder")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    for name in ("DATA", "API_KEY", "API_KEY_FILE", "CACHE", "VENDOR_URL", "PROTOCOL"):
        monkeypatch.delenv(f"TUITION_{name}", raising=False)
    return tmp_path / "configuration"


class _Begun(Exception):
    """The command itself would begin now."""


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], str | None]:
    """Type a command, and see how it is refused; `None` if it would begin."""
    read = typer_commands._given
    program = typer.main.get_command(app)

    def begin(*arguments: Any) -> None:
        read(*arguments)
        raise _Begun

    def typed(words: list[str]) -> str | None:
        try:
            program.main(words, standalone_mode=False)
        except UsageError as error:
            return str(error)
        except _Begun:
            return None
        pytest.fail(f"{words} neither begins nor is refused")

    monkeypatch.setattr(typer_commands, "_given", begin)
    return typed


def _settings() -> Iterator[tuple[list[str], str, Declared]]:
    """Each option of each command that a file may set, such a file, and words by which the command begins."""
    program = typer.main.get_command(app)
    assert isinstance(program, TyperGroup)
    for words, command in commands_of(program):
        for setting in settings_of(command).values():
            typed = words.split()
            for option in options_of(command):
                if option.required and option.key != setting.key:
                    typed += ["x.npy"] if option.option.argument else [option.spelled, "x.npy"]
            if setting.path[0] == "ask":  # these count together
                typed += [] if setting.key == "ask_vendor" else ["--ask-vendor", "http://v"]
                typed += ["--ask-budget", "5"] if words == "serve" and setting.key != "ask_budget" else []
            yield typed, f'["{words}"]\n{setting.key} = {_value(setting)}\n', setting


def _value(setting: Declared) -> str:
    if setting.kind is bool or setting.choices:
        return json.dumps(setting.choices[0] if setting.choices else not setting.default)
    if setting.kind in (int, float):
        return str(setting.high if setting.low is None else setting.low)
    return json.dumps(
        {
            "teacher": "cohere",
            "price": "image=1,text=1",
            "select": "random",
            "budgets": "all",
            "labels": "all",
        }.get(setting.key, "http://127.0.0.1:9")
    )


def test_every_option_of_a_file_counts_only_once_it_is_trusted_unless_it_is_safe(
    refusal: Callable[[list[str]], str | None],
) -> None:
    safe = set()
    for typed, text, setting in _settings():
        SETTINGS_FILE.write_text(text)
        said = refusal(typed)
        if setting.option.safe:
            safe.add(setting.key)
        else:
            assert f"trusted, and it sets `{setting.key}`. `client trust` shows" in (said or ""), text
            write_trusted(text)
            said = refusal(typed)
        assert said is None, text
    assert safe == _SAFE, "an option that is safe spends and sends nothing, and names no file and no address"


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Type a command, check its exit code, and see what it prints."""

    def typed(*words: str, code: int = 0) -> str:
        with pytest.raises(SystemExit) as end:
            main(list(words))
        shown = capsys.readouterr()
        assert (end.value.code or 0) == code, shown.err
        return " ".join((shown.out + shown.err).split())

    return typed


@pytest.fixture
def stranger() -> Iterator[tuple[str, list[str | None]]]:
    """Somebody's server, and the keys that were sent to it."""
    keys: list[str | None] = []

    class Taken(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            keys.append(self.headers["authorization"])
            self.send_error(404)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Taken) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", keys
        finally:
            server.shutdown()
            thread.join()


def test_a_strangers_folder_has_no_key_sent_before_a_yes(
    said: Callable[..., str], stranger: tuple[str, list[str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, keys = stranger
    monkeypatch.setenv("TUITION_API_KEY", "tk_1_mine")
    SETTINGS_FILE.write_text(f'vendor = "{url}"\n')
    assert "tuition.toml is not trusted, and it sets `vendor`." in said("models", code=2)
    assert f'vendor = "{url}"' in said("trust", code=2)  # nobody is there to agree
    for answer, code in ((False, 2), (True, 0)):
        assert not keys
        monkeypatch.setattr("client.cli.trust.on_terminal", lambda answer=answer: lambda _: answer)
        said("trust", code=code)
    said("models", code=1)
    assert keys == ["Bearer tk_1_mine"]


def test_a_secret_that_is_no_key_is_sent_to_nobody(
    said: Callable[..., str], stranger: tuple[str, list[str | None]]
) -> None:
    url, keys = stranger
    Path("../.vault-token").write_text("hvs.secret\n")
    for text in (f'vendor = "{url}"\napi_key_file = "../.vault-token"\n', f'vendor = "{url}"\n'):
        SETTINGS_FILE.write_text(text)
        said("trust", "--yes", code=2 if "api_key_file" in text else 0)
        said("models", code=2 if "api_key_file" in text else 1)
    assert keys == [None]
    assert "It was not sent" in said("models", "--api-key-file", "../.vault-token", code=2)
    assert keys == [None]


def test_trust_is_of_one_file_as_it_is(said: Callable[..., str], configuration: Path) -> None:
    text = 'data = "../photos"\n'
    SETTINGS_FILE.write_text(text)
    assert "outside this folder" in said("trust", "--yes")
    (record,) = (configuration / "tuition" / "trusted").iterdir()
    assert (record.stat().st_mode & 0o777, record.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert json.loads(said("trust", "--list", "--json"))[0]["file"] == str(SETTINGS_FILE.resolve())

    refused = "has changed since it was trusted, and it sets `data`"
    SETTINGS_FILE.write_text(text.replace("photos", "private"))
    assert refused in said("data", "check", code=2)
    assert 'data = "../private" <- outside this folder, was "../photos"' in said("trust", code=2)
    SETTINGS_FILE.write_text(text)  # as it was
    assert "photos does not exist" in said("data", "check", code=2)
    assert "no longer trusted" in said("trust", "--revoke")
    assert "is not trusted" in said("data", "check", code=2)
    assert "typed does not exist" in said("data", "check", "typed", code=2)  # what is typed counts

    said("trust", "--yes")
    Path("below").mkdir()
    os.chdir("below")
    for make in (Path.symlink_to, Path.hardlink_to):  # its paths would begin here
        make(SETTINGS_FILE, Path("..") / SETTINGS_FILE)
        assert "is not trusted" in said("data", "check", code=2)
        SETTINGS_FILE.unlink()
