"""`vendor` run in the process of a test, and in one on a terminal of its own."""

import json
import os
import pty
import sys
import termios
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.forking import ForkedOn
from vendor_service.cli import main as cli


class Command:
    """Runs `vendor` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """The exit code, standard output and standard error."""
        self._monkeypatch.setattr(sys, "argv", ["vendor", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = self._capsys.readouterr()
        return int(ended.value.code or 0), out, err

    def json(self, *arguments: str) -> Any:
        """What a command that must succeed prints for scripts."""
        code, out, err = self(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)


def at_a_terminal(folder: Path, typed: str, *arguments: str) -> tuple[int, str]:
    """Run a command in a process on a terminal of 80 columns; its exit code, and all that was shown."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    process = ForkedOn("vendor_service.cli.main", arguments, folder, environment, theirs)
    os.write(ours, f"{typed}\n".encode())
    shown = b""
    with suppress(OSError):  # how a terminal ends whose other side is closed
        while piece := os.read(ours, 4096):
            shown += piece
    os.close(ours)
    return process.wait(), shown.decode()
